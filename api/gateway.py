"""The outermost layer of the service, as plain ASGI: what holds for every request, known route or not.

In this order: (1) a request id; (2) the Host header is one of ours, so a web page cannot reach a loopback service by
rebinding its own name; (3) the body is read whole, bounded in size and time, except an upload, which its route bounds;
(4) the application; (5) security headers; (6) an unexpected error becomes a 500 without its text; (7) one log line.

This module does not: authenticate, parse, or know what a route means.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import logging, problems
from api.services import ApiOptions
from governance.model import new_id

_UPLOAD = re.compile(r"/v1/runner/(grants/[^/]+/result|reports)")
_BODY_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class _Refused(Exception):
    """The gateway answers by itself."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(code)
        self.status, self.code, self.detail = status, code, detail


class Gateway:
    def __init__(self, app: ASGIApp, options: ApiOptions) -> None:
        self._app = app
        self._options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        try:
            self._check_host(scope)
            await self._app(scope, await self._bounded(scope, receive), exchange.send)
        except _Refused as refusal:
            exchange.state["problem_code"] = refusal.code
            answer = problems.problem(refusal.status, refusal.code, refusal.detail, exchange.request_id)
            await answer(scope, receive, exchange.send)
        except Exception as error:
            logging.logger().error("unexpected_error", request_id=exchange.request_id, **logging.failure(error))
            if not exchange.status:  # otherwise the answer ends short, and the server breaks the connection
                exchange.state["problem_code"] = "internal_error"
                await problems.internal_error(exchange.request_id)(scope, receive, exchange.send)
        finally:
            exchange.log()

    def _check_host(self, scope: Scope) -> None:
        if "*" in self._options.allowed_hosts:
            return
        host = re.sub(r":\d+$", "", Headers(scope=scope).get("host", "")).lower()
        if host not in self._options.allowed_hosts:
            raise _Refused(400, "unknown_host", "this service does not answer to that Host header")

    async def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """A ``receive`` that replays the body, which is here in full."""
        if scope["method"] not in _BODY_METHODS or _UPLOAD.fullmatch(scope["path"]):
            return receive
        most = self._options.limits.json_bytes
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdigit() or len(length) > 18 or int(length) > most:
            raise _Refused(413, "body_too_large", f"the body may have at most {most} bytes")
        try:
            async with asyncio.timeout(self._options.limits.body_timeout_s):
                body = await _read(receive, most)
        except TimeoutError:
            raise _Refused(408, "request_timeout", "the body did not arrive in time") from None
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        return replay


async def _read(receive: Receive, most: int) -> bytes:
    parts = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Refused(400, "bad_request", "the body ended early")
        parts += message.get("body", b"")
        if len(parts) > most:
            raise _Refused(413, "body_too_large", f"the body may have at most {most} bytes")
        if not message.get("more_body", False):
            return bytes(parts)


class _Exchange:
    """One request and its answer: adds headers on the way out and remembers what the log line needs."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send, self._began = scope, send, time.perf_counter()
        self.request_id = new_id("req")
        self.status = 0
        self.state: dict[str, Any] = scope.setdefault("state", {})
        self.state["request_id"] = self.request_id

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(raw=message["headers"])
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)  # the documentation page has a policy of its own
            headers.setdefault("Cache-Control", "no-store")
            headers["X-Request-ID"] = self.request_id
            message["headers"] = headers.raw
        await self._send(message)

    def log(self) -> None:
        route = getattr(self._scope.get("route"), "path", "(none)")
        if route == "/v1/health" and self.status == 200:
            return
        caller = self.state.get("caller")
        logging.logger().info(
            "request",
            request_id=self.request_id,
            method=self._scope["method"],
            route=route,
            status=self.status,
            duration_ms=round((time.perf_counter() - self._began) * 1000, 2),
            principal=caller.principal.id if caller is not None else None,
            problem=self.state.get("problem_code"),
        )
