"""Credential → principal → right, on every request before its body is parsed, in this order:

(1) a public route counts against its caller's address; (2) a bearer credential is read and its session looked up;
(3) the role is checked against ``access.ACCESS``; (4) the request counts against the principal's rate.

Invariants
- Every route passes the gate: ``GatedRoute`` calls it, and ``require_gate``, a dependency of the whole application,
  refuses what came another way. An unlisted route is refused.
- Failed authentication counts against the address and looks the same whatever was wrong.
- The caller is kept on the request; nothing of the credential is.

This module does not: decide who sees what (governance does).
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer

from api.access import ACCESS, RUNNER
from api.lanes import Lanes
from api.limits import RateLimiter
from api.services import Services
from governance.errors import AuthenticationError, ForbiddenError
from governance.identity import Caller
from governance.model import Principal, Role

DEVICE_COOKIE = "pysytff_device"
_bearer = OAuth2PasswordBearer(tokenUrl="/v1/auth/token", auto_error=False)
_SUBMISSIONS = ("/v1/train-requests", "/v1/train-requests:preview")


async def admit(request: Request) -> None:
    """The gate. Raises ``AuthenticationError`` (401), ``ForbiddenError`` (403) or ``ThrottledError`` (429)."""
    route = _route(request)
    if route not in ACCESS:
        raise RuntimeError(f"{route} has no access declared")
    services: Services = request.app.state.services
    limiter: RateLimiter = request.app.state.limiter
    allowed = ACCESS[route]
    request.state.gated = True
    if allowed is None:
        _count_anonymous(request, services, limiter, route[1])
        return
    lanes: Lanes = request.app.state.lanes
    try:
        credential = await _bearer(request)
        if credential is None:
            raise AuthenticationError("log in: this needs `Authorization: Bearer …`")
        lane = lanes.runners if allowed == RUNNER else lanes.sessions
        caller = await lane.run(services.identity.authenticate, credential)
    except AuthenticationError:
        limiter.hit("anonymous", address(request))
        raise
    request.state.caller = caller
    principal = caller.principal
    limiter.hit("runner" if principal.role is Role.RUNNER else "principal", principal.id)
    if principal.role not in allowed:
        raise ForbiddenError(f"the role {principal.role.value} may not do this")
    if is_decision(request):
        limiter.hit("submissions", principal.id)


async def require_gate(request: Request, _: Annotated[str | None, Depends(_bearer)]) -> None:
    """Raises ``RuntimeError`` for a request that reached its endpoint past the gate. Declares the scheme in OpenAPI."""
    if getattr(request.state, "gated", None) is not True:
        raise RuntimeError(f"{_route(request)} is not behind the gate")


def is_public(request: Request) -> bool:
    return ACCESS[_route(request)] is None


def is_decision(request: Request) -> bool:
    return _route(request)[1] in _SUBMISSIONS


def counted_as(request: Request) -> str:
    """The principal of a request that passed the gate; its address, where nobody had to say who they are."""
    caller: Caller | None = getattr(request.state, "caller", None)
    return address(request) if caller is None else caller.principal.id


def _route(request: Request) -> tuple[str, str]:
    return request.method, request.scope["route"].path


def _count_anonymous(request: Request, services: Services, limiter: RateLimiter, path: str) -> None:
    if path == "/v1/health":  # an orchestrator asks often, and it costs nothing
        return
    if path == "/v1/auth/token":
        device = services.identity.device(request.cookies.get(DEVICE_COOKIE))
        limiter.hit("login", f"device {device}" if device else f"address {address(request)}")
    else:
        limiter.hit("anonymous", address(request))


def address(request: Request) -> str:
    """Where the request comes from, as uvicorn saw it or as a trusted proxy says."""
    return request.client.host if request.client else "unknown"


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


async def _principal(request: Request) -> Principal:
    caller: Caller = request.state.caller
    return caller.principal


CallerDep = Annotated[Caller, Depends(_caller)]
PrincipalDep = Annotated[Principal, Depends(_principal)]
