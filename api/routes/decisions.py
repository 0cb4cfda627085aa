"""Decisions: what was answered, and why."""

from __future__ import annotations

from api.answers import DecisionOut
from api.audit_answers import ExplanationOut
from api.auth import PrincipalDep
from api.lanes import LanesDep
from api.routes import router
from api.schemas import Id
from api.services import ServicesDep

routes = router("decisions")


@routes.get("/v1/decisions/{decision_id}", summary="One decision, as it was answered")
def decision(services: ServicesDep, principal: PrincipalDep, decision_id: Id) -> DecisionOut:
    return DecisionOut.model_validate(services.queries.decision(principal, decision_id))


@routes.get("/v1/decisions/{decision_id}/explanation", summary="Why a request was refused, clamped or approved")
async def explanation(
    services: ServicesDep, lanes: LanesDep, principal: PrincipalDep, decision_id: Id
) -> ExplanationOut:
    """With the rules, each parameter before and after, the budget as of then, and what would have fitted. Of an erased
    decision: what its ledger entry still knows."""
    # A curve that nobody asked for before takes seconds, so this has the decisions' threads.
    return await lanes.decisions.run(lambda: ExplanationOut.of(services.audit.explanation(principal, decision_id)))
