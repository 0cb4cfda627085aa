"""The worker against jobs that behave, misbehave, hang or die: scripts here, a real job in tests/integration."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.errors import (
    GovernorRefusedError,
    GovernorUnreachableError,
    GrantRevokedError,
    JournalError,
    LedgerClosedError,
)
from runner.journal import read_reports
from runner.port import DebitAnswer, Grant, GrantReport, Heartbeat, JoinedData, RunResult
from runner.worker import Worker, WorkerSettings
from tests.integration.runner.made_data import HANDLE, HOLDOUT, grant

OTHER = "ver_" + "2" * 24
# What every scripted job begins with: the port, without anything else of the real job.
PRELUDE = """
import os, sys, time
from runner.pipe import Pipe
ends = dict(argument.lstrip("-").split("=") for argument in sys.argv[1:])
pipe = Pipe(int(ends["read-fd"]), int(ends["write-fd"]))
pipe.send("ready", private_network=True)
start = pipe.receive()
def debit(first, rounds):
    pipe.send("debit", first_round=first, rounds=rounds)
    return pipe.receive()["permitted"]
def finish(rounds=4, metrics={}):
    import numpy as np
    from safetensors.numpy import save_file
    weights = {"dense/kernel": np.ones((6, 3), np.float32), "dense/bias": np.zeros(3, np.float32)}
    save_file(weights, start["scratch"] + "/w.safetensors")
    pipe.send("finished", rounds=rounds, weights="w.safetensors", public_metrics=metrics, generator="g")
def train():
    for first in (0, 2):
        if not debit(first, 2):
            pipe.send("failed")
            sys.exit(1)
        for done in (first + 1, first + 2):
            pipe.send("progress", rounds_done=done)
