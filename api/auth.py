"""Credential → principal → right, on every request, in this order:

(1) a public route counts against its caller's address; (2) a bearer credential is read and its session looked up;
(3) the role is checked against ``access.ACCESS``; (4) the request counts against the principal's rate.

Invariants
- The gate is a dependency of the whole application, so no route can forget it; an unlisted route is refused.
- Failed authentication counts against the address and looks the same whatever was wrong.
- The caller is kept on the request; nothing of the credential is.

This module does not: decide who sees what (governance does).
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer

from api.access import ACCESS
from api.limits import RateLimiter
from api.services import Services, ServicesDep
from governance.errors import AuthenticationError, ForbiddenError
from governance.identity import Caller
from governance.model import Principal, Role

DEVICE_COOKIE = "pysytff_device"
bearer = OAuth2PasswordBearer(tokenUrl="/v1/auth/token", auto_error=False)
_SUBMISSIONS = ("/v1/train-requests", "/v1/train-requests:preview")


def gate(request: Request, services: ServicesDep, credential: Annotated[str | None, Depends(bearer)]) -> None:
    """Raises ``AuthenticationError`` (401), ``ForbiddenError`` (403) or ``ThrottledError`` (429)."""
    route = (request.method, request.scope["route"].path)
    if route not in ACCESS:
        raise RuntimeError(f"{route} has no access declared")
    limiter: RateLimiter = request.app.state.limiter
    allowed = ACCESS[route]
    if allowed is None:
        _count_anonymous(request, services, limiter, route[1])
        return
    try:
        if credential is None:
            raise AuthenticationError("log in: this needs `Authorization: Bearer …`")
        caller = services.identity.authenticate(credential)
    except AuthenticationError:
        limiter.hit("anonymous", address(request))
        raise
    request.state.caller = caller
    principal = caller.principal
    if principal.role not in allowed:
        raise ForbiddenError(f"the role {principal.role.value} may not do this")
    limiter.hit("runner" if principal.role is Role.RUNNER else "principal", principal.id)
    if route[1] in _SUBMISSIONS:
        limiter.hit("submissions", principal.id)


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
