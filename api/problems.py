"""Errors as RFC 9457 problem documents: the one place where a domain error gets an HTTP status.

Invariants
- Every error answer of this API is ``application/problem+json`` with a stable ``code`` and the request's id.
- What the caller sent is never echoed (it may hold a password); an unexpected error's text never leaves.
- An error of governance that this table does not know is a 500: nothing is guessed.

This module does not: log (``gateway.py`` does), or decide.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from governance import errors

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:pysytff:problem:"

STATUS: Mapping[type[errors.GovernanceError], int] = {
    errors.NotFoundError: 404,
    errors.ForbiddenError: 403,
    errors.InvalidRequestError: 422,
    errors.ConflictError: 409,
    errors.ConstraintError: 409,
    errors.IdempotencyMismatchError: 422,
    errors.ContentionError: 503,
    errors.PolicyEngineError: 503,
    errors.FencingError: 409,
    errors.StorageError: 503,
    errors.LedgerClosedError: 503,
    errors.UnreconciledError: 409,
    errors.AuthenticationError: 401,
    errors.ThrottledError: 429,
}

_CODES: Mapping[int, str] = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large",
    415: "unsupported_media_type",
    500: "internal_error",
}
_RETRY_AFTER_S = {503: 1}


class FieldProblem(BaseModel):
    path: str
    message: str
    hint: str = ""


class Problem(BaseModel):
    """RFC 9457. ``code`` is what to branch on; ``request_id`` is what to quote to an operator."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldProblem] | None = None
    retry_after_s: int | None = None
    decision: dict[str, Any] | None = None


class ApiError(HTTPException):
    """What is wrong with a request as HTTP, before governance hears of it.

    An ``HTTPException``, because FastAPI lets only those out of the reading of a body.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        problems: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        **extensions: object,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.code = code
        self.extensions = ({"errors": list(problems)} if problems else {}) | extensions


def problem(
    status: int,
    code: str,
    detail: str,
    request_id: str,
    *,
    headers: Mapping[str, str] | None = None,
    extensions: Mapping[str, object] | None = None,
) -> JSONResponse:
    """The answer itself. 401 always names the scheme, and what may be tried again says when."""
    members = dict(extensions or {})
    outgoing = dict(headers or {})
    if status == 401:
        outgoing.setdefault("WWW-Authenticate", "Bearer")
    retry_after = members.get("retry_after_s", _RETRY_AFTER_S.get(status))
    if isinstance(retry_after, int):
        members["retry_after_s"] = retry_after
        outgoing["Retry-After"] = str(retry_after)
    document = {
        "type": TYPE_PREFIX + code,
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
    }
    return JSONResponse(document | members, status, headers=outgoing, media_type=MEDIA_TYPE)


def status_of(error: errors.GovernanceError) -> int:
    """The nearest class in ``STATUS``; 500 for one that has none."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def internal_error(request_id: str) -> JSONResponse:
    return problem(500, "internal_error", "something went wrong here; quote the request id to the operator", request_id)


def install(app: FastAPI) -> None:
    """Registers the handlers. Other exceptions reach the gateway, which answers 500."""
    app.add_exception_handler(errors.GovernanceError, _governance_error)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)


def _request_id(request: Request) -> str:
    return str(getattr(request.state, "request_id", ""))


async def _governance_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.GovernanceError)
    status = status_of(error)
    if status == 500:
        return internal_error(_request_id(request))
    extensions: dict[str, object] = {}
    if isinstance(error, errors.InvalidRequestError) and error.problems:
        extensions["errors"] = [dict(one) for one in error.problems]
    if isinstance(error.facts.get("retry_after_s"), int):
        extensions["retry_after_s"] = error.facts["retry_after_s"]
    request.state.problem_code = error.code
    return problem(status, error.code, error.detail, _request_id(request), extensions=extensions)


async def _api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    request.state.problem_code = error.code
    return problem(
        error.status_code,
        error.code,
        error.detail,
        _request_id(request),
        headers=error.headers,
        extensions=error.extensions,
    )


async def _http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "bad_request" if error.status_code < 500 else "internal_error")
    detail = {404: "there is nothing here", 405: "this resource does not answer that method"}.get(
        error.status_code, HTTPStatus(error.status_code).phrase
    )
    request.state.problem_code = code
    return problem(error.status_code, code, detail, _request_id(request), headers=error.headers)


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(one["loc"][:1] == ("path",) for one in found):  # an id that cannot be one: nothing is there
        request.state.problem_code = "not_found"
        return problem(404, "not_found", "there is nothing here", _request_id(request))
    body = _parameter_models(request)
    request.state.problem_code = "invalid_request"
    return problem(
        422,
        "invalid_request",
        "the request is malformed; nothing was done",
        _request_id(request),
        extensions={"errors": [_field_problem(one, body) for one in found[:100]]},
    )


def _field_problem(error: Mapping[str, Any], models: Mapping[str, type[BaseModel]]) -> dict[str, str]:
    place, *rest = error["loc"] or ("body",)
    owner, field_hint = _locate(models.get(place), rest)
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = message[:1].lower() + message[1:]
    if error["type"] == "extra_forbidden":
        message, field_hint = "unknown field", _did_you_mean(str(rest[-1]), owner)
    elif error["type"] == "missing":
        message = "required, and missing"
    path = _path(rest) if place == "body" else f"{place}.{_path(rest)}"
    return {"path": path, "message": message, "hint": field_hint}


def _path(location: Sequence[Any]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")[:200]


def _did_you_mean(name: str, owner: type[BaseModel] | None) -> str:
    known = list(owner.model_fields) if owner else []
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known fields: {', '.join(known)}" if known else ""


def _locate(model: type[BaseModel] | None, location: Sequence[Any]) -> tuple[type[BaseModel] | None, str]:
    """The model that holds the last part of ``location``, and what that field's description says."""
    hint = ""
    owner = model
    for part in location:
        if not isinstance(part, str) or model is None:
            continue
        owner = model
        field = model.model_fields.get(part)
        if field is None:
            return owner, ""
        hint = field.description or ""
        model = _model_in(field.annotation)
    return owner, hint


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for one in typing.get_args(annotation) if (found := _model_in(one))), None)


def _parameter_models(request: Request) -> dict[str, type[BaseModel]]:
    """The pydantic models that the endpoint takes, by place: ``body`` (JSON and form) and ``query``."""
    endpoint = getattr(request.scope.get("route"), "endpoint", None)
    if endpoint is None:
        return {}
    models: dict[str, type[BaseModel]] = {}
    for hint in typing.get_type_hints(endpoint, include_extras=True).values():
        model = _model_in(typing.get_args(hint)[0] if typing.get_args(hint) else hint)
        if model is not None:
            place = "query" if any(type(note).__name__ == "Query" for note in typing.get_args(hint)[1:]) else "body"
            models.setdefault(place, model)
    return models