"""


class ScriptedGovernor:
    """``answers`` replaces what a call does; everything said is kept."""

    def __init__(self, **answers: Callable[..., Any]) -> None:
        self.answers = answers
        self.calls: list[tuple[object, ...]] = []
        self.result: RunResult | None = None

    def claim(self) -> Grant | None:
        return self._answer("claim", None)  # type: ignore[no-any-return]

    def heartbeat(self, grant_id: str, fencing_token: int) -> Heartbeat:
        return self._answer("heartbeat", Heartbeat(False, 30))  # type: ignore[no-any-return]

    def debit(self, grant_id: str, fencing_token: int, first_round: int, rounds: int) -> DebitAnswer:
        self.calls.append(("debit", first_round, rounds))
        return self._answer("debit", DebitAnswer(True, first_round + rounds))  # type: ignore[no-any-return]

    def progress(self, grant_id: str, fencing_token: int, rounds_done: int) -> None:
        self.calls.append(("progress", rounds_done))
        self._answer("progress", None)

    def publish(self, grant_id: str, fencing_token: int, result: RunResult) -> None:
        self._answer("publish", None)
        self.calls.append(("publish", result.rounds))
        self.result = result

    def fail(self, grant_id: str, fencing_token: int, *, touched_data: bool) -> None:
        self.calls.append(("fail", touched_data))
        self._answer("fail", None)

    def report(self, reports: Sequence[GrantReport]) -> None:
        self.calls.append(("report", *reports))
        self._answer("report", None)

    def _answer(self, call: str, usual: object) -> Any:
        return self.answers[call]() if call in self.answers else usual


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    (tmp_path / "scratch").mkdir()
    return WorkerSettings(tmp_path / "data", tmp_path / "scratch", job_seconds=60.0, poll_seconds=0.05)


def worker(governor: ScriptedGovernor, settings: WorkerSettings, script: str) -> Worker:
    return Worker(governor, settings, job=(sys.executable, "-c", PRELUDE + script))


def run(governor: ScriptedGovernor, settings: WorkerSettings, script: str, **changes: Any) -> ScriptedGovernor:
    with worker(governor, settings, script) as made:
        made.run_grant(grant(**changes))
    # Whatever happened: no scratch is left, and only logs stay.
    assert ["logs"] == [path.name for path in settings.scratch.iterdir()]
    return governor


def raising(error: Exception) -> Callable[[], Any]:
    def raise_it() -> Any:
        raise error

    return raise_it


def test_a_finished_run_is_published_once_after_all_its_debits(settings: WorkerSettings) -> None:
    governor = run(ScriptedGovernor(), settings, "train(); finish()")
    assert [("debit", 0, 2), ("debit", 2, 2)] == [call for call in governor.calls if call[0] == "debit"]
    assert [("progress", 4), ("publish", 4)] == governor.calls[-2:]
    assert governor.result is not None
    assert ({}, "g") == (governor.result.public_metrics, governor.result.generator)


@pytest.mark.parametrize(
    "script",
    [
        "finish()",  # nothing was run
        "debit(0, 2); finish(rounds=2)",
        "debit(0, 2); pipe.send('progress', rounds_done=1); pipe.send('progress', rounds_done=3)",
        "pipe.send('progress', rounds_done=1)",  # not debited
        "debit(2, 2)",  # out of order
        "debit(0, 3)",  # more than rounds_per_debit
        "debit(0, 0)",
        "debit(0, -1)",
        "debit(0, 2); debit(0, 2)",  # again
        "debit(0, 2); debit(2, 2)",  # ahead of its work
        "train(); debit(4, 1)",  # beyond the grant
        "train(); finish(metrics={'holdout_loss': 0.5})",  # there is no hold-out
        "train(); pipe.send('finished', rounds=4, weights='/etc/passwd', public_metrics={}, generator='g')",
        "pipe.send('claim')",
        "os.write(int(ends['write-fd']), b'garbage\\n')",
        "pipe.send('failed')",
        "sys.exit(3)",
        "os.kill(os.getpid(), 9)",
        "train(); sys.exit(0)",
    ],
)
def test_a_job_that_says_anything_else_has_failed_and_nothing_is_published(
    settings: WorkerSettings, script: str
) -> None:
    governor = run(ScriptedGovernor(), settings, script)
    assert "fail" == governor.calls[-1][0]
    assert governor.result is None


def test_a_job_that_ends_before_its_first_debit_touched_no_data(settings: WorkerSettings) -> None:
    assert ("fail", False) == run(ScriptedGovernor(), settings, "pipe.send('failed')").calls[-1]


@pytest.mark.parametrize(
    "debit",
    [
        lambda: DebitAnswer(False, 2),
        raising(GovernorRefusedError("debit", 422, "invalid")),
    ],
    ids=["not permitted", "refused"],
)
def test_from_the_first_debit_on_every_doubt_counts_as_touched(
    settings: WorkerSettings, debit: Callable[[], DebitAnswer]
) -> None:
    governor = run(ScriptedGovernor(debit=debit), settings, "train(); finish()")
    assert [("debit", 0, 2), ("fail", True)] == governor.calls


def test_a_lost_answer_to_a_debit_is_asked_for_again_and_a_second_no_ends_the_run(settings: WorkerSettings) -> None:
    answers: Iterator[Callable[[], Any]] = iter(
        [raising(GovernorUnreachableError("debit", "lost")), lambda: DebitAnswer(False, 2)]
    )
    governor = run(ScriptedGovernor(debit=lambda: next(answers)()), settings, "train(); finish()")
    assert [("debit", 0, 2), ("debit", 0, 2), ("fail", True)] == governor.calls


@pytest.mark.parametrize("call", ["debit", "progress", "publish"])
def test_a_revoked_grant_ends_the_job_and_publishes_nothing(settings: WorkerSettings, call: str) -> None:
    governor = run(ScriptedGovernor(**{call: raising(GrantRevokedError("gra_1"))}), settings, "train(); finish()")
    assert governor.result is None
    assert "fail" not in {said[0] for said in governor.calls}  # the service has closed the grant itself


@pytest.mark.parametrize(
    "heartbeat",
    [
        lambda: Heartbeat(stop=True, lease_seconds=30),
        raising(GrantRevokedError("gra_1")),
        raising(GovernorRefusedError("heartbeat", 401, "not_authenticated")),
        raising(GovernorUnreachableError("heartbeat", "ConnectError")),
    ],
    ids=["stopped", "revoked", "refused", "unreachable until the lease ends"],
)
def test_a_heartbeat_that_does_not_extend_the_lease_kills_the_job_and_its_children(
    settings: WorkerSettings, tmp_path: Path, heartbeat: Callable[[], Heartbeat]
) -> None:
    script = f"""
