"""``kill -9`` in the middle of a training: nothing is left running, nothing is given back, nothing is told.

The lease of the lost runner, a minute, runs out while the other tests of this file are at work.
"""

from __future__ import annotations

import base64
import io
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from governance.ledger.verify import Known, verify
from pysytff.errors import RunEndedError
from tests.e2e.commands import operator
from tests.e2e.conftest import QuietNode
from tests.e2e.nodes import DemoNode, Json, unchanging
from tests.e2e.programs import descendants, matching, no_room_for, server_program, wait_gone, wait_until
from tests.integration.processes.nodes import is_gone, pysytff_server

ROUNDS = 120  # enough to be killed in the middle of it


@dataclass(frozen=True)
class Lost:
    """A run whose runner was killed, and what was known when it was."""

    node: DemoNode
    run_id: str
    committed: Json
    processes: list[int]


@pytest.fixture(scope="module")
def lost(quiet: QuietNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lost]:
    """A runner of its own, as on another host, is killed while it trains."""
    node = quiet.node
    for run in node.sam.read("/v1/runs", state="reserved")["items"]:  # what other tests left in the queue
        assert 200 == node.sam.call("POST", f"/v1/runs/{run['id']}:cancel").status_code
    run_id = submitted(node, "lost-runner")
    log = tmp_path_factory.mktemp("runner") / "runner.log"
    runner = server_program(node.folder, "runner", log=log, PYSYTFF_API_URL=node.url)
    try:
        wait_training(node, run_id)
        processes = [runner.pid, *descendants(runner.pid)]
        committed = node.budget()
        runner.process.kill()
        runner.process.wait()
        yield Lost(node, run_id, committed, processes)
    finally:
        runner.stop()


def submitted(node: DemoNode, key: str) -> str:
    answer = node.sam.submit(node.request(rounds=ROUNDS, clients_per_round=5), key)
    assert (201, "approved") == (answer.status_code, answer.json()["outcome"])
    run_id: str = answer.json()["run_id"]
    return run_id


def wait_training(node: DemoNode, run_id: str) -> None:
    wait_until(lambda: 0 < node.run(run_id)["rounds_done"] < ROUNDS, f"{run_id} is in the middle of its rounds")


def ended_without_result(node: DemoNode, run_id: str) -> None:
    """One generic reason, whatever happened: in the run, in its events, and instead of a result."""
    run = node.run(run_id)
    assert ("quarantined", "ended_without_result") == (run["state"], run["state_reason"])
    assert 0 < run["rounds_done"] <= run["rounds_debited"] < ROUNDS
    events = node.sam.call("GET", f"/v1/runs/{run_id}/events").text
    assert "quarantined" in events
    assert [] == [word for word in ("fault", "lease", "kill", "signal", "job", "error") if word in events]
    for what in ("result", "weights"):
        answer = node.sam.call("GET", f"/v1/runs/{run_id}/{what}")
        assert (409, "conflict") == (answer.status_code, answer.json()["code"])
    with pytest.raises(RunEndedError, match=f"^Run {run_id} ended quarantined \\(ended_without_result\\)"):
        node.domain().runs[run_id].result()


def nothing_is_freed(node: DemoNode, run_id: str, before: Json) -> None:
    """Every round of the reservation counts for ever; and the auditor's sum says so too."""
    (quarantine,) = node.entries(run_id=run_id, kind="quarantine")
    facts, run = quarantine["body"]["facts"], node.run(run_id)
    after = node.budget()

    assert [] == node.entries(run_id=run_id, kind="release")
    assert (run["rounds_debited"], ROUNDS - run["rounds_debited"]) == (facts["rounds_debited"], facts["rounds_held"])
    assert before["committed_epsilon"] == after["committed_epsilon"]
    audited(node)


def audited(node: DemoNode) -> None:
    """The auditor's sum, of the entries alone, is the node's."""
    bodies = b"".join(base64.b64decode(entry["body_base64"]) + b"\n" for entry in node.entries())
    report = verify(io.BytesIO(bodies), Known())
    (ours,) = report.populations
    theirs = node.budget()
    assert [] == report.findings.kept
    assert (theirs["spent_epsilon"], theirs["committed_epsilon"]) == (ours.spent_epsilon, ours.committed_epsilon)


def scratch(node: DemoNode) -> list[Path]:
    return list((node.folder / "scratch").glob("job_*"))


def test_when_the_runner_is_killed_its_job_and_tffs_workers_die_with_it(lost: Lost) -> None:
    wait_gone(lost.processes)
    assert len(lost.processes) >= 3  # the worker, the job, worker_binary


