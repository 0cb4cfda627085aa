"""Two submits with one key over REST: at once and later, with the same and with another body."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.conftest import QuietNode
from tests.e2e.nodes import DemoNode

TWINS = 4  # as many decisions as one person may have in flight


@pytest.fixture
def node(quiet: QuietNode) -> Iterator[DemoNode]:
    yield quiet.node
    for run in quiet.node.sam.read("/v1/runs", state="reserved")["items"]:
        assert 200 == quiet.node.sam.call("POST", f"/v1/runs/{run['id']}:cancel").status_code


@pytest.fixture
def key() -> str:
    return secrets.token_hex(8)


def at_once(node: DemoNode, bodies: list[dict[str, Any]], key: str) -> list[Any]:
    node.sam.token()  # logged in before the race
    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda body: node.sam.submit(body, key), bodies))


def test_twins_at_once_get_one_decision_and_one_run(node: DemoNode, key: str) -> None:
    before = node.entries()
    answers = at_once(node, [node.request()] * TWINS, key)
    after = node.entries()

    assert {201} == {answer.status_code for answer in answers}
    assert 1 == len({answer.text for answer in answers})
    assert 1 == len({answer.headers["Location"] for answer in answers})
    assert [*before, after[-1]] == after
    assert answers[0].json()["entry_index"] == after[-1]["index"]


def test_the_same_later_is_the_stored_answer_and_writes_nothing(node: DemoNode, key: str) -> None:
    first = node.sam.submit(node.request(), key)
    before = node.entries()
    node.sam.call("POST", f"/v1/runs/{first.json()['run_id']}:cancel")
    cancelled = node.entries()
    # The same meaning in other words: a default written out, an integer for a real number.
    second = node.sam.submit(node.request(clipping_norm=1, batch_size=8, on_exceed="clamp"), key)

    assert (201, first.json()) == (second.status_code, second.json())
    assert len(before) + 1 == len(cancelled)
    assert cancelled == node.entries()


def test_a_refusal_is_stored_too(node: DemoNode, key: str) -> None:
    first = node.sam.submit(node.request(purpose="marketing"), key)
    before = node.entries()
    second = node.sam.submit(node.request(purpose="marketing"), key)

    assert [403, 403] == [first.status_code, second.status_code]
    assert first.json()["decision"] == second.json()["decision"]
    assert before == node.entries()


def test_another_body_later_is_refused_by_name_and_writes_nothing(node: DemoNode, key: str) -> None:
    node.sam.submit(node.request(), key)
    before = node.entries()
    answer = node.sam.submit(node.request(rounds=11), key)

    assert (422, "idempotency_key_reused", "application/problem+json") == (
        answer.status_code,
        answer.json()["code"],
        answer.headers["Content-Type"],
    )
    assert before == node.entries()


def test_of_different_bodies_at_once_one_wins_and_the_others_are_told(node: DemoNode, key: str) -> None:
    before = node.entries()
    answers = at_once(node, [node.request(rounds=10 + number) for number in range(TWINS)], key)

    assert [201] + [422] * (TWINS - 1) == sorted(answer.status_code for answer in answers)
    assert {"idempotency_key_reused"} == {a.json()["code"] for a in answers if a.status_code == 422}
    assert len(before) + 1 == len(node.entries())


def test_another_persons_same_key_is_another_request(quiet: QuietNode, node: DemoNode, key: str) -> None:
    ours = node.sam.submit(node.request(), key).json()["run_id"]
    theirs = quiet.eve.submit(node.request(), key).json()["run_id"]
    quiet.eve.call("POST", f"/v1/runs/{theirs}:cancel")

    assert ours != theirs
