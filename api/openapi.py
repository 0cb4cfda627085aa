"""OpenAPI: declares on every operation the problems that it can answer, and which of them need a credential."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from api.access import ACCESS
from api.problems import MEDIA_TYPE, Problem

_MEANING = {
    "400": "the Host header is not one of ours",
    "401": "the credential is missing, wrong, expired or revoked",
    "403": "the role may not do this, or the request was refused (`decision` says why)",
    "404": "there is no such thing, or you may not see it",
    "409": "the state of the thing does not permit this",
    "413": "the body is too large",
    "415": "the body has another media type",
    "422": "the request is malformed (`errors` says where)",
    "429": "too many requests; `Retry-After` says when to come back",
    "500": "something went wrong in the service",
    "503": "the database or the policy engine gives no trustworthy answer; nothing was approved",
}
_ALWAYS = ("400", "429", "500", "503")
_SCHEMA = "#/components/schemas/Problem"


def install(app: FastAPI) -> None:
    generate = app.openapi

    def declared() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _declare(generate())
        return app.openapi_schema

    app.openapi = declared  # type: ignore[method-assign]  # FastAPI's own way to extend the document


def _declare(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= schema.pop("$defs", {})
    schemas["Problem"] = schema
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            public = ACCESS[(method.upper(), path)] is None
            if public:
                operation.pop("security", None)
            for status in _statuses(path, operation, public):
                operation["responses"][status] = {
                    "description": _MEANING[status],
                    "content": {MEDIA_TYPE: {"schema": {"$ref": _SCHEMA}}},
                }
    return document


def _statuses(path: str, operation: dict[str, Any], public: bool) -> list[str]:
    found = list(_ALWAYS)
    if not public or path in ("/v1/auth/token", "/v1/users/accept"):
        found.append("401")
    if not public:
        found.append("403")
    if "{" in path or path.startswith("/v1/train-requests"):
        found.append("404")
    if "requestBody" in operation:
        found += ["409", "413", "415", "422"]
    elif operation.get("parameters"):
        found += ["409", "422"]
    return sorted(found)
