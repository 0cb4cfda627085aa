"""The job goes on only with a permission: the last of the three that ask for one (service, worker, job)."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from runner.errors import DebitRefusedError, PortError
from runner.job import _debit
from runner.pipe import Pipe


@pytest.fixture
def ends() -> Iterator[tuple[Pipe, Pipe]]:
    """The job's pipe and the worker's."""
    (job_reads, worker_writes), (worker_reads, job_writes) = os.pipe(), os.pipe()
    yield Pipe(job_reads, job_writes), Pipe(worker_reads, worker_writes)
    for descriptor in (job_reads, worker_writes, worker_reads, job_writes):
        os.close(descriptor)


def test_a_permitted_batch_goes_on(ends: tuple[Pipe, Pipe]) -> None:
    job, worker = ends
    worker.send("debit_answer", permitted=True)
    _debit(job, 5, 3)

    assert {"type": "debit", "first_round": 5, "rounds": 3} == worker.receive()


def test_rounds_that_are_not_permitted_do_not_run(ends: tuple[Pipe, Pipe]) -> None:
    job, worker = ends
    worker.send("debit_answer", permitted=False)
    with pytest.raises(DebitRefusedError):
        _debit(job, 0, 5)


@pytest.mark.parametrize("answer", [{"permitted": 1}, {"permitted": "true"}, {}])
def test_what_is_no_clear_permission_is_none(ends: tuple[Pipe, Pipe], answer: dict[str, object]) -> None:
    job, worker = ends
    worker.send("debit_answer", **answer)
    with pytest.raises(PortError):
        _debit(job, 0, 5)


def test_another_message_is_no_permission(ends: tuple[Pipe, Pipe]) -> None:
    job, worker = ends
    worker.send("start", permitted=True)
    with pytest.raises(PortError):
        _debit(job, 0, 5)
