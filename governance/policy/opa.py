"""Asks OPA for a decision. The one adapter to ``opa-python-client``; its exceptions and aiohttp's stop here.

A decision, in order: (1) the document is complete and plain; (2) the owner's policy is one of those in force; (3) one
question, one deadline, no retry; (4) the answer is strict JSON of bounded size; (5) it comes from the bundle in force
and from no other; (6) both policies' answers are well-formed and merged. Whatever fails raises: nobody is admitted.

Invariants
- Callers are synchronous and many; the client and its connections live on one event loop in one thread of their own.
- No redirect is followed and no proxy is used, so the token goes to OPA alone; and off loopback only by HTTPS.
- No error's text holds the input, the token, or what OPA said: its code and the rule's place, at most.

This module does not: start OPA (``supervisor`` does), cache decisions, or upload policies.
"""

from __future__ import annotations

import asyncio
import ipaddress
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import aiohttp
from opa_client.opa_async import AsyncOpaClient

from governance.errors import (
    PolicyEngineError,
    PolicyResultError,
    PolicyRevisionError,
    PolicyTimeoutError,
    PolicyUnreachableError,
)
from governance.model import PolicyDecision
from governance.policy.bundles import BUNDLE_NAME, ActivePolicies, owner_key
from governance.policy.merge import merge
from governance.policy.wire import MAX_ANSWER_BYTES, parse_answer, validate_document

DECISION_PATH = "pysytff/gate"
_QUERY = {"metrics": "true", "provenance": "true", "strict-builtin-errors": "true"}
_GRACE_S = 1.0  # beyond the deadline, which the loop keeps by itself unless it hangs
_HOUSEKEEPING_S = 30.0  # opening and closing the client, which waits for nobody
_T = TypeVar("_T")


class PolicyEngine:
    """Thread-safe. ``timeout_s`` bounds one decision from question to answer."""

    def __init__(self, url: str, token: str, *, timeout_s: float = 1.0) -> None:
        """Opens no connection yet. Raises ``PolicyEngineError`` for an address that is unusable or unsafe."""
        address = _address(url)
        self._timeout_s = timeout_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="policy-engine", daemon=True)
        self._thread.start()
        self._client = _Client(
            host=address.host,
            port=address.port,
            ssl=address.tls,
            token=token,
            retries=0,  # its own retries would repeat a POST, past our deadline
            timeout=timeout_s,
        )
        self._run(self._client.__aenter__(), _HOUSEKEEPING_S)
        self._closed = False

    def decide(self, document: Mapping[str, Any], *, policy_id: str, active: ActivePolicies) -> PolicyDecision:
        """Raises ``PolicyEngineError`` and its kinds, and ``InvalidRequestError`` for a document unfit to be sent."""
        body = validate_document(document)
        if document["dataset"]["policy"] != policy_id:
            raise PolicyEngineError("The document is about another policy than the one asked.")
        for needed in ("organisation", owner_key(policy_id)):
            if needed not in active.digests:
                raise PolicyResultError(f"The policy {needed} is not in force.", policy=needed)
        answer = self._ask(body, active)
        if "result" not in answer:  # how OPA says "undefined"
            raise PolicyResultError("The policies left the decision undefined.")
        decision_id = answer.get("decision_id")
        if not isinstance(decision_id, str) or not 0 < len(decision_id) <= 100:
            raise PolicyResultError("The policy engine gave no decision id: run it with decision_logs.console=true.")
        return merge(answer["result"], policy_id=policy_id, active=active, opa_decision_id=decision_id)

    def ready(self, active: ActivePolicies) -> None:
        """Whether a decision could be had now: reachable, token accepted, revision in force. Raises as ``decide``."""
        self._ask(b"{}", active)

    def close(self) -> None:
        """Idempotent. Decisions asked for afterwards raise ``PolicyUnreachableError``."""
        if self._closed:
            return
        self._run(self._client.__aexit__(None, None, None), _HOUSEKEEPING_S)
        self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _ask(self, document: bytes, active: ActivePolicies) -> Mapping[str, Any]:
        if self._closed:
            raise PolicyUnreachableError("The connection to the policy engine is closed.")
        try:
            status, body = self._run(self._client.ask(DECISION_PATH, b'{"input":' + document + b"}"), self._timeout_s)
        except (TimeoutError, FutureTimeoutError) as error:
            raise PolicyTimeoutError(f"The policy engine did not answer within {self._timeout_s:g} s.") from error
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            raise PolicyUnreachableError("The policy engine can't be reached.") from error
        _check_status(status, body)
        answer = parse_answer(body)
        _check_revision(answer, active.revision)
        return answer

    def _run(self, work: Coroutine[Any, Any, _T], timeout_s: float) -> _T:
        future: Future[_T] = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout_s), self._loop)
        try:
            return future.result(timeout_s + _GRACE_S)
        except FutureTimeoutError:
            future.cancel()
            raise


