"""The HTTP governor against a real server on loopback that keeps the wire contract."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from runner.errors import GovernorRefusedError, GovernorUnreachableError, GrantRevokedError, LedgerClosedError
from runner.http import HttpGovernor
from runner.port import DebitAnswer, GrantReport, Heartbeat, RunResult
from tests.integration.runner.made_data import grant

RESULT = RunResult(b"\x00weights\xff", 4, {"holdout_loss": 0.5}, "chacha20", "pysytff-server 0.1.0")
REPORT = GrantReport("gra_1", "run_1", 7, ("ver_1", "ver_2"), 0.5, 1.0, rounds_permitted=2, ended=True)
Call = Callable[[HttpGovernor], object]
CALLS: list[Call] = [
    lambda governor: governor.claim(),
    lambda governor: governor.heartbeat("gra_1", 7),
    lambda governor: governor.debit("gra_1", 7, 0, 2),
    lambda governor: governor.progress("gra_1", 7, 2),
    lambda governor: governor.publish("gra_1", 7, RESULT),
    lambda governor: governor.fail("gra_1", 7, touched_data=True),
    lambda governor: governor.report([REPORT]),
]


class Service:
    def __init__(self) -> None:
        self.status, self.body, self.headers = 200, b"{}", {"Content-Type": "application/json"}
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                service.requests.append((self.command, self.path, dict(self.headers), content))
                self.send_response(service.status)
                for name, value in (service.headers | {"Content-Length": str(len(service.body))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(service.body)

            do_POST = do_PUT = do_GET = answer

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answers(self, status: int, body: object = None, **headers: str) -> None:
        self.status = status
        self.body = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        self.headers = headers


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def governor(service: Service) -> Iterator[HttpGovernor]:
    with HttpGovernor(service.url, "pysr_secret") as made:
        yield made


def test_a_claim_returns_the_grant_as_it_was_given(service: Service, governor: HttpGovernor) -> None:
    service.answers(200, grant().to_json())
    assert grant() == governor.claim()
    method, path, headers, _ = service.requests[0]
    assert ("POST", "/v1/runner/claim") == (method, path)
    assert "Bearer pysr_secret" == headers["Authorization"]


def test_no_content_means_no_work(service: Service, governor: HttpGovernor) -> None:
    service.answers(204)
    assert governor.claim() is None


def test_calls_carry_the_fencing_token_and_read_the_answer(service: Service, governor: HttpGovernor) -> None:
    service.answers(200, {"stop": True, "lease_seconds": 60})
    assert Heartbeat(True, 60) == governor.heartbeat("gra_1", 7)
    service.answers(200, {"permitted": True, "debited_rounds": 2})
    assert DebitAnswer(True, 2) == governor.debit("gra_1", 7, 0, 2)
    service.answers(204)
    governor.progress("gra_1", 7, 2)
    governor.fail("gra_1", 7, touched_data=False)
    assert [
        ("/v1/runner/grants/gra_1/heartbeat", {"fencing_token": 7}),
        ("/v1/runner/grants/gra_1/debit", {"fencing_token": 7, "first_round": 0, "rounds": 2}),
        ("/v1/runner/grants/gra_1/progress", {"fencing_token": 7, "rounds_done": 2}),
        ("/v1/runner/grants/gra_1/fail", {"fencing_token": 7, "touched_data": False}),
    ] == [(path, json.loads(body)) for _, path, _, body in service.requests]


def test_a_result_travels_as_bytes_with_its_description_in_headers(service: Service, governor: HttpGovernor) -> None:
    service.answers(204)
    governor.publish("gra_1", 7, RESULT)
    method, path, headers, body = service.requests[0]
    assert ("PUT", "/v1/runner/grants/gra_1/result", RESULT.weights) == (method, path, body)
    assert "7" == headers["Fencing-Token"]
    about = {
        "rounds": 4,
        "public_metrics": {"holdout_loss": 0.5},
        "generator": "chacha20",
        "runner_version": "pysytff-server 0.1.0",
    }
    assert about == json.loads(headers["Result-Meta"])


def test_a_report_travels_whole(service: Service, governor: HttpGovernor) -> None:
    service.answers(204)
    governor.report([REPORT, REPORT])
    method, path, _, body = service.requests[0]
    assert ("POST", "/v1/runner/reports", [REPORT.to_json()] * 2) == (method, path, json.loads(body))


@pytest.mark.parametrize("call", CALLS)
def test_a_closed_ledger_is_told_from_a_service_in_trouble(
    service: Service, governor: HttpGovernor, call: Call
) -> None:
    service.answers(503, {"code": "ledger_closed", "status": 503})
    with pytest.raises(LedgerClosedError):
        call(governor)
    service.answers(503, {"code": "unavailable", "status": 503})
    with pytest.raises(GovernorUnreachableError) as trouble:
        call(governor)
    assert not isinstance(trouble.value, LedgerClosedError)


@pytest.mark.parametrize("call", CALLS[1:])
def test_a_stale_token_is_a_revoked_grant(service: Service, governor: HttpGovernor, call: Call) -> None:
    service.answers(409, {"code": "grant_revoked", "status": 409})
    with pytest.raises(GrantRevokedError):
        call(governor)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_service_in_trouble_is_unreachable(service: Service, governor: HttpGovernor, call: Call, status: int) -> None:
    service.answers(status, b"<html>")
    with pytest.raises(GovernorUnreachableError):
        call(governor)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [401, 403, 404, 409, 422, 302])
def test_a_no_is_a_no(service: Service, governor: HttpGovernor, call: Call, status: int) -> None:
    service.answers(status, {"code": "not_authenticated"}, Location="http://127.0.0.1:9/")
    with pytest.raises(GovernorRefusedError) as refused:
        call(governor)
    assert (status, "not_authenticated") == (refused.value.status, refused.value.code)
    assert 1 == len(service.requests)  # redirects are not followed


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        {"permitted": "false", "debited_rounds": 2},
        {"permitted": 1, "debited_rounds": 2},
        {"permitted": True},
        {"permitted": True, "debited_rounds": 2, "more": 1},
    ],
)
def test_an_answer_that_is_not_understood_permits_nothing(
    service: Service, governor: HttpGovernor, body: object
) -> None:
    service.answers(200, body)
    with pytest.raises(GovernorUnreachableError):
        governor.debit("gra_1", 7, 0, 2)


@pytest.mark.parametrize("changes", [{"port_version": 2}, {"extra": 1}, {"parameters": {}}, {"data": None}])
def test_a_grant_of_another_port_version_or_shape_is_not_taken(
    service: Service, governor: HttpGovernor, changes: dict[str, Any]
) -> None:
    service.answers(200, grant().to_json() | changes)
    with pytest.raises(GovernorUnreachableError):
        governor.claim()


@pytest.mark.parametrize("call", CALLS)
def test_nobody_there_is_unreachable(service: Service, call: Call) -> None:
    service.server.server_close()
    with HttpGovernor("http://127.0.0.1:9", "pysr_secret") as governor, pytest.raises(GovernorUnreachableError):
        call(governor)


def test_errors_do_not_show_the_credential(service: Service, governor: HttpGovernor) -> None:
    service.answers(401, {"code": "not_authenticated"})
    with pytest.raises(GovernorRefusedError) as refused:
        governor.claim()
    assert "pysr_secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://example.org", "http://10.0.0.1:8081", "ftp://127.0.0.1", "127.0.0.1:8081", ""])
def test_the_credential_is_not_sent_in_clear_off_loopback(url: str) -> None:
    with pytest.raises(ValueError, match=r"https|not an HTTP"):
        HttpGovernor(url, "pysr_secret")


@pytest.mark.parametrize("url", ["https://example.org", "http://localhost:1", "http://[::1]:1", "http://127.0.0.2"])
def test_https_and_loopback_are_fine(url: str) -> None:
    HttpGovernor(url, "pysr_secret").close()
    HttpGovernor("http://api:8081", "pysr_secret", allow_plain_http=True).close()
