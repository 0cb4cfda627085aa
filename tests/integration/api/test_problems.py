"""Every error is a problem document, whatever layer it comes from."""

from __future__ import annotations

import json
import logging as std_logging
from typing import Any

import pytest

from api.limits import Limits
from governance.model import Role

from .conftest import MakeNode, Node

PROJECT = {"name": "Digits"}


def problem_of(answer: Any) -> tuple[int, str]:
    body = answer.json()
    assert "application/problem+json" == answer.headers["Content-Type"]
    assert (f"urn:pysytff:problem:{body['code']}", answer.status_code) == (body["type"], body["status"])
    assert body["request_id"] == answer.headers["X-Request-ID"]
    return answer.status_code, body["code"]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/nowhere", (404, "not_found")),
        ("GET", "/v1/projects/", (404, "not_found")),
        ("DELETE", "/v1/projects", (405, "method_not_allowed")),
        ("GET", "/v1/runs/..%2f..%2fetc", (404, "not_found")),
        ("GET", "/v1/ready", (503, "no_active_policies")),
    ],
)
def test_what_is_not_there_is_a_problem(node: Node, method: str, path: str, expected: tuple[int, str]) -> None:
    assert expected == problem_of(node.client.request(method, path))


@pytest.mark.parametrize("run_id", ["run_000000000000000000000000", "%00", "a" * 100, "%F0%9F%92%A9", "' OR 1=1 --"])
def test_an_id_that_cannot_be_one_is_404(node: Node, run_id: str) -> None:
    assert (404, "not_found") == problem_of(node.call("auditor", "GET", f"/v1/runs/{run_id}"))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "line 1, column 2"),
        (b'{"name": NaN}', "NaN"),
        (b'{"name": Infinity}', "Infinity"),
        (b'{"name": 1e999}', "overflows"),
        (b'{"name": 99999999999999999999999999}', "2^53"),
        (b'{"name": "a", "name": "b"}', "more than once"),
        (b'{"name": "\\u0000"}', "NUL"),
        (b'{"name": "\\ud800"}', "surrogate"),
        (b"[" * 100_000, "at most 20 levels"),
        (b'{"name": "\xff"}', "byte 10"),
        (b'{"name": "a\\u202eb"}', "reorder"),
        (b'{"name": "a\\u0007b"}', "control"),
        (b'{"name": 3}', "string"),
        (b'{"name": null}', "string"),
        (b'{"name": ""}', "at least 1"),
        (b'{"nmae": "a"}', "unknown field"),
        (b"[]", "dictionary"),
        (b"null", "dictionary"),
        (b"", "required"),
    ],
)
def test_an_unfit_body_is_422_and_says_where(node: Node, body: bytes, words: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = node.call("researcher", "POST", "/v1/projects", content=body, headers=headers)
    assert (422, "invalid_request") == problem_of(answer)
    assert words in json.dumps(answer.json()["errors"])


def test_a_misspelt_field_gets_a_suggestion(node: Node) -> None:
    answer = node.call("researcher", "POST", "/v1/projects", json={"nmae": "a"})
    assert {"path": "nmae", "message": "unknown field", "hint": "did you mean 'name'?"} in answer.json()["errors"]


def test_a_misspelt_query_parameter_is_refused(node: Node) -> None:
    answer = node.call("auditor", "GET", "/v1/ledger/entries?populationid=pop_1")
    assert {
        "path": "query.populationid",
        "message": "unknown field",
        "hint": "did you mean 'population_id'?",
    } in answer.json()["errors"]


def test_what_was_sent_is_not_echoed(node: Node) -> None:
    secret = "my very secret password"
    body = {"invitation_token": 7, "password": [secret]}
    assert secret not in node.client.post("/v1/users/accept", json=body).text


@pytest.mark.parametrize("media_type", ["text/plain", "application/xml", "application/x-www-form-urlencoded", ""])
def test_another_media_type_is_415(node: Node, media_type: str) -> None:
    answer = node.call(
        "researcher", "POST", "/v1/projects", content=json.dumps(PROJECT), headers={"Content-Type": media_type}
    )
    assert (415, "unsupported_media_type") == problem_of(answer)


def test_a_large_body_is_413_whether_declared_or_streamed(node: Node) -> None:
    large = b'{"name": "' + b"a" * 2_000_000 + b'"}'
    headers = {"Content-Type": "application/json"}

    def chunks() -> Any:
        yield large[:1_000_000]
        yield large[1_000_000:]

    declared = node.call("researcher", "POST", "/v1/projects", content=large, headers=headers)
    streamed = node.call("researcher", "POST", "/v1/projects", content=chunks(), headers=headers)
    assert [(413, "body_too_large")] * 2 == [problem_of(declared), problem_of(streamed)]


def test_a_large_result_is_413(make_node: MakeNode, sqlite_url: str) -> None:
    node = make_node(sqlite_url, limits=Limits(result_bytes=1000))
    node.join("runner", Role.RUNNER)
    meta = {"rounds": 1, "public_metrics": {}, "generator": "g", "runner_version": "v"}
    headers = {"Fencing-Token": "1", "Result-Meta": json.dumps(meta)}

    def chunks() -> Any:
        yield b"a" * 900
        yield b"a" * 900

    for content in (b"a" * 1001, chunks()):
        answer = node.call("runner", "PUT", "/v1/runner/grants/grt_1/result", content=content, headers=headers)
        assert (413, "body_too_large") == problem_of(answer)


def test_a_foreign_host_header_is_400(node: Node) -> None:
    answer = node.client.get("/v1/health", headers={"Host": "evil.example.org"})
    assert (400, "unknown_host") == problem_of(answer)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8081", "[::1]:8081", "LOCALHOST:1"])
def test_the_hosts_of_loopback_are_answered(node: Node, host: str) -> None:
    assert 200 == node.client.get("/v1/health", headers={"Host": host}).status_code


def test_an_unexpected_error_is_a_500_without_its_text(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr(type(node.services.registry), "projects", broken)
    with caplog.at_level(std_logging.DEBUG):
        answer = node.call("researcher", "GET", "/v1/projects")
    assert (500, "internal_error") == problem_of(answer)
    assert "swordfish" not in answer.text + node.log.getvalue() + caplog.text
    logged = [line for line in node.log_lines() if line["event"] == "unexpected_error"]
    assert ["RuntimeError"] == [line["error"] for line in logged]
    assert answer.json()["request_id"] == logged[0]["request_id"]


def test_a_database_that_is_gone_is_a_503(node: Node, tmp_path: Any) -> None:
    for file in tmp_path.glob("node.sqlite3*"):
        file.unlink()
    node.services.database.dispose()
    answer = node.call("researcher", "GET", "/v1/projects")
    assert (503, "storage_unavailable") == problem_of(answer)
    assert "Retry-After" in answer.headers


def test_every_answer_carries_the_security_headers(node: Node) -> None:
    for path in ("/v1/health", "/nowhere", "/docs"):
        headers = node.client.get(path).headers
        assert ("nosniff", "DENY", "no-store") == (
            headers["X-Content-Type-Options"],
            headers["X-Frame-Options"],
            headers["Cache-Control"],
        )


def test_other_origins_get_no_cors_headers(node: Node) -> None:
    answer = node.client.get("/v1/health", headers={"Origin": "https://evil.example.org"})
    assert [] == [name for name in answer.headers if name.startswith("access-control")]


def test_a_request_logs_one_line_without_personal_text(node: Node) -> None:
    node.client.post(
        "/v1/auth/token",
        data={"grant_type": "password", "username": "sam@stargate.net", "password": "swordfish"},
    )
    node.call("researcher", "POST", "/v1/projects", json={"name": "Secret name"})
    text = node.log.getvalue()
    assert [] == [word for word in ("sam@", "swordfish", "Secret", "Bearer", "eyJ", "192.0.2") if word in text]
    line = node.log_lines()[-1]
    assert ("request", "POST", "/v1/projects", 201, node.ids["researcher"]) == (
        line["event"],
        line["method"],
        line["route"],
        line["status"],
        line["principal"],
    )


def test_openapi_declares_the_problems_of_every_operation(node: Node) -> None:
    document = node.client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status in ("400", "429", "500", "503"):
                content = operation["responses"][status]["content"]
                assert {"application/problem+json"} == set(content), (method, path, status)
    assert "HTTPValidationError" not in json.dumps(document)


def test_openapi_asks_for_a_credential_exactly_where_one_is_needed(node: Node) -> None:
    from api.access import ACCESS

    document = node.client.get("/openapi.json").json()
    secured = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if operation.get("security")
    }
    assert {route for route, roles in ACCESS.items() if roles is not None} == secured
