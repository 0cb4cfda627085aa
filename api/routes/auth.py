"""Logging in and out. Tokens: RFC 6749 password and refresh flows; problems instead of its error document.

Hashing a password takes a tenth of a second and 46 MiB, so it has threads of its own (``lanes.py``).
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Form, Request, Response

from api.answers import MeOut, TokenOut
from api.auth import DEVICE_COOKIE, CallerDep, PrincipalDep, address
from api.lanes import LanesDep
from api.routes import router
from api.schemas import TokenForm
from api.services import ServicesDep

routes = router("auth")


@routes.post("/v1/auth/token", summary="Log in, or refresh a session")
async def token(
    request: Request,
    response: Response,
    services: ServicesDep,
    lanes: LanesDep,
    form: Annotated[TokenForm, Form()],
) -> TokenOut:
    """A refresh token works once; using an old one again ends the session.

    A login also sets a cookie that proves, to the throttle of later logins and to nothing else, that this device
    logged in before.
    """
    identity = services.identity
    if form.grant_type == "refresh_token":
        return TokenOut.of(await lanes.sessions.run(identity.refresh, form.refresh_token))
    session = await lanes.logins.run(
        identity.login,
        form.username,
        form.password,
        address=address(request),
        device_proof=request.cookies.get(DEVICE_COOKIE),
    )
    if session.device_proof is not None:
        response.set_cookie(
            DEVICE_COOKIE,
            session.device_proof,
            max_age=int(identity.lifetimes.device.total_seconds()),
            path="/v1/auth",
            httponly=True,
            samesite="strict",
            secure=services.options.secure_cookies,
        )
    return TokenOut.of(session)


@routes.post("/v1/auth/logout", status_code=204, summary="End this session and every token of it")
def logout(services: ServicesDep, caller: CallerDep) -> None:
    services.identity.logout(caller)


@routes.get("/v1/auth/me", summary="Who I am")
async def me(principal: PrincipalDep) -> MeOut:
    return MeOut(id=principal.id, email=principal.email, role=principal.role.value, display_name=principal.display_name)