def test_until_the_lease_ends_the_lost_run_counts_as_running_and_keeps_its_budget(lost: Lost) -> None:
    assert lost.node.run(lost.run_id)["state"] in ("running", "quarantined")  # on a machine that is very slow
    assert unchanging(lost.committed)["committed_epsilon"] == lost.node.budget()["committed_epsilon"]


@pytest.mark.parametrize("victim", ["runner.job", "worker_binary"])
def test_a_run_whose_process_is_killed_is_quarantined_and_its_runner_takes_the_next(
    node: DemoNode, lost: Lost, victim: str
) -> None:
    run_id = submitted(node, f"killed-{victim}")
    wait_training(node, run_id)
    before, runner = node.budget(), node.child("-m runner ")
    trainers = descendants(runner)
    os.kill(matching(runner, victim)[0], signal.SIGKILL)
    node.wait_run(run_id, "quarantined", "failed", "published")

    ended_without_result(node, run_id)
    nothing_is_freed(node, run_id, before)
    wait_gone(trainers)
    wait_until(lambda: [] == scratch(node), "nothing of the job is left in the scratch folder")
    assert not is_gone(runner)
    assert node.is_ready()


def test_an_order_to_stop_ends_the_training_and_gives_back_what_was_not_debited(node: DemoNode) -> None:
    before = node.budget()
    run_id = submitted(node, "stopped")
    wait_training(node, run_id)
    trainers = descendants(node.child("-m runner "))
    answer: Any = node.sam.call("POST", f"/v1/runs/{run_id}:cancel").json()
    (release,) = node.entries(run_id=run_id, kind="release")

    assert ("cancelled", "cancelled") == (answer["state"], answer["state_reason"])
    assert ROUNDS - answer["rounds_debited"] == release["body"]["facts"]["rounds_released"]
    assert before["spent_epsilon"] < node.budget()["spent_epsilon"]
    wait_gone(trainers)


def test_a_runner_without_room_on_its_disk_ends_the_run_and_stays(node: DemoNode) -> None:
    runner = node.child("-m runner ")
    with no_room_for(runner):
        run_id = node.sam.submit(node.request(rounds=1), "no-room").json()["run_id"]
        run = node.wait_run(run_id, "failed", "quarantined", "published")

    assert (run["state"], run["state_reason"]) in (
        ("failed", "failed_before_data"),
        ("quarantined", "ended_without_result"),
    )
    assert runner == node.child("-m runner ")
    assert node.is_ready()


def test_a_lost_runners_lease_ends_and_its_run_is_quarantined(lost: Lost) -> None:
    lost.node.wait_run(lost.run_id, "quarantined", "failed", "published")

    ended_without_result(lost.node, lost.run_id)
    nothing_is_freed(lost.node, lost.run_id, lost.committed)


def test_an_operator_with_evidence_gives_back_what_the_lost_run_had_not_debited(lost: Lost) -> None:
    """A host that was lost says nothing about anybody. The rounds that were debited stay spent."""
    before, run = lost.node.budget(), lost.node.run(lost.run_id)
    password = operator(lost.node.folder, "user", "password", "admin@stargate.net").split()[-1]
    story = "The host of the runner lost its power; the machine room's log says so."
    given = ("--kind", "host_lost", "--statement", story, "--email", "admin@stargate.net", "--url", lost.node.url)
    resolve = ("ledger", "resolve", lost.run_id, *given)
    said = operator(lost.node.folder, *resolve, PYSYTFF_PASSWORD=password)
    again = pysytff_server(lost.node.folder, *resolve, PYSYTFF_PASSWORD=password)

    spent, left = run["rounds_debited"], ROUNDS - run["rounds_debited"]
    assert f"{lost.run_id}: {spent} of {ROUNDS} rounds stay spent, {left} were given back\n" == said
    assert (1, True) == (again.returncode, "only a quarantined one is resolved" in again.stderr)
    (resolved,) = lost.node.entries(run_id=lost.run_id, kind="quarantine_resolved")
    facts = resolved["body"]["facts"]
    assert (left, spent, "host_lost") == (facts["rounds_released"], facts["rounds_debited"], facts["evidence"]["kind"])
    assert [] == [entry for entry in lost.node.entries() if "power" in str(entry["body"])]
    after = lost.node.budget()
    assert before["spent_epsilon"] == after["spent_epsilon"]
    assert after["spent_epsilon"] <= after["committed_epsilon"] < before["committed_epsilon"]
    audited(lost.node)