class _Client(AsyncOpaClient):  # type: ignore[misc]  # the library has no annotations
    """The library's client, with a question that reads a bounded answer: its own would read any amount into memory."""

    async def ask(self, path: str, body: bytes) -> tuple[int, bytes]:
        """(HTTP status, body). Raises aiohttp's errors, and ``PolicyResultError`` for an answer that is too large."""
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        url = f"{self.root_url}/data/{path}?{urlencode(_QUERY)}"
        async with self._request("POST", url, data=body, headers=headers, allow_redirects=False) as response:
            received = bytearray()
            async for chunk in response.content.iter_chunked(64 * 1024):
                received += chunk
                if len(received) > MAX_ANSWER_BYTES:
                    response.close()  # not back into the pool: there is more to come
                    raise PolicyResultError(f"The policy engine's answer is larger than {MAX_ANSWER_BYTES} bytes.")
            return int(response.status), bytes(received)


@dataclass(frozen=True, slots=True)
class _Address:
    host: str
    port: int
    tls: bool


def _address(url: str) -> _Address:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise PolicyEngineError("The policy engine's address is no URL.") from error
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host or parts.path not in ("", "/") or "@" in parts.netloc:
        raise PolicyEngineError("The policy engine's address is not of the form http(s)://host:port.")
    if parts.query or parts.fragment:
        raise PolicyEngineError("The policy engine's address is not of the form http(s)://host:port.")
    tls = parts.scheme == "https"
    if not tls and not _is_loopback(host):
        raise PolicyEngineError(
            "Off this machine the policy engine must be reached by https: it decides who is let in."
        )
    return _Address(f"[{host}]" if ":" in host else host, port or (443 if tls else 8181), tls)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_status(status: int, body: bytes) -> None:
    if status == 200:
        return
    if status == 401:
        raise PolicyEngineError("The policy engine did not accept this service's token.", status=status)
    if status == 500:  # how OPA reports an evaluation that failed, such as a rule with two values
        raise PolicyResultError(f"The policies could not be evaluated{_place(body)}.", status=status)
    raise PolicyEngineError(f"The policy engine answered with status {status}.", status=status)


def _place(body: bytes) -> str:
    """Code and place of OPA's first error. Its message may quote the input, so it stays out."""
    try:
        first = parse_answer(body)["errors"][0]
        location = first["location"]
        return f" ({str(first['code'])[:60]} at {str(location['file'])[:100]}:{int(location['row'])})"
    except (PolicyResultError, KeyError, IndexError, TypeError, ValueError):
        return ""


def _check_revision(answer: Mapping[str, Any], expected: str) -> None:
    """Exactly our bundle at exactly this revision: a second bundle could define what the first one lacks."""
    provenance = answer.get("provenance")
    bundles = provenance.get("bundles") if isinstance(provenance, Mapping) else None
    if bundles != {BUNDLE_NAME: {"revision": expected}}:
        raise PolicyRevisionError(
            f"The policy engine answered from other policies than those in force ({expected}).", expected=expected
        )
