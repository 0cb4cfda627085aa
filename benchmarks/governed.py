"""``governed``: rounds per second of W1 through API process, worker, job and debits, against plain ``tff.learning``.

The same data, model, local training, clipping norm, noise and sampling probability on every side; each draws Poisson
cohorts of its own (a run's true cohorts are secret), so rates are means over many rounds. The scripts take turns before
and after the governed run. Steady state: starting, building and the first rounds count on neither side; the total, with
all of that, stands beside it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import workload
from benchmarks.record import ROOT, Recorder
from benchmarks.stage import SQLITE, Api, Kept, Site, Submitter, api, stage
from benchmarks.timing import milliseconds, p50
from governance.ledger import entries
from governance.model import RunEvent

_ROUNDS = 600
_PLAIN_ROUNDS = {"keras": 12, "functional": 25, "ours": 150}  # in each of two turns
_WARM_UP = 3
_TIMEOUT_S = 200.0
_DEBITS = 100


def run(recorder: Recorder) -> None:
    with stage() as theatre, ExitStack() as stack:
        site = theatre.site(SQLITE, workload.lay_out, declared_size=workload.UNITS, epsilon=100_000.0, delta=1e-5)
        version = site.settings.data_root / "datasets" / site.dataset.version_handle
        plain = {kind: stack.enter_context(_script(kind, version)) for kind in _PLAIN_ROUNDS}
        took: dict[str, list[float]] = {kind: script.rounds(_PLAIN_ROUNDS[kind]) for kind, script in plain.items()}
        served = stack.enter_context(api(site))
        with _worker(site, served):
            total, events = _train(site, served)
        for kind, script in plain.items():
            took[kind] += script.rounds(_PLAIN_ROUNDS[kind])
        starts = {kind: script.start_s for kind, script in plain.items()}
        _report(recorder, _steady(events), total, took, starts)
        _report_api(recorder, served)
        recorder.add(
            "one debit through REST, p50",
            p50(_debits(site, served)),
            "ms",
            baseline=("the training of the rounds that it pays for", 5000 / _rate(took["ours"])),
        )


def _report(
    recorder: Recorder, governed: float, total: float, took: dict[str, list[float]], starts: dict[str, float]
) -> None:
    for kind, name in {"keras": "a Keras model", "functional": "a functional model"}.items():
        recorder.add(
            f"governed training, against tff.learning with {name}",
            governed,
            "rounds/s",
            baseline=(f"tff.learning, {name}", _rate(took[kind])),
            aim=">= 0.95",
        )
    recorder.add(
        "governed training, against our own trainer alone",
        governed,
        "rounds/s",
        baseline=("runner.training without gate", _rate(took["ours"])),
    )
    alone = starts["functional"] + _ROUNDS / _rate(took["functional"])
    recorder.add(
        f"total of {_ROUNDS} rounds, from request to result",
        total,
        "s",
        baseline=("tff.learning, functional model: start, and that many rounds at its rate", alone),
    )


def _report_api(recorder: Recorder, served: Api) -> None:
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{served.pid}/status").read_text(encoding="ascii").splitlines()
    )
    recorder.add("API process, memory at its highest", int(status["VmHWM"].split()[0]) / 1024, "MB", aim="< 300 MB")
    mapped = {line.split()[-1] for line in Path(f"/proc/{served.pid}/maps").read_text().splitlines()}
    ours = [file for file in mapped if "tensorflow" in file]
    recorder.add("API process, libraries of TensorFlow in memory", len(ours), "libraries", aim="= 0 libraries")


def _rate(took: list[float]) -> float:
    return len(took) / sum(took)


def _steady(events: list[RunEvent]) -> float:
    """Rounds per second between the first report of progress and the last one."""
    progress = [event for event in events if event.type == "progress"]
    first, last = progress[0], progress[-1]
    return float((last.data["rounds_done"] - first.data["rounds_done"]) / (last.at - first.at).total_seconds())


def _train(site: Site, served: Api) -> tuple[float, list[RunEvent]]:
    """(seconds from request to publication, the run's events)."""
    began = time.monotonic()
    answer = Submitter(site, served.port)(rounds=_ROUNDS, **workload.request())
    while time.monotonic() < began + _TIMEOUT_S:
        with site.database.read() as connection:
            events = entries.select_events(connection, after=0, limit=10_000, run_id=answer["run_id"])
        state = [event.data["state"] for event in events if event.type == "state"][-1]
        if state not in ("reserved", "running"):
            break
        time.sleep(0.25)
    if state != "published":
        logs = sorted(site.settings.scratch_dir.glob("logs/*.log"))
        raise RuntimeError("\n".join([f"the run is {state}", *(log.read_text()[-2000:] for log in logs)]))
    return (events[-1].at - events[0].at).total_seconds(), events


@contextmanager
def _worker(site: Site, served: Api) -> Iterator[None]:
    credential = site.settings.runner_credential_file
    credential.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    credential.touch(mode=0o600)
    credential.write_text(site.runner_credential)
    told = {
        "PYSYTFF_API_URL": served.url,
        "PYSYTFF_RUNNER_CREDENTIAL_FILE": str(credential),
        "PYSYTFF_DATA_ROOT": str(site.settings.data_root),
        "PYSYTFF_SCRATCH_DIR": str(site.settings.scratch_dir),
    }
    with (site.settings.data_dir / "runner.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "runner"], cwd=ROOT, env=dict(os.environ) | told, stdout=log, stderr=log
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


class _Script:
    """A running ``benchmarks.plain``."""

    def __init__(self, process: subprocess.Popen[str], start_s: float) -> None:
        self._process = process
        self.start_s = start_s  # until its first rounds were done, which build what the others reuse

    def rounds(self, count: int) -> list[float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        while line := self._process.stdout.readline():
            if line.startswith("["):
                return [float(seconds) for seconds in json.loads(line)]
        raise RuntimeError("the plain script ended")


@contextmanager
def _script(kind: str, version: Path) -> Iterator[_Script]:
    began = time.monotonic()
    with (version.parent / f"{kind}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.plain", kind, str(version), "0"],
            cwd=ROOT,
            env=dict(os.environ) | {"TF_CPP_MIN_LOG_LEVEL": "3"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        try:
            script = _Script(process, 0.0)
            try:
                script.rounds(_WARM_UP)
            except RuntimeError as error:
                raise RuntimeError((version.parent / f"{kind}.log").read_text()[-2000:]) from error
            script.start_s = time.monotonic() - began
            yield script
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # tff leaves its executor behind otherwise
            process.wait()


def _debits(site: Site, served: Api) -> list[float]:
    """Milliseconds of each debit of a run that nobody trains."""
    Submitter(site, served.port)(rounds=5 * _DEBITS, **workload.request())
    runner = Kept(served.port, site.runner_credential)
    _, body = runner.call("POST", "/v1/runner/claim", b"{}")
    grant = json.loads(body)
    first_rounds = iter(range(0, 5 * _DEBITS, 5))

    def debit() -> None:
        asked = {"fencing_token": grant["fencing_token"], "first_round": next(first_rounds), "rounds": 5}
        path = f"/v1/runner/grants/{grant['grant_id']}/debit"
        status, answer = runner.call("POST", path, json.dumps(asked).encode())
        if status != 200 or not json.loads(answer)["permitted"]:
            raise RuntimeError(f"not debited: {status} {answer!r}")

    return [milliseconds(debit) for _ in range(_DEBITS)][_DEBITS // 10 :]
