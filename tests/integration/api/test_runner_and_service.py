"""A real worker and the real service, over HTTP: what is lost on the way never runs twice, and what was permitted is
known after a restore. The jobs are scripts that leave a file for every batch of rounds they were allowed to run.
"""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from api import logging
from api.app import create_app
from api.routes.runner import REPORT_BYTES
from governance.ledger import entries, run_store
from runner.http import HttpGovernor
from runner.journal import read_reports
from runner.port import GrantReport
from runner.worker import Worker, WorkerSettings

from .conftest import DATASET, Node, Opa, everybody, govern, services_over, submit

Governed = tuple[Node, dict[str, str]]
JOB = """
import pathlib, sys
from runner.pipe import Pipe
ends = dict(argument.lstrip("-").split("=") for argument in sys.argv[1:])
pipe = Pipe(int(ends["read-fd"]), int(ends["write-fd"]))
pipe.send("ready", private_network=True)
grant = pipe.receive()["grant"]
batch, rounds = grant["rounds_per_debit"], grant["parameters"]["rounds"]
for first in range(0, rounds, batch):
    asked = min(batch, rounds - first)
    pipe.send("debit", first_round=first, rounds=asked)
    if not pipe.receive()["permitted"]:
        break
    for done in range(first, first + asked):
        pathlib.Path(DIRECTORY, f"{grant['run_id']}.{done}").touch()
        pipe.send("progress", rounds_done=done + 1)
pipe.send("failed")
"""


class Losing(httpx.BaseTransport):
    """The service does what it is asked, and of the first debit nobody hears the answer."""

    def __init__(self, lose: bool) -> None:
        self._through = httpx.HTTPTransport()
        self.lose = lose

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._through.handle_request(request)
        if self.lose and request.url.path.endswith("/debit"):
            self.lose = False
            assert 200 == response.status_code
            response.read()
            raise httpx.ReadTimeout("the answer is lost", request=request)
        return response

    def close(self) -> None:
        self._through.close()


@pytest.fixture
def live(sqlite_url: str, opa: Opa, tmp_path: Path) -> Iterator[Governed]:
    """A node behind a real server."""
    services = services_over(sqlite_url, tmp_path, opa.engine())
    app = create_app(services)
    log = io.StringIO()
    logging.configure(log)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        with httpx.Client(base_url=address, timeout=20) as client:
            node = Node(app, services, client, log)
            everybody(node)
            yield node, govern(node, opa)
    finally:
        server.should_exit = True
        thread.join()


