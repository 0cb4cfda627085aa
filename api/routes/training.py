"""Train requests: the one way to spend budget, and its preview.

A decision may compute for seconds, so it runs in threads of its own (``lanes.py``).
"""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import Header, Request, Response
from fastapi.responses import JSONResponse

from api import problems
from api.answers import DecisionOut
from api.auth import PrincipalDep
from api.lanes import LanesDep
from api.problems import ApiError
from api.routes import router
from api.schemas import TrainRequestIn
from api.services import ServicesDep
from governance.model import Outcome

routes = router("training")

_HINT = "send a random value of your own, and the same one when you repeat this very request"


@routes.post(
    "/v1/train-requests",
    status_code=201,
    response_model=DecisionOut,
    summary="Ask for a training run: approved, clamped, or refused with reasons",
)
async def submit(
    request: Request,
    response: Response,
    services: ServicesDep,
    lanes: LanesDep,
    principal: PrincipalDep,
    body: TrainRequestIn,
    idempotency_key: Annotated[str | None, Header(description="1 to 200 printable ASCII characters; required")] = None,
) -> DecisionOut | JSONResponse:
    """The same key with the same body answers what was answered before; with another body it is refused (422)."""
    key = _checked_key(idempotency_key)

    def decide() -> DecisionOut:
        decision = services.admission.admit(
            principal, body.to_domain(), idempotency_key=key, request_digest=body.digest()
        )
        return DecisionOut.model_validate(decision)

    answer = await lanes.decisions.run(decide)
    if answer.outcome == Outcome.REFUSED or answer.run_id is None:
        return _refused(request, answer)
    response.headers["Location"] = f"/v1/runs/{answer.run_id}"
    return answer


@routes.post("/v1/train-requests:preview", summary="What would be decided, and what it would cost; writes nothing")
async def preview(services: ServicesDep, lanes: LanesDep, principal: PrincipalDep, body: TrainRequestIn) -> DecisionOut:
    return await lanes.decisions.run(
        lambda: DecisionOut.model_validate(services.admission.preview(principal, body.to_domain()))
    )


def _checked_key(key: str | None) -> str:
    if key is None or not 1 <= len(key) <= 200 or not all(" " <= character <= "~" for character in key):
        message = {"path": "header.Idempotency-Key", "message": "1 to 200 printable ASCII characters", "hint": _HINT}
        raise ApiError(422, "invalid_request", "the header Idempotency-Key is missing or unfit", problems=[message])
    return key


def _refused(request: Request, answer: DecisionOut) -> JSONResponse:
    request.state.problem_code = "refused"
    detail = "; ".join(reason.message for reason in answer.reasons) or "refused"
    document = json.loads(answer.model_dump_json())  # by way of JSON: a reading that is infinite becomes null
    return problems.problem(403, "refused", detail, request.state.request_id, extensions={"decision": document})
