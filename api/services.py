"""What the routes call, gathered in one value that ``create_app`` puts on the application's state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from api.limits import Limits
from governance.admission import Admission
from governance.audit.reader import Audit
from governance.identity import Identity
from governance.ledger.database import Database
from governance.policy.opa import PolicyEngine
from governance.queries import Queries
from governance.registry import Registry
from governance.settlement import Settlement
from governance.transparency import Transparency

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """``allowed_hosts``: names without port that a Host header may carry; ``*`` for any."""

    allowed_hosts: tuple[str, ...] = LOOPBACK_HOSTS
    secure_cookies: bool = False  # True where people reach the service over HTTPS
    limits: Limits = field(default_factory=Limits)
    lease_sweep_s: float = 5.0
    event_poll_s: float = 0.25
    stream_recheck_s: float = 30.0  # how often a long stream asks whether its caller may still listen


@dataclass(frozen=True, slots=True)
class Services:
    database: Database
    registry: Registry
    admission: Admission
    settlement: Settlement
    queries: Queries
    audit: Audit
    identity: Identity
    engine: PolicyEngine
    transparency: Transparency
    options: ApiOptions = field(default_factory=ApiOptions)

    def close(self) -> None:
        self.engine.close()
        self.database.dispose()


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]
