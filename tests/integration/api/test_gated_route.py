"""Who asks is known and counted before anything of a body is parsed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from api import strict_json
from api.access import ACCESS
from api.limits import Limits

from .conftest import MakeNode, Node, everybody

TWICE = b'{"name": "a", "name": "b"}'
JSON = {"Content-Type": "application/json"}
PARSED = [route for route, roles in ACCESS.items() if route[0] in ("POST", "PUT") and roles is not None]


def sent(node: Node, who: str | None, content: bytes = TWICE, path: str = "/v1/projects") -> Any:
    return node.call(who, "POST", path, content=content, headers=JSON)


@pytest.fixture
def strict(make_node: MakeNode, sqlite_url: str) -> Node:
    made = make_node(sqlite_url, limits=Limits(anonymous="3/minute", principal="3/minute"))
    everybody(made)
    return made


@pytest.mark.parametrize("content", [TWICE, b"{", b"[" * 1000, b'{"name": NaN}', b"\xff", b""])
def test_nothing_of_a_strangers_body_is_judged(node: Node, content: bytes) -> None:
    node.tokens["stranger"] = "x.y.z"
    for who in (None, "stranger"):
        answer = sent(node, who, content)
        assert (401, "unauthenticated") == (answer.status_code, answer.json()["code"])


@pytest.mark.parametrize(("method", "path"), PARSED)
def test_nothing_of_a_strangers_body_is_parsed(
    node: Node, monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    parsed: list[bytes] = []
    monkeypatch.setattr(strict_json, "loads", parsed.append)
    assert (401, []) == (node.call(None, method, path, content=TWICE, headers=JSON).status_code, parsed)


def test_nothing_of_a_body_is_judged_where_the_role_has_no_right(node: Node) -> None:
    assert 403 == sent(node, "auditor").status_code


def test_a_stranger_who_keeps_sending_bodies_gets_429(strict: Node) -> None:
    assert [401, 401, 401, 429] == [sent(strict, None).status_code for _ in range(4)]
    assert 201 == sent(strict, "researcher", b'{"name": "a"}').status_code


def test_unfit_bodies_count_against_the_principal(strict: Node) -> None:
    assert [422, 422, 422, 429] == [sent(strict, "researcher").status_code for _ in range(4)]
    assert 422 == sent(strict, "owner").status_code


def test_what_a_role_may_not_do_counts_too(strict: Node) -> None:
    assert [403, 403, 403, 429] == [sent(strict, "auditor").status_code for _ in range(4)]


def test_unfit_bodies_of_public_routes_count_against_the_address(strict: Node) -> None:
    assert [422, 422, 422, 429] == [sent(strict, None, path="/v1/users/accept").status_code for _ in range(4)]


@pytest.mark.parametrize(
    ("path", "media_type"),
    [("/v1/users/accept", "application/json"), ("/v1/auth/token", "application/x-www-form-urlencoded")],
)
def test_a_large_body_of_somebody_unknown_is_413(node: Node, path: str, media_type: str) -> None:
    answer = node.client.post(path, content=b"a=1&" * 5000, headers={"Content-Type": media_type})
    assert (413, "body_too_large") == (answer.status_code, answer.json()["code"])


def test_a_large_body_is_parsed_apart_from_the_event_loop(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_loop: list[bool] = []
    loads = strict_json.loads

    def watched(body: bytes) -> Any:
        try:
            asyncio.get_running_loop()
            on_the_loop.append(True)
        except RuntimeError:
            on_the_loop.append(False)
        return loads(body)

    monkeypatch.setattr(strict_json, "loads", watched)
    assert 201 == sent(node, "researcher", b'{"name": "small"}').status_code
    assert 422 == sent(node, "researcher", json.dumps({"name": "a" * 500_000}).encode()).status_code
    assert [True, False] == on_the_loop


def test_a_few_large_bodies_of_one_principal_are_parsed_at_a_time(node: Node) -> None:
    parsing = node.app.state.lanes.parsing
    large = json.dumps({"name": "a" * 20_000}).encode()
    with parsing.one_of(node.ids["researcher"]), parsing.one_of(node.ids["researcher"]):
        answer = sent(node, "researcher", large)
        assert (429, "too_many_large_bodies", 422) == (
            answer.status_code,
            answer.json()["code"],
            sent(node, "owner", large).status_code,
        )
    assert 422 == sent(node, "researcher", large).status_code


def test_a_route_that_is_not_behind_the_gate_does_not_answer(node: Node) -> None:
    node.app.add_api_route("/v1/new", lambda: {"secret": 1})
    answer = node.call("admin", "GET", "/v1/new")
    assert (500, "internal_error") == (answer.status_code, answer.json()["code"])


def test_an_integer_that_canonical_json_cannot_hold_is_422(node: Node) -> None:
    for value in (2**53, -(2**53)):
        answer = sent(node, "researcher", json.dumps({"model": {"x": value}}).encode(), "/v1/train-requests:preview")
        assert (422, "the body holds an integer that is too large") == (answer.status_code, answer.json()["detail"])
