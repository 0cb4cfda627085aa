"""Addresses, tokens, retries and problems, over real HTTP."""

from __future__ import annotations

import socket
import stat
import threading
import time
from typing import Any

import pytest

import pysytff as sy
from pysytff import errors
from pysytff.tokens import FileTokens, Tokens
from pysytff.transport import Transport, base_url


def login(node: Any, **changes: Any) -> sy.Domain:
    return sy.login(**({"email": "sam@stargate.net", "password": "changethis", "port": node.port} | changes))


@pytest.mark.parametrize(
    ("url", "host", "port", "expected"),
    [
        (None, "127.0.0.1", 8081, "http://127.0.0.1:8081"),
        (None, "localhost", 9, "http://localhost:9"),
        (None, "127.9.9.9", 9, "http://127.9.9.9:9"),
        (None, "::1", 9, "http://[::1]:9"),
        (None, "node.example", 8081, "https://node.example:8081"),
        (None, "10.0.0.1", 8081, "https://10.0.0.1:8081"),
        ("https://node.example/", "", 1, "https://node.example"),
        ("http://localhost:8081/base/", "", 1, "http://localhost:8081/base"),
    ],
)
def test_an_address_is_plain_http_on_this_machine_only(url: str | None, host: str, port: int, expected: str) -> None:
    assert expected == base_url(url, host, port)


@pytest.mark.parametrize(
    "url",
    [
        "http://node.example",
        "http://10.0.0.1:8081",
        "http://0.0.0.0:8081",
        "http://localhost.example",
        "http://127.0.0.1.nip.io",
        "http://[2001:db8::1]",
        "HTTP://node.example",
    ],
)
def test_plain_http_to_another_machine_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(errors.InsecureTransportError, match=r"plain HTTP to another machine.*https://"):
        sy.login(email="sam@stargate.net", password="changethis", url=url)