class Runner:
    """One runner's host: its directories outlive its workers."""

    def __init__(self, node: Node, folder: Path) -> None:
        self._node = node
        self._ran = folder / "ran"
        (folder / "scratch").mkdir()
        self._ran.mkdir()
        self.settings = WorkerSettings(folder / "data", folder / "scratch", poll_seconds=0.05, closed_poll_seconds=0.05)

    def work(self, until: Callable[[], bool], *, lose: bool = False) -> None:
        with HttpGovernor(str(self._node.client.base_url), self._node.tokens["runner"]) as governor:
            governor._client._transport = Losing(lose)
            job = (sys.executable, "-c", JOB.replace("DIRECTORY", repr(str(self._ran))))
            with Worker(governor, self.settings, job=job) as worker:
                watch = threading.Thread(target=self._stop_when, args=(worker, until))
                watch.start()
                worker.run()  # a job dies with the thread that started it, so it is this one
                watch.join()

    def ran(self, run_id: str) -> list[int]:
        return sorted(int(path.suffix[1:]) for path in self._ran.glob(f"{run_id}.*"))

    @staticmethod
    def _stop_when(worker: Worker, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not until():
            time.sleep(0.02)
        worker.stop()


@pytest.fixture
def runner(live: Governed, tmp_path: Path) -> Runner:
    return Runner(live[0], tmp_path)


def state(node: Node, run_id: str) -> str:
    found: str = node.call("researcher", "GET", f"/v1/runs/{run_id}").json()["state"]
    return found


def stored(node: Node) -> list[list[dict[str, Any]]]:
    with node.services.database.read() as connection:
        return [json.loads(text) for text, _ in run_store.reports(connection).values()]


def close_ledger(node: Node) -> None:
    with node.services.database.write() as connection:
        assert entries.close(connection, "restored")


def test_rounds_whose_permission_was_lost_on_the_way_never_run_and_the_run_is_quarantined(
    live: Governed, runner: Runner
) -> None:
    node, ids = live
    run_id: str = submit(node, ids, "k").json()["run_id"]
    runner.work(lambda: state(node, run_id) == "quarantined", lose=True)

    shown = node.call("researcher", "GET", f"/v1/runs/{run_id}").json()
    assert ("quarantined", 0) == (shown["state"], shown["rounds_done"])
    assert shown["rounds_debited"] > 0  # it counts for ever, though nobody ran it
    assert [] == runner.ran(run_id)
    assert [0] == [one.rounds_permitted for one in read_reports(runner.settings.journal_directory)]


def test_every_round_that_ran_is_debited_and_in_the_journal(live: Governed, runner: Runner) -> None:
    node, ids = live
    run_id: str = submit(node, ids, "k").json()["run_id"]
    runner.work(lambda: state(node, run_id) == "quarantined")

    debited = node.call("researcher", "GET", f"/v1/runs/{run_id}").json()["rounds_debited"]
    (report,) = read_reports(runner.settings.journal_directory)
    assert list(range(10)) == runner.ran(run_id)
    assert (10, 10, run_id, True) == (debited, report.rounds_permitted, report.run_id, report.ended)
    assert (DATASET["version_handle"],) == report.version_handles


def test_a_runner_that_finds_the_ledger_closed_reports_everything_and_runs_nothing(
    live: Governed, runner: Runner
) -> None:
    node, ids = live
    first: str = submit(node, ids, "one").json()["run_id"]
    runner.work(lambda: state(node, first) == "quarantined")
    waiting: str = submit(node, ids, "two").json()["run_id"]
    close_ledger(node)
    runner.work(lambda: [] != stored(node))

    expected = [one.to_json() for one in read_reports(runner.settings.journal_directory)]
    assert [(first, 10)] == [(one["run_id"], one["rounds_permitted"]) for one in expected]
    assert [expected] == stored(node)
    assert ([], "reserved") == (runner.ran(waiting), state(node, waiting))


# --- the route alone ---

REPORT = GrantReport("grt_1", "run_1", 7, ("ver_" + "0" * 24,), 0.5, 1.0, rounds_permitted=2, ended=True).to_json()
ROUTE = ("runner", "POST", "/v1/runner/reports")


def test_a_report_replaces_the_one_before_it(governed_sqlite: Governed) -> None:
    node, _ = governed_sqlite
    for report in ([REPORT], [REPORT | {"rounds_permitted": 4}, REPORT | {"grant_id": "grt_2"}], []):
        assert 204 == node.call(*ROUTE, json=report).status_code
        assert [report] == stored(node)


def test_thousands_of_grants_fit_into_one_report(governed_sqlite: Governed) -> None:
    node, _ = governed_sqlite
    report = [REPORT | {"grant_id": f"grt_{number}"} for number in range(5000)]
    assert 204 == node.call(*ROUTE, json=report).status_code
    assert 5000 == len(stored(node)[0])


@pytest.mark.parametrize(
    "body",
    [
        {},
        [7],
        [{}],
        [REPORT | {"more": 1}],
        [REPORT | {"rounds_permitted": -1}],
        [REPORT | {"rounds_permitted": "2"}],
        [REPORT | {"ended": 1}],
        [REPORT | {"version_handles": []}],
        [REPORT | {"version_handles": ["../../etc"]}],
        [REPORT | {"sampling_probability": 0}],
        [REPORT | {"noise_multiplier": 0}],
    ],
)
def test_a_report_that_is_unfit_is_refused_whole_and_the_one_before_stays(
    governed_sqlite: Governed, body: object
) -> None:
    node, _ = governed_sqlite
    assert 204 == node.call(*ROUTE, json=[REPORT]).status_code
    answer = node.call(*ROUTE, json=body)
    assert (422, "invalid_request") == (answer.status_code, answer.json()["code"])
    assert answer.json()["errors"][0]["message"]
    assert [[REPORT]] == stored(node)


def test_a_report_that_is_not_json_or_too_large_is_refused(governed_sqlite: Governed) -> None:
    node, _ = governed_sqlite
    assert 422 == node.call(*ROUTE, content=b'[{"grant_id": NaN').status_code
    answer = node.call(*ROUTE, content=b" " * (REPORT_BYTES + 1))
    assert (413, "body_too_large") == (answer.status_code, answer.json()["code"])
    assert [] == stored(node)
