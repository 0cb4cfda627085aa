"""``Governor`` over HTTP: how a runner's host, which has no database credential, talks to the service.

Invariants
- The credential goes into one header and nowhere else: not into a log, an error or a URL.
- Plain HTTP is used on loopback only, unless the operator says that the network between is theirs alone.
- An answer that cannot be relied on (no answer, 5xx, 429, not JSON, not the promised shape) is
  ``GovernorUnreachableError``: whether the service acted is then unknown, and the caller decides conservatively.
- Redirects are not followed, so that the credential stays with the host it was meant for.

This module does not: retry, or decide what a failure means for a run.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit

import httpx

from runner.errors import GovernorRefusedError, GovernorUnreachableError, GrantRevokedError, LedgerClosedError
from runner.port import DebitAnswer, Grant, GrantReport, Heartbeat, RunResult

CALL_SECONDS: Final = 10.0
PUBLISH_SECONDS: Final = 120.0

T = TypeVar("T")


class HttpGovernor:
    """Raises ``GrantRevokedError``, ``GovernorRefusedError`` or ``GovernorUnreachableError``, and nothing of
    httpx.
    """

    def __init__(self, base_url: str, credential: str, *, allow_plain_http: bool = False) -> None:
        _check_url(base_url, allow_plain_http)
        self._client = httpx.Client(
            base_url=base_url.rstrip("/"),
            headers={"Authorization": f"Bearer {credential}", "User-Agent": "pysytff-runner"},
            timeout=CALL_SECONDS,
            trust_env=False,  # a proxy from the environment must not see the credential
        )

    def __enter__(self) -> HttpGovernor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def claim(self) -> Grant | None:
        response = self._request("claim", "POST", "/v1/runner/claim", grant_id="")
        if response.status_code == 204:
            return None
        return _read("claim", response, Grant.from_json)

    def heartbeat(self, grant_id: str, fencing_token: int) -> Heartbeat:
        response = self._on_grant("heartbeat", grant_id, fencing_token)
        return _read("heartbeat", response, lambda body: _dataclass(Heartbeat, body))

    def debit(self, grant_id: str, fencing_token: int, first_round: int, rounds: int) -> DebitAnswer:
        response = self._on_grant("debit", grant_id, fencing_token, first_round=first_round, rounds=rounds)
        return _read("debit", response, lambda body: _dataclass(DebitAnswer, body))

    def progress(self, grant_id: str, fencing_token: int, rounds_done: int) -> None:
        self._on_grant("progress", grant_id, fencing_token, rounds_done=rounds_done)

    def publish(self, grant_id: str, fencing_token: int, result: RunResult) -> None:
        about = {
            "rounds": result.rounds,
            "public_metrics": dict(result.public_metrics),
            "generator": result.generator,
            "runner_version": result.runner_version,
        }
        self._request(
            "publish",
            "PUT",
            f"/v1/runner/grants/{quote(grant_id, safe='')}/result",
            grant_id=grant_id,
            content=result.weights,
            headers={
                "Content-Type": "application/octet-stream",
                "Fencing-Token": str(fencing_token),
                "Result-Meta": json.dumps(about, ensure_ascii=True, allow_nan=False),
            },
            timeout=PUBLISH_SECONDS,
        )

    def fail(self, grant_id: str, fencing_token: int, *, touched_data: bool) -> None:
        self._on_grant("fail", grant_id, fencing_token, touched_data=touched_data)

    def report(self, reports: Sequence[GrantReport]) -> None:
        body = [one.to_json() for one in reports]
        self._request("report", "POST", "/v1/runner/reports", grant_id="", json=body, timeout=PUBLISH_SECONDS)

    def _on_grant(self, call: str, grant_id: str, fencing_token: int, **fields: Any) -> httpx.Response:
        path = f"/v1/runner/grants/{quote(grant_id, safe='')}/{call}"
        return self._request(call, "POST", path, grant_id=grant_id, json={"fencing_token": fencing_token, **fields})

    def _request(self, call: str, method: str, path: str, *, grant_id: str, **options: Any) -> httpx.Response:
        try:
            response = self._client.request(method, path, **options)
        except httpx.HTTPError as error:
            raise GovernorUnreachableError(call, type(error).__name__) from error
        status = response.status_code
        if 200 <= status < 300:
            return response
        code = _problem_code(response)
        if status == 409 and code == "grant_revoked":
            raise GrantRevokedError(grant_id)
        if status == 503 and code == "ledger_closed":
            raise LedgerClosedError(call, code)
        if status >= 500 or status == 429:
            raise GovernorUnreachableError(call, f"status {status}")
        raise GovernorRefusedError(call, status, code)


def _check_url(base_url: str, allow_plain_http: bool) -> None:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"not an HTTP address: {base_url!r}")
    if parts.scheme == "http" and not allow_plain_http and not _is_loopback(parts.hostname):
        raise ValueError(f"{base_url!r} would carry the credential in clear: use https")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _problem_code(response: httpx.Response) -> str:
    try:
        code = response.json()["code"]
    except (ValueError, KeyError, TypeError):
        return ""
    return code if isinstance(code, str) else ""


def _read(call: str, response: httpx.Response, convert: Callable[[Mapping[str, Any]], T]) -> T:
    try:
        return convert(response.json())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise GovernorUnreachableError(call, f"answer not understood: {type(error).__name__}") from error


def _dataclass(kind: Callable[..., T], body: Mapping[str, Any]) -> T:
    """Exactly typed: a "false" that is a string must never permit anything."""
    value = kind(**body)
    for field in dataclasses.fields(value):  # type: ignore[arg-type]  # the two answers above, both dataclasses
        wanted = {"bool": bool, "int": int}[str(field.type)]
        if type(getattr(value, field.name)) is not wanted:
            raise TypeError(field.name)
    return value