@pytest.mark.parametrize(
    "url",
    [
        "node.example",
        "ftp://node.example",
        "https://",
        "https://sam:pw@node.example",
        "https://a/?b=1",
        "https://node.example:99999",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        sy.login(email="sam@stargate.net", password="changethis", url=url)


def test_logging_in_gives_a_domain(node: Any) -> None:
    domain = login(node)

    assert ("researcher", "sam@stargate.net") == (domain.me.role, domain.me.email)
    (headers, body) = node.sent("POST", "/v1/auth/token")[0]
    assert {"grant_type": ["password"], "username": ["sam@stargate.net"], "password": ["changethis"]} == body
    assert headers["User-Agent"].startswith("pysytff/")


def test_a_wrong_password_is_explained(node: Any) -> None:
    with pytest.raises(errors.AuthenticationError) as failure:
        login(node, password="wrong")

    assert "e-mail or password is wrong" in str(failure.value)
    assert ("unauthenticated", 401, "req_7") == (failure.value.code, failure.value.status, failure.value.request_id)
    assert "wrong" in str(failure.value)
    assert "changethis" not in str(failure.value)


def test_the_password_may_come_from_the_environment(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSYTFF_PASSWORD", "changethis")

    assert "researcher" == login(node, password=None).me.role


def test_a_proxy_of_the_environment_sees_no_loopback_traffic(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    assert "researcher" == login(node).me.role


def test_an_access_token_that_has_ended_is_refreshed(node: Any) -> None:
    node.access_lifetime_s = 0
    domain = login(node)

    assert "researcher" == domain.me.role
    assert "researcher" == domain.me.role

    grants = [body["grant_type"] for _, body in node.sent("POST", "/v1/auth/token")]
    assert [["password"], ["refresh_token"], ["refresh_token"]] == grants


def test_an_access_token_that_the_node_rejects_is_refreshed_once(node: Any) -> None:
    domain = login(node)
    node.access.clear()

    assert "researcher" == domain.me.role
    assert [401, 200] == [401 if "access-1" in h["Authorization"] else 200 for h, _ in node.sent("GET", "/v1/auth/me")]


def test_threads_that_find_the_token_ended_refresh_it_once(node: Any) -> None:
    domain = login(node)
    node.access.clear()
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            assert domain.me.role
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == failures
    assert 2 == len(node.sent("POST", "/v1/auth/token"))


def test_a_session_that_cannot_be_refreshed_says_to_log_in_again(node: Any) -> None:
    domain = login(node)
    node.access.clear()
    node.refresh.clear()

    with pytest.raises(errors.NotLoggedInError, match="log in again"):
        _ = domain.me


def test_after_logging_out_nothing_is_sent(node: Any) -> None:
    domain = login(node)
    domain.logout()
    before = len(node.requests)

    with pytest.raises(errors.NotLoggedInError):
        _ = domain.me

    assert before == len(node.requests)


def test_tokens_are_in_no_repr(node: Any) -> None:
    domain = login(node)

    assert "access" not in repr(Tokens("access-1", "refresh-1", 0.0)).replace("expires_at", "")
    assert "access" not in repr(domain)


def test_reads_are_repeated_when_the_connection_breaks(node: Any) -> None:
    domain = login(node)
    node.drop_after_work = 2

    assert "researcher" == domain.me.role
    assert 3 == len(node.sent("GET", "/v1/auth/me"))


def test_a_node_that_stays_away_is_an_error_that_names_the_address(node: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        with pytest.raises(errors.UnreachableError, match=f"127.0.0.1:{port}.*node is running"):
            login(node, port=port)


def test_a_gateway_without_an_explanation_is_asked_again(node: Any) -> None:
    domain = login(node)
    node.bare_gateway_errors = 2

    assert "researcher" == domain.me.role


def test_a_gateway_that_stays_broken_is_an_error(node: Any) -> None:
    domain = login(node)
    node.bare_gateway_errors = 100

    with pytest.raises(errors.UnavailableError, match="status 502"):
        _ = domain.me


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("forbidden", 403, errors.ForbiddenError),
        ("not_found", 404, errors.NotFoundError),
        ("invalid_request", 422, errors.InvalidRequestError),
        ("invalid_model", 422, errors.InvalidModelError),
        ("conflict", 409, errors.ConflictError),
        ("idempotency_key_reused", 422, errors.IdempotencyError),
        ("throttled", 429, errors.ThrottledError),
        ("policy_engine_timeout", 503, errors.UnavailableError),
        ("policy_revision_mismatch", 503, errors.UnavailableError),
        ("contention", 503, errors.UnavailableError),
        ("storage_unavailable", 507, errors.UnavailableError),
        ("a_code_of_next_year", 422, errors.InvalidRequestError),
        ("a_code_of_next_year", 500, errors.UnavailableError),
        ("a_code_of_next_year", 418, errors.ProblemError),
    ],
)
def test_each_problem_has_its_error(code: str, status: int, expected: type[Exception]) -> None:
    problem = {"code": code, "detail": "what was wrong", "request_id": "req_1", "retry_after_s": 3}
    error = errors.problem_error(problem, status)

    assert expected is type(error)
    assert "what was wrong" in str(error)
    assert f"[{code}, request req_1]" in str(error)


def test_a_problem_lists_each_field_with_its_hint() -> None:
    fields = [{"path": "rounds", "message": "is 0", "hint": "1 to 10000000"}]
    error = errors.problem_error({"code": "invalid_request", "detail": "two fields", "errors": fields}, 422)

    assert "rounds: is 0 (1 to 10000000)" in str(error)
    assert tuple(fields) == error.errors


def test_the_session_file_is_for_its_owner_only(session_file: Any) -> None:
    keeper = FileTokens()

    keeper.start("http://127.0.0.1:1", "sam@stargate.net", Tokens("a", "r", 5.0))

    assert session_file == keeper.path
    assert 0o600 == stat.S_IMODE(session_file.stat().st_mode)
    assert 0o700 == stat.S_IMODE(session_file.parent.stat().st_mode)
    assert Tokens("a", "r", 5.0) == FileTokens().read()
    assert [session_file] == [path for path in session_file.parent.iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", '{"url": 1}'])
def test_a_broken_session_file_says_to_log_in_again(session_file: Any, content: str) -> None:
    session_file.parent.mkdir()
    session_file.write_text(content)

    with pytest.raises(errors.NotLoggedInError, match="run `pysytff login`"):
        FileTokens().read()


def test_two_processes_that_share_a_session_file_refresh_it_once(node: Any, session_file: Any) -> None:
    first, second = Transport(node.url), Transport(node.url)
    FileTokens().start(node.url, "sam@stargate.net", first.log_in("sam@stargate.net", "changethis"))
    first.keeper, second.keeper = FileTokens(), FileTokens()
    node.access.clear()

    threads = [threading.Thread(target=one.get, args=("/v1/auth/me",)) for one in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert "Sam" == second.get("/v1/auth/me")["display_name"]
    assert 2 == len(node.sent("POST", "/v1/auth/token"))


def test_a_redirect_is_not_followed(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def redirect() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 307 T\r\nLocation: http://evil.example/\r\nContent-Length: 0\r\n\r\n")
        connection.close()

    thread = threading.Thread(target=redirect)
    thread.start()
    with listener, pytest.raises(errors.UnexpectedAnswerError, match=r"evil\.example"):
        login(node, port=listener.getsockname()[1])
    thread.join()


def test_an_address_of_something_else_is_explained(node: Any) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def hello() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello")
        connection.close()

    thread = threading.Thread(target=hello)
    thread.start()
    with listener, pytest.raises(errors.UnexpectedAnswerError, match="is it a PySyTFF node"):
        login(node, port=listener.getsockname()[1])
    thread.join()


def test_a_token_counts_as_ended_a_little_before_it_does() -> None:
    now = time.time()

    assert Tokens("a", "r", now + 5).stale
    assert not Tokens("a", "r", now + 500).stale
