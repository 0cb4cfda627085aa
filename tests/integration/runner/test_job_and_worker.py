"""A real worker with a real job, against an in-process governor that keeps the rules of the port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from runner.port import DebitAnswer, Grant, GrantReport, Heartbeat, RunResult
from runner.worker import Worker, WorkerSettings
from tests.integration.runner.made_data import HANDLE, HOLDOUT, classified_units, grant, parameters, write_version


class RecordingGovernor:
    """Keeps what was said to it. ``on_debit`` and ``on_heartbeat`` may raise or answer otherwise."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.result: RunResult | None = None
        self.on_debit: Callable[[int, int], DebitAnswer] = lambda first, rounds: DebitAnswer(True, first + rounds)
        self.on_heartbeat: Callable[[], Heartbeat] = lambda: Heartbeat(stop=False, lease_seconds=30)

    def claim(self) -> Grant | None:
        return None

    def heartbeat(self, grant_id: str, fencing_token: int) -> Heartbeat:
        return self.on_heartbeat()

    def debit(self, grant_id: str, fencing_token: int, first_round: int, rounds: int) -> DebitAnswer:
        self.calls.append(("debit", first_round, rounds))
        return self.on_debit(first_round, rounds)

    def progress(self, grant_id: str, fencing_token: int, rounds_done: int) -> None:
        self.calls.append(("progress", rounds_done))

    def publish(self, grant_id: str, fencing_token: int, result: RunResult) -> None:
        self.calls.append(("publish",))
        self.result = result

    def fail(self, grant_id: str, fencing_token: int, *, touched_data: bool) -> None:
        self.calls.append(("fail", touched_data))

    def report(self, reports: Sequence[GrantReport]) -> None:
        self.calls.append(("report", *reports))

    @property
    def outcome(self) -> tuple[object, ...]:
        return self.calls[-1]


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    write_version(tmp_path / "data", HANDLE, classified_units(12))
    write_version(tmp_path / "data", HOLDOUT, classified_units(60, seed=1), public=True)
    (tmp_path / "scratch").mkdir()
    return WorkerSettings(data_root=tmp_path / "data", scratch=tmp_path / "scratch", job_seconds=300.0)


def _run(settings: WorkerSettings, granted: Grant, governor: RecordingGovernor) -> RecordingGovernor:
    with Worker(governor, settings) as worker:
        worker.run_grant(granted)
    return governor


def _eventually(condition: Callable[[], bool], seconds: float = 90.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def test_a_granted_run_is_debited_ahead_trained_evaluated_and_published_once(settings: WorkerSettings) -> None:
    granted = grant(parameters=parameters(rounds=3), data=replace(grant().data, holdout_handle=HOLDOUT))
    governor = _run(settings, granted, RecordingGovernor())
    assert [("debit", 0, 2), ("debit", 2, 1)] == [call for call in governor.calls if call[0] == "debit"]
    assert [("progress", 3), ("publish",)] == governor.calls[-2:]
    assert governor.result is not None
    weights = load(governor.result.weights)
    assert {"dense/kernel": (6, 3), "dense/bias": (3,)} == {name: value.shape for name, value in weights.items()}
    assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in weights.values())
    assert {"holdout_loss", "holdout_accuracy", "holdout_examples"} == set(governor.result.public_metrics)
    assert "chacha20" in governor.result.generator
    assert ["logs"] == [path.name for path in settings.scratch.iterdir()]


def test_a_holdout_that_is_private_data_ends_the_run_before_anything_is_debited(settings: WorkerSettings) -> None:
    private = replace(grant().data, holdout_handle=HANDLE)
    governor = _run(settings, grant(data=private), RecordingGovernor())
    assert ("fail", False) == governor.outcome
    assert not [call for call in governor.calls if call[0] == "debit"]


@pytest.mark.parametrize("victim", ["runner.job", "worker_binary"])
def test_a_job_that_is_killed_or_loses_its_executor_leaves_no_process_and_fails_the_run_as_touched(
    settings: WorkerSettings, victim: str
) -> None:
    governor = RecordingGovernor()
    family: dict[int, str] = {}

    def kill_the_victim(first: int, rounds: int) -> DebitAnswer:
        (job,) = [pid for pid in _descendants(os.getpid()) if "runner.job" in _command(pid)]
        family.update({pid: _command(pid) for pid in (job, *_descendants(job))})
        os.kill(next(pid for pid, command in family.items() if victim in command), signal.SIGKILL)
        return DebitAnswer(True, rounds)

    governor.on_debit = kill_the_victim
    _run(settings, grant(), governor)
    assert ("fail", True) == governor.outcome
    assert governor.result is None
    assert any("worker_binary" in command for command in family.values())
    assert _eventually(lambda: not any(_is_alive(pid) for pid in family))


def test_a_worker_that_is_killed_takes_its_job_and_tffs_worker_binary_with_it(settings: WorkerSettings) -> None:
    worker = subprocess.Popen([sys.executable, "-c", _WORKER, str(settings.data_root), str(settings.scratch)])
    try:

        def descendants() -> list[int]:
            return [pid for pid in _descendants(worker.pid) if _is_alive(pid)]

        assert _eventually(lambda: any("worker_binary" in _command(pid) for pid in descendants()))
        family = descendants()
        assert any("runner.job" in _command(pid) for pid in family)
        worker.kill()
        assert _eventually(lambda: not any(_is_alive(pid) for pid in family))
    finally:
        worker.kill()
        worker.wait()


# A worker whose service never answers a debit, so that the job waits in the middle of its run.
_WORKER = """
import sys, time
from pathlib import Path
from runner.worker import Worker, WorkerSettings
from tests.integration.runner.made_data import grant
from runner.port import Heartbeat

class SilentGovernor:
    def heartbeat(self, *_): return Heartbeat(False, 30)
    def debit(self, *_): time.sleep(3600)

Worker(SilentGovernor(), WorkerSettings(Path(sys.argv[1]), Path(sys.argv[2]))).run_grant(grant())
"""


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *_descendants(child)]
    return found
