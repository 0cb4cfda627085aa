"""``/docs``: every operation on one page, for people without another tool at hand.

Invariants
- Everything on it comes in one answer of this service: no script, no other origin, so it works without a network and
  tells nobody who reads it. Its one style sheet is inline, and the page's policy names it by its hash.
- It is made from the OpenAPI document, so it cannot differ from it.

This module does not: send requests for its reader, or show schemas in full (``/openapi.json`` does).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "summary{cursor:pointer}code{font-size:.95em}dt{margin-top:.5rem}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; frame-ancestors 'none'"


def install(app: FastAPI) -> None:
    async def docs(request: Request) -> HTMLResponse:
        return HTMLResponse(page(app.openapi()), headers={"Content-Security-Policy": POLICY})

    app.add_route("/docs", docs, include_in_schema=False)


def page(document: Mapping[str, Any]) -> str:
    """The page for an OpenAPI document."""
    title = f"{document['info']['title']} {document['info']['version']}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1><p>{escape(document['info'].get('summary', ''))}. "
        '<a href="/openapi.json">OpenAPI document</a>, for tools and with every schema.</p>'
        f"{''.join(_sections(document))}</html>\n"
    )


def _sections(document: Mapping[str, Any]) -> Iterator[str]:
    by_tag: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            tag = next(iter(operation.get("tags", ())), "other")
            by_tag.setdefault(tag, []).append(_operation(method.upper(), path, operation))
    for tag, shown in by_tag.items():
        yield f"<h2>{escape(tag)}</h2>{''.join(shown)}"


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    facts = [("credential", "Authorization: Bearer …" if operation.get("security") else "none")]
    facts += [
        (f"{one['in']}: {one['name']}{' (required)' if one.get('required') else ''}", one.get("description", ""))
        for one in operation.get("parameters", ())
    ]
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        facts.append((f"body: {media_type}", content.get("schema", {}).get("$ref", "").rpartition("/")[2]))
    facts += [(status, answer.get("description", "")) for status, answer in sorted(operation["responses"].items())]
    rows = "".join(f"<dt><code>{escape(name)}</code></dt><dd>{escape(text)}</dd>" for name, text in facts)
    return (
        f"<details><summary><code>{method} {escape(path)}</code> {escape(operation.get('summary', ''))}</summary>"
        f"<p>{escape(operation.get('description', ''))}</p><dl>{rows}</dl></details>"
    )