import subprocess
child = subprocess.Popen(["sleep", "600"])
open({str(tmp_path / "pids")!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
debit(0, 2)
time.sleep(600)
"""
    governor = ScriptedGovernor()
    governor.answers["heartbeat"] = lambda: heartbeat() if governor.calls else Heartbeat(False, 2)
    run(governor, settings, script, lease_seconds=2)
    assert ("fail", True) == governor.calls[-1]
    family = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert eventually(lambda: not any(is_alive(pid) for pid in family))


def test_a_short_outage_of_the_service_is_ridden_out(settings: WorkerSettings) -> None:
    answers = iter([raising(GovernorUnreachableError("heartbeat", "ConnectError"))])
    governor = ScriptedGovernor(heartbeat=lambda: next(answers, lambda: Heartbeat(False, 3))())
    run(governor, settings, "train(); time.sleep(3.5); finish()", lease_seconds=3)
    assert ("publish", 4) == governor.calls[-1]


def test_a_publication_whose_answer_is_lost_is_sent_again(settings: WorkerSettings) -> None:
    answers = iter([raising(GovernorUnreachableError("publish", "lost"))])
    governor = run(ScriptedGovernor(publish=lambda: next(answers, lambda: None)()), settings, "train(); finish()")
    assert ("publish", 4) == governor.calls[-1]


def test_a_job_that_hangs_is_killed_at_its_time_limit(settings: WorkerSettings) -> None:
    governor = run(ScriptedGovernor(), replace(settings, job_seconds=1.0), "time.sleep(600)")
    assert ("fail", False) == governor.calls[-1]


def test_an_outage_of_the_display_does_not_end_a_run(settings: WorkerSettings) -> None:
    governor = ScriptedGovernor(progress=raising(GovernorUnreachableError("progress", "ReadTimeout")))
    assert ("publish", 4) == run(governor, settings, "train(); finish()").calls[-1]


def test_a_failure_that_cannot_be_reported_is_left_to_the_lease(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.grant_run.REPORT_SECONDS", 0.7)
    governor = ScriptedGovernor(fail=raising(GovernorUnreachableError("fail", "ConnectError")))
    assert ("fail", False) == run(governor, settings, "pipe.send('failed')").calls[-1]


def test_a_handle_that_is_none_fails_the_run_before_a_job_is_started(settings: WorkerSettings) -> None:
    governor = ScriptedGovernor()
    worker(governor, settings, "train()").run_grant(grant(data=replace(grant().data, version_handle="../../etc")))
    assert [("fail", False)] == governor.calls
    assert [] == list(settings.scratch.iterdir())


def test_a_full_disk_fails_the_run_and_not_the_worker(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(**_: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", disk_full)
    governor = ScriptedGovernor()
    worker(governor, settings, "train()").run_grant(grant())
    assert [("fail", False)] == governor.calls


def test_the_job_sees_its_grant_and_its_data_and_nothing_of_the_workers_environment(
    settings: WorkerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYSYTFF_RUNNER_CREDENTIAL_FILE", "/secret/credential")
    script = f"""
import json
fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{{fd}}"))
seen = dict(start=start, environment=dict(os.environ), fds=fds, session=os.getsid(0) == os.getpid())
json.dump(seen, open({str(tmp_path / "seen")!r}, "w"))
"""
    handle = replace(grant().data, holdout_handle=HOLDOUT, joined=(JoinedData(OTHER, "x", "y", 9),))
    run(ScriptedGovernor(), settings, script, data=handle)
    seen = json.loads((tmp_path / "seen").read_text())
    assert grant(data=handle).to_json() == seen["start"]["grant"]
    assert str(settings.data_root / "datasets" / HOLDOUT) == seen["start"]["holdout"]
    assert [str(settings.data_root / "datasets" / OTHER)] == seen["start"]["joined"]
    assert {"type", "grant", "training", "joined", "holdout", "scratch"} == set(seen["start"])
    assert not [name for name in seen["environment"] if name.startswith("PYSYTFF_")]
    assert 5 == len(seen["fds"])  # stdin, two for the log, the two pipes
    assert seen["session"]


def test_old_logs_make_room_for_new_ones(settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.grant_run.KEPT_LOGS", 3)
    for number in range(5):
        run(ScriptedGovernor(), settings, "print('hello', flush=True)", grant_id=f"gra_{number}")
    logs = sorted((settings.scratch / "logs").iterdir())
    assert ["gra_2.log", "gra_3.log", "gra_4.log"] == [log.name for log in logs]
    assert "hello\n" == logs[-1].read_text()
    assert 0o600 == logs[-1].stat().st_mode & 0o777


def test_the_worker_claims_one_grant_after_another_and_outlives_outages(settings: WorkerSettings) -> None:
    answers = iter(
        [
            raising(GovernorUnreachableError("claim", "ConnectError")),
            lambda: None,
            lambda: grant(grant_id="gra_1"),
            lambda: grant(grant_id="gra_2"),
        ]
    )
    governor = ScriptedGovernor(claim=lambda: next(answers, finished)())
    made = worker(governor, settings, "train(); finish()")

    def finished() -> None:
        made.stop()

    with made:
        made.run()
    assert 2 == governor.calls.count(("publish", 4))


def test_a_refused_credential_ends_the_worker(settings: WorkerSettings) -> None:
    governor = ScriptedGovernor(claim=raising(GovernorRefusedError("claim", 401, "not_authenticated")))
    with pytest.raises(GovernorRefusedError):
        worker(governor, settings, "").run()


def test_stopping_the_worker_kills_its_job_and_reports_it(settings: WorkerSettings) -> None:
    made: list[Worker] = []

    def stop_then_permit() -> DebitAnswer:
        made[0].stop()
        return DebitAnswer(True, 2)

    governor = ScriptedGovernor(debit=stop_then_permit)
    made.append(worker(governor, settings, "debit(0, 2); time.sleep(600)"))
    made[0].run_grant(grant())
    assert ("fail", True) == governor.calls[-1]


# --- the journal ---

# A job that leaves a file for each batch of rounds that it was allowed to run.
RUNS = """
import pathlib
for first in (0, 2):
    if not debit(first, 2):
        pipe.send("failed")
        sys.exit(1)
    pathlib.Path({directory!r}, f"ran_{{first}}").touch()
    for done in (first + 1, first + 2):
        pipe.send("progress", rounds_done=done)
finish()
"""


def runs(directory: Path) -> str:
    directory.mkdir(exist_ok=True)
    return RUNS.format(directory=str(directory))


def ran(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def permitted(settings: WorkerSettings) -> list[tuple[int, bool]]:
    return [(one.rounds_permitted, one.ended) for one in read_reports(settings.journal_directory)]


def test_a_permission_is_in_the_journal_before_the_job_hears_of_it(settings: WorkerSettings, tmp_path: Path) -> None:
    script = f"""
import shutil
for first in (0, 2):
    debit(first, 2)
    shutil.copy({str(settings.journal_directory / "journal.jsonl")!r}, {str(tmp_path)!r} + f"/heard_{{first}}")
    for done in (first + 1, first + 2):
        pipe.send("progress", rounds_done=done)
finish()
"""
    run(ScriptedGovernor(), settings, script)
    for first in (0, 2):
        heard = [json.loads(line) for line in (tmp_path / f"heard_{first}").read_text().splitlines()]
        assert ("permitted", first, 2) == (heard[-1]["kind"], heard[-1]["first_round"], heard[-1]["rounds"])
    assert [(4, True)] == permitted(settings)


def test_rounds_whose_debit_is_not_permitted_never_run(settings: WorkerSettings, tmp_path: Path) -> None:
    answers = iter([DebitAnswer(True, 2), DebitAnswer(False, 4)])
    run(ScriptedGovernor(debit=lambda: next(answers)), settings, runs(tmp_path / "ran"))
    assert ["ran_0"] == ran(tmp_path / "ran")
    assert [(2, True)] == permitted(settings)


def test_rounds_whose_permission_was_lost_on_the_way_never_run(settings: WorkerSettings, tmp_path: Path) -> None:
    lost = raising(GovernorUnreachableError("debit", "ReadTimeout"))  # after the service committed it
    answers: Iterator[Callable[[], Any]] = iter([lambda: DebitAnswer(True, 2), lost, lambda: DebitAnswer(False, 4)])
    governor = run(ScriptedGovernor(debit=lambda: next(answers)()), settings, runs(tmp_path / "ran"))
    assert ["ran_0"] == ran(tmp_path / "ran")
    assert ("fail", True) == governor.calls[-1]


@pytest.mark.parametrize("kept", [0, 2])
def test_a_permission_that_cannot_be_written_down_lets_nothing_run(
    settings: WorkerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    real, calls = os.fsync, iter(range(100))

    def fsync(fd: int) -> None:
        if next(calls) >= failing_from:
            raise OSError(5, "Input/output error")
        real(fd)

    with worker(ScriptedGovernor(), settings, runs(tmp_path / "ran")) as made:
        failing_from = 1 + kept // 2  # after "claimed", and each batch of two rounds
        monkeypatch.setattr(os, "fsync", fsync)
        governor = made._governor
        made.run_grant(grant())
    assert isinstance(governor, ScriptedGovernor)
    assert ("fail", True) == governor.calls[-1]
    assert governor.result is None
    assert (["ran_0"] if kept else []) == ran(tmp_path / "ran")


def test_a_grant_that_comes_a_second_time_does_not_run(settings: WorkerSettings, tmp_path: Path) -> None:
    run(ScriptedGovernor(), settings, "train(); finish()")
    governor = run(ScriptedGovernor(), settings, runs(tmp_path / "ran"))  # also by another worker, later
    assert [("fail", True)] == governor.calls
    assert [] == ran(tmp_path / "ran")


def test_nothing_is_claimed_while_the_journal_cannot_be_written(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    grants = iter([grant(grant_id="gra_1"), grant(grant_id="gra_2")])

    def claim() -> Grant | None:
        if (granted := next(grants, None)) is None:
            made.stop()
        return granted

    governor = ScriptedGovernor(claim=claim)
    made = worker(governor, settings, "train(); finish()")

    def disk_full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    truncate, tries = os.ftruncate, iter(range(100))

    def still_full(fd: int, size: int) -> None:
        if next(tries) < 2:
            raise OSError(28, "No space left on device")
        monkeypatch.undo()
        truncate(fd, size)

    monkeypatch.setattr(os, "pwrite", disk_full)
    monkeypatch.setattr(os, "ftruncate", still_full)
    with made:
        made.run()
    assert [("fail", False), ("debit", 0, 2)] == governor.calls[:2]  # gra_1 before anything ran, then gra_2
    assert ("publish", 4) == governor.calls[-1]


def test_a_second_worker_on_the_same_journal_or_scratch_refuses_to_start(
    settings: WorkerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.journal.LOCK_SECONDS", 0.0)
    (tmp_path / "elsewhere").mkdir()
    with worker(ScriptedGovernor(), settings, ""):
        for clash in (
            replace(settings, scratch=tmp_path / "elsewhere"),
            replace(settings, journal=tmp_path / "elsewhere"),
        ):
            with pytest.raises(JournalError, match="another worker"):
                worker(ScriptedGovernor(), clash, "")
    worker(ScriptedGovernor(), settings, "").close()  # once it has ended


def test_what_a_killed_worker_left_of_its_jobs_is_removed_at_the_next_start(settings: WorkerSettings) -> None:
    (settings.scratch / "job_left" / "joined").mkdir(parents=True)
    (settings.scratch / "logs").mkdir()
    worker(ScriptedGovernor(), settings, "").close()
    assert ["logs"] == [path.name for path in settings.scratch.iterdir()]


def test_a_closed_ledger_gets_everything_that_was_permitted_and_is_asked_again(settings: WorkerSettings) -> None:
    run(ScriptedGovernor(), settings, "train(); finish()")
    closed = raising(LedgerClosedError("claim", "ledger_closed"))
    claims = iter([closed, closed, closed, lambda: grant(grant_id="gra_2"), closed])
    reports = iter([raising(GovernorUnreachableError("report", "ReadTimeout"))])
    governor = ScriptedGovernor(claim=lambda: next(claims, made.stop)(), report=lambda: next(reports, lambda: None)())
    made = worker(governor, replace(settings, closed_poll_seconds=0.01), "train(); finish()")
    with made:
        made.run()
    said = [call for call in governor.calls if call[0] in ("report", "publish")]
    first = GrantReport("gra_1", "run_1", 7, (HANDLE,), 0.5, 1.0, rounds_permitted=4, ended=True)
    second = replace(first, grant_id="gra_2")
    # Delivered at the second try, not again while it stays closed, and once more when it closes again.
    assert [("report", first), ("report", first), ("publish", 4), ("report", first, second)] == said


def test_a_run_under_way_reports_to_a_closed_ledger_and_goes_on_when_it_opens(settings: WorkerSettings) -> None:
    closed = raising(LedgerClosedError("debit", "ledger_closed"))
    answers: Iterator[Callable[[], Any]] = iter([lambda: DebitAnswer(True, 2), closed, closed])
    governor = ScriptedGovernor(debit=lambda: next(answers, lambda: DebitAnswer(True, 4))())
    run(governor, settings, "train(); finish()")
    open_grant = GrantReport("gra_1", "run_1", 7, (HANDLE,), 0.5, 1.0, rounds_permitted=2, ended=False)
    assert [("report", open_grant)] == [call for call in governor.calls if call[0] == "report"]
    assert ("publish", 4) == governor.calls[-1]
    assert [(4, True)] == permitted(settings)


@pytest.mark.parametrize("refusal", [GovernorRefusedError("report", 413, "body_too_large"), GrantRevokedError("")])
def test_a_report_that_is_refused_ends_nothing(settings: WorkerSettings, refusal: Exception) -> None:
    claims = iter([raising(LedgerClosedError("claim", "ledger_closed")), lambda: grant()])
    governor = ScriptedGovernor(claim=lambda: next(claims, stop)(), report=raising(refusal))

    def stop() -> None:
        made.stop()

    made = worker(governor, replace(settings, closed_poll_seconds=0.01), "train(); finish()")
    with made:
        made.run()
    assert ("publish", 4) == governor.calls[-1]


def test_a_terminated_runner_process_ends_cleanly(tmp_path: Path) -> None:
    credential = tmp_path / "credential"
    credential.write_text("pysr_secret")
    credential.chmod(0o600)
    runner = subprocess.Popen(
        [sys.executable, "-m", "runner"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ
        | {
            "PYSYTFF_API_URL": "http://127.0.0.1:9",  # nobody there
            "PYSYTFF_RUNNER_CREDENTIAL_FILE": str(credential),
            "PYSYTFF_DATA_ROOT": str(tmp_path),
            "PYSYTFF_SCRATCH_DIR": str(tmp_path / "scratch"),
        },
    )
    assert runner.stderr is not None
    with runner.stderr:
        seen = [runner.stderr.readline(), runner.stderr.readline()]
        runner.send_signal(signal.SIGTERM)
        seen += runner.stderr.readlines()
    assert 0 == runner.wait(30)
    assert ["runner_started", "service_unreachable", "runner_stopped"] == [json.loads(line)["event"] for line in seen]
    assert "pysr_secret" not in "".join(seen)


def test_the_worker_loads_no_tensorflow() -> None:
    check = "import sys, runner.worker, runner.http, runner.__main__; sys.exit('tensorflow' in sys.modules)"
    assert 0 == subprocess.run([sys.executable, "-c", check], check=False).returncode


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not condition():
        time.sleep(0.02)
    return condition()
