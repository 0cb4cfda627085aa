"""No kind of work takes another's threads. What hangs here hangs for as long as the test wants."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from api.lanes import READERS
from api.limits import Limits
from governance.errors import NotFoundError
from governance.settlement import Settlement

from .conftest import MODEL, MakeNode, Node, everybody

MANY = 50  # more than all threads of the service together, and than AnyIO's default
ASSET = "ast_000000000000000000000000"
REQUEST = {
    "rounds": 10,
    "clients_per_round": 30,
    "noise_multiplier": 1.5,
    "train_data_id": ASSET,
    "label_data_id": ASSET,
    "model": MODEL,
}


@contextlib.contextmanager
def hanging(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> Iterator[Callable[[], int]]:
    """Every call of the method waits until the block ends, then says that nothing is there. Yields how many wait."""
    release, calls = threading.Event(), threading.Semaphore(0)
    waiting = [0]

    def hang(*_: object, **__: object) -> None:
        waiting[0] += 1
        calls.release()
        release.wait(120)
        raise NotFoundError("nothing is there")

    monkeypatch.setattr(type(owner), name, hang)
    try:
        yield lambda: waiting[0]
    finally:
        release.set()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextlib.contextmanager
def crowd() -> Iterator[Callable[..., Future[Any]]]:
    """Calls that nobody waits for. Leave what makes them hang first."""
    with ThreadPoolExecutor(MANY + 10) as pool:
        yield pool.submit


@pytest.fixture
def busy(make_node: MakeNode, sqlite_url: str) -> Node:
    """A node on which one researcher may have any number of decisions in flight."""
    node = make_node(sqlite_url, limits=Limits(decisions_per_principal=1000, decision_threads=2))
    everybody(node)
    return node


def preview(node: Node, who: str = "researcher") -> Any:
    return node.call(who, "POST", "/v1/train-requests:preview", json=REQUEST)


def still_served(node: Node, start: Callable[..., Future[Any]], *calls: tuple[str, str, str]) -> list[int]:
    return [start(node.call, *call).result(timeout=60).status_code for call in calls]


CLAIM = ("runner", "POST", "/v1/runner/claim")
READ = ("owner", "GET", "/v1/projects")
ME = ("researcher", "GET", "/v1/auth/me")


def test_decisions_that_hang_leave_runners_readers_and_credentials_alone(
    busy: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    with crowd() as start, hanging(monkeypatch, busy.services.admission, "preview") as deciding:
        for _ in range(MANY):
            start(preview, busy)
        until(lambda: deciding() + busy.app.state.lanes.decisions.waiting == MANY)
        assert ([204, 200, 200], 2) == (still_served(busy, start, CLAIM, READ, ME), deciding())


def test_readers_that_hang_leave_runners_and_ended_leases_alone(
    make_node: MakeNode, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps: list[int] = []
    monkeypatch.setattr(Settlement, "expire_leases", lambda _: sweeps.append(1))
    busy = make_node(sqlite_url, lease_sweep_s=0.01)
    everybody(busy)
    with crowd() as start, hanging(monkeypatch, busy.services.registry, "projects") as reading:
        for _ in range(MANY):
            start(busy.call, *READ)
        until(lambda: reading() == READERS)
        assert [204, 200] == still_served(busy, start, CLAIM, ME)
        before = len(sweeps)
        until(lambda: len(sweeps) > before + 2)


def test_logins_that_hang_leave_everybody_else_alone(busy: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    form = {"grant_type": "password", "username": "a@example.org", "password": "a"}
    with crowd() as start, hanging(monkeypatch, busy.services.identity, "login") as logging_in:
        for _ in range(MANY):
            start(busy.client.post, "/v1/auth/token", data=form)
        until(lambda: logging_in() + busy.app.state.lanes.logins.waiting == MANY)
        assert [204, 200, 200] == still_served(busy, start, CLAIM, READ, ME)


def test_one_researcher_has_a_few_decisions_in_flight_and_another_is_served(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = Limits().decisions_per_principal
    with crowd() as start:
        with hanging(monkeypatch, node.services.admission, "preview") as deciding:
            mine = [start(preview, node) for _ in range(most)]
            until(lambda: deciding() == most)
            beyond = start(preview, node).result(timeout=60)
            start(preview, node, "other_researcher")
            until(lambda: deciding() == most + 1)
        assert (429, "too_many_decisions", "1") == (
            beyond.status_code,
            beyond.json()["code"],
            beyond.headers["Retry-After"],
        )
        assert [404] * most == [one.result(timeout=60).status_code for one in mine]
        assert 429 != preview(node).status_code


def test_nobody_can_have_all_threads_of_the_decisions() -> None:
    limits = Limits()
    assert limits.decisions_per_principal * 4 <= limits.decision_threads


def test_too_many_decisions_a_minute_are_429(make_node: MakeNode, sqlite_url: str) -> None:
    node = make_node(sqlite_url, limits=Limits(submissions="2/minute"))
    everybody(node)
    assert [404, 404, 429] == [preview(node).status_code for _ in range(3)]
    assert [200, 404] == [node.call(*ME).status_code, preview(node, "other_researcher").status_code]
