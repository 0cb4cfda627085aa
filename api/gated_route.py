"""The way of every request to its endpoint, in this order:

(1) the gate: credential, right, rates (``auth.py``); (2) the body's media type and, on public routes, its size;
(3) for decisions, how many the caller has in flight; (4) the body is parsed, a large one in a thread; (5) FastAPI.

Invariants
- Nothing of a body is parsed before its sender was identified and counted.
- No parse holds up the event loop for longer than ``_INLINE_BYTES`` take.

This module does not: read the body from the network (``gateway.py`` did), or decide who may call what.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response, params
from fastapi.routing import APIRoute

from api import auth, strict_json
from api.lanes import Lanes
from api.problems import ApiError
from api.services import Services

_INLINE_BYTES = 8 * 1024  # a few milliseconds


class GatedRequest(Request):
    async def json(self) -> Any:
        body = await self.body()
        if len(body) <= _INLINE_BYTES:
            return strict_json.loads(body)
        lanes: Lanes = self.app.state.lanes
        with lanes.parsing.one_of(auth.counted_as(self)):
            return await lanes.bodies.run(strict_json.loads, body)


class GatedRoute(APIRoute):
    """The class of every route of this API; ``auth.require_gate`` refuses what came another way."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        media_type = _media_type(self)

        async def gated(request: Request) -> Response:
            request = GatedRequest(request.scope, request.receive)
            lanes: Lanes = request.app.state.lanes
            await auth.admit(request)
            if media_type is not None:
                _check_media_type(request, media_type)
                await _check_public_size(request)
            deciding = lanes.deciding.one_of(auth.counted_as(request)) if auth.is_decision(request) else None
            with deciding or contextlib.nullcontext():
                return await handle(request)

        return gated


def _media_type(route: APIRoute) -> str | None:
    if route.body_field is None:
        return None
    is_form = isinstance(route.body_field.field_info, params.Form)
    return "application/x-www-form-urlencoded" if is_form else "application/json"


def _check_media_type(request: Request, expected: str) -> None:
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sent != expected:
        raise ApiError(415, "unsupported_media_type", f"send this request's body as {expected}")


async def _check_public_size(request: Request) -> None:
    services: Services = request.app.state.services
    most = services.options.limits.public_bytes
    if auth.is_public(request) and len(await request.body()) > most:
        raise ApiError(413, "body_too_large", f"the body may have at most {most} bytes")
