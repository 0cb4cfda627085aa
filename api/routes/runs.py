"""Runs: list, show, cancel, watch, and fetch what they published."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse
from sse_starlette import EventSourceResponse

from api import statement_page
from api.answers import DecisionOut, ResultOut, RunDetailOut, RunOut, RunsOut
from api.audit_answers import StatementOut
from api.audit_schemas import StatementQuery
from api.auth import CallerDep, PrincipalDep
from api.events import Broadcaster
from api.problems import ApiError
from api.routes import router
from api.schemas import EvidenceIn, Id, RunsQuery
from api.services import Services, ServicesDep
from governance.errors import NotFoundError
from governance.model import Principal, RunState

routes = router("runs")
_PING_S = 15


@routes.get("/v1/runs", summary="Runs that I can see, newest first")
def runs(services: ServicesDep, principal: PrincipalDep, query: Annotated[RunsQuery, Query()]) -> RunsOut:
    state = None if query.state is None else RunState(query.state)
    found, next_cursor = services.queries.runs(principal, state, query.cursor, query.limit)
    return RunsOut(items=[RunOut.model_validate(one) for one in found], next_cursor=next_cursor)


@routes.get("/v1/runs/{run_id}", summary="One run, with the decision behind it unless that was erased")
def run(services: ServicesDep, principal: PrincipalDep, run_id: Id) -> RunDetailOut:
    found = services.queries.run(principal, run_id)
    decision = _decision(services, principal, found.decision_id)
    return RunDetailOut(**dict(RunOut.model_validate(found)), decision=decision)


@routes.post("/v1/runs/{run_id}:cancel", summary="Cancel a run; rounds that were debited stay spent")
def cancel(services: ServicesDep, principal: PrincipalDep, run_id: Id) -> RunOut:
    return RunOut.model_validate(services.settlement.cancel(principal, run_id))


@routes.post("/v1/runs/{run_id}:resolve", summary="Resolve a quarantine: give back its undebited rounds, on evidence")
def resolve(services: ServicesDep, principal: PrincipalDep, run_id: Id, body: EvidenceIn) -> RunOut:
    return RunOut.model_validate(services.settlement.resolve(principal, run_id, body.to_domain()))


@routes.get(
    "/v1/runs/{run_id}/events",
    summary="Watch a run (server-sent events)",
    response_class=EventSourceResponse,
    responses={204: {"description": "the run has ended, and you have seen all of it"}},
)
async def events(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    run_id: Id,
    last_event_id: Annotated[str | None, Header(description="resume after this event")] = None,
) -> Response:
    """Events ``state`` and ``progress``: {run_id, state, rounds, rounds_done, at}. Ends after the final state."""
    after = _event_id(last_event_id)
    broadcaster: Broadcaster = request.app.state.broadcaster
    found = await run_in_threadpool(services.queries.run, caller.principal, run_id)
    if found.state.final and not await run_in_threadpool(services.queries.events_of, caller.principal, run_id, after):
        return Response(status_code=204)  # tells an EventSource not to come back
    broadcaster.check_capacity(caller.principal.id)
    return EventSourceResponse(broadcaster.stream(caller, run_id, after), ping=_PING_S)


@routes.get("/v1/runs/{run_id}/result", summary="What a run published: metrics and privacy statement")
def result(services: ServicesDep, principal: PrincipalDep, run_id: Id) -> ResultOut:
    found = services.queries.result(principal, run_id)
    return ResultOut(
        run_id=found.run_id,
        weights_sha256=found.weights_sha256,
        weights_url=f"/v1/runs/{found.run_id}/weights",
        metrics=dict(found.metrics),
        privacy_statement=dict(found.privacy_statement),
    )


@routes.get(
    "/v1/runs/{run_id}/weights",
    summary="The published weights (safetensors)",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}},
)
def weights(services: ServicesDep, principal: PrincipalDep, run_id: Id) -> Response:
    return Response(
        services.queries.weights(principal, run_id),
        media_type="application/octet-stream",
        headers={"Content-Disposition": f'attachment; filename="{run_id}.safetensors"'},
    )


@routes.get(
    "/v1/runs/{run_id}/statement",
    summary="The privacy statement: as JSON, or as a page for people",
    response_model=StatementOut,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
def statement(
    services: ServicesDep,
    principal: PrincipalDep,
    run_id: Id,
    query: Annotated[StatementQuery, Query()],
    accept: Annotated[str, Header(description="text/html before application/json gives the page")] = "*/*",
) -> StatementOut | HTMLResponse:
    """With its place in the ledger, laid out as an entry of an ε registry and as NIST SP 800-226's checks."""
    found = services.audit.statement(principal, run_id)
    if query.format == "html" or (query.format is None and _prefers_html(accept)):
        return HTMLResponse(statement_page.page(found), headers={"Content-Security-Policy": statement_page.POLICY})
    return StatementOut.of(found)


def _prefers_html(accept: str) -> bool:
    """As browsers and clients send it: what is named first is preferred."""
    html, json = accept.find("text/html"), accept.find("application/json")
    return html >= 0 and (json < 0 or html < json)


def _decision(services: Services, principal: Principal, decision_id: str) -> DecisionOut | None:
    """Who sees a run sees its decision, so one that is not found was erased; the run outlives it."""
    try:
        return DecisionOut.model_validate(services.queries.decision(principal, decision_id))
    except NotFoundError:
        return None


def _event_id(text: str | None) -> int:
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        message = {"path": "header.Last-Event-ID", "message": "is not the id of an event", "hint": ""}
        raise ApiError(422, "invalid_request", "the header Last-Event-ID is unfit", problems=[message])
    return int(text)
