"""The runner's side of ``runner.port.Governor`` over HTTP. Only a runner's credential opens these.

They run in threads of their own: a claim or a heartbeat that waited for a reader would cost people their budget.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Header, Request, Response
from pydantic import TypeAdapter, ValidationError

from api.answers import DebitOut, GrantOut, HeartbeatOut
from api.auth import PrincipalDep
from api.lanes import LanesDep
from api.problems import ApiError
from api.routes import router
from api.schemas import DebitIn, FailIn, FencedIn, GrantReportIn, Id, ProgressIn, ResultMeta
from api.services import ServicesDep
from api.strict_json import loads
from runner.port import GrantReport, RunResult

REPORT_BYTES: Final = 16 * 1024 * 1024  # some forty thousand grants

routes = router("runner")
_REPORT: Final = TypeAdapter(list[GrantReportIn])


@routes.post(
    "/v1/runner/claim",
    response_model=GrantOut,
    responses={204: {"description": "nothing is queued"}},
    summary="Claim the oldest queued run",
)
async def claim(services: ServicesDep, lanes: LanesDep, runner: PrincipalDep) -> GrantOut | Response:
    grant = await lanes.runners.run(services.settlement.claim, runner)
    return Response(status_code=204) if grant is None else GrantOut(**grant.to_json())


@routes.post("/v1/runner/grants/{grant_id}/heartbeat", summary="Extend the lease")
async def heartbeat(
    services: ServicesDep, lanes: LanesDep, runner: PrincipalDep, grant_id: Id, body: FencedIn
) -> HeartbeatOut:
    return HeartbeatOut.model_validate(
        await lanes.runners.run(services.settlement.heartbeat, runner, grant_id, body.fencing_token)
    )


@routes.post("/v1/runner/grants/{grant_id}/debit", summary="Debit rounds before they run")
async def debit(services: ServicesDep, lanes: LanesDep, runner: PrincipalDep, grant_id: Id, body: DebitIn) -> DebitOut:
    return DebitOut.model_validate(
        await lanes.runners.run(
            services.settlement.debit, runner, grant_id, body.fencing_token, body.first_round, body.rounds
        )
    )


@routes.post("/v1/runner/grants/{grant_id}/progress", status_code=204, summary="Report rounds done")
async def progress(
    services: ServicesDep, lanes: LanesDep, runner: PrincipalDep, grant_id: Id, body: ProgressIn
) -> None:
    await lanes.runners.run(services.settlement.progress, runner, grant_id, body.fencing_token, body.rounds_done)


@routes.post("/v1/runner/grants/{grant_id}/fail", status_code=204, summary="End a grant without a result")
async def fail(services: ServicesDep, lanes: LanesDep, runner: PrincipalDep, grant_id: Id, body: FailIn) -> None:
    await lanes.runners.run(
        services.settlement.fail, runner, grant_id, body.fencing_token, touched_data=body.touched_data
    )


@routes.put(
    "/v1/runner/grants/{grant_id}/result",
    status_code=204,
    summary="Publish the result (safetensors), once",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def publish(
    request: Request,
    services: ServicesDep,
    lanes: LanesDep,
    runner: PrincipalDep,
    grant_id: Id,
    fencing_token: Annotated[str, Header(pattern=r"^[0-9]{1,16}$")],
    result_meta: Annotated[str, Header(max_length=8192, description="JSON: rounds, public_metrics, generator, …")],
) -> None:
    """One upload is held in memory at a time."""
    meta = _meta(result_meta)
    async with request.app.state.uploads:
        weights = await _bounded_body(request, services.options.limits.result_bytes, "a result")
        result = RunResult(weights, meta.rounds, meta.public_metrics, meta.generator, meta.runner_version)
        await lanes.runners.run(services.settlement.publish, runner, grant_id, int(fencing_token), result)


@routes.post(
    "/v1/runner/reports",
    status_code=204,
    summary="Report everything that was ever permitted to run",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"type": "array", "items": GrantReportIn.model_json_schema()}},
            },
        }
    },
)
async def report(request: Request, services: ServicesDep, lanes: LanesDep, runner: PrincipalDep) -> None:
    """From the runner's own journal, whole: it replaces what this runner reported before. Taken also while the ledger
    is closed, which is when it is needed.
    """
    async with request.app.state.uploads:
        body = await _bounded_body(request, REPORT_BYTES, "a report")
        reports = await lanes.bodies.run(_reports, body)
        await lanes.runners.run(services.settlement.report, runner, reports)


def _reports(body: bytes) -> list[GrantReport]:
    try:
        return [GrantReport.from_json(one.model_dump()) for one in _REPORT.validate_json(body)]
    except ValidationError as error:
        raise ApiError(422, "invalid_request", "the report is unfit", problems=_problems(error)) from None


def _meta(text: str) -> ResultMeta:
    try:
        return ResultMeta.model_validate(loads(text.encode()))
    except ValidationError as error:
        raise ApiError(422, "invalid_request", "the header Result-Meta is unfit", problems=_problems(error)) from None


def _problems(error: ValidationError) -> list[dict[str, Any]]:
    return [
        {"path": ".".join(str(part) for part in one["loc"]), "message": one["msg"], "hint": ""}
        for one in error.errors(include_input=False, include_url=False)[:20]
    ]


async def _bounded_body(request: Request, most: int, what: str) -> bytes:
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or len(declared) > 18 or int(declared) > most:
        raise ApiError(413, "body_too_large", f"{what} may have at most {most} bytes")
    parts = bytearray()
    async for chunk in request.stream():
        parts += chunk
        if len(parts) > most:
            raise ApiError(413, "body_too_large", f"{what} may have at most {most} bytes")
    return bytes(parts)
