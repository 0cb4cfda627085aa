"""The service itself: what it is, whether it lives, whether it can decide."""

from __future__ import annotations

from importlib.metadata import version

from api.answers import HealthOut, IndexOut, ReadyOut
from api.problems import ApiError
from api.routes import router
from api.services import ServicesDep

routes = router("service")


@routes.get("/", summary="What this is")
async def index() -> IndexOut:
    return IndexOut(version=version("pysytff-server"))


@routes.get("/v1/health", summary="Liveness: the process answers")
async def health() -> HealthOut:
    return HealthOut()


@routes.get("/v1/ready", summary="Readiness: the database answers, and the policy engine serves the policies in force")
def ready(services: ServicesDep) -> ReadyOut:
    active = services.registry.active_policies()
    if active is None:
        raise ApiError(503, "no_active_policies", "no policies are in force; run `pysytff-server init`")
    services.engine.ready(active)
    return ReadyOut(policy_revision=active.revision)
