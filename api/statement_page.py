"""A model's privacy statement as a page for people, to be read, printed and filed.

Invariants
- Everything on it is in one file: no script, no other origin. Its one style sheet is inline, and the page's policy
  names it by its hash.
- All text is escaped: what a request or a statement holds is shown, never interpreted.

This module does not: decide what is stated (``governance/audit/statement_view.py`` does).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape

from governance.audit.statement_view import NOT_STATED, Field, LedgerPlace, StatementView

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#111;"
    "background:#fff}table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;"
    "padding:.3rem .6rem;border-bottom:1px solid #999;overflow-wrap:anywhere}th{width:30%}"
    ".none{font-style:italic}.bad{font-weight:bold;border:3px solid;padding:.5rem}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:.8rem}.source{font-size:.85rem}"
    "@media print{body{max-width:none;margin:0;font-size:11pt}tr,h2{break-inside:avoid;break-after:auto}}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; frame-ancestors 'none'"


def page(view: StatementView) -> str:
    title = f"Privacy statement of run {view.run_id}"
    document = json.dumps(dict(view.statement), indent=2, ensure_ascii=False, sort_keys=True)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>"
        f"{_evidence(view)}"
        f"<h2>Registry entry</h2>{_table(view.registry)}"
        f"<h2>Checks (NIST SP 800-226)</h2>{_table(view.checks)}"
        "<h2>The statement as it was published</h2>"
        f"<p>SHA-256 of its canonical bytes (RFC 8785): <code>{escape(view.statement_sha256)}</code></p>"
        f"<pre>{escape(document)}</pre></html>\n"
    )


def _evidence(view: StatementView) -> str:
    lines = "".join(f"<li>{_place(place)}</li>" for place in view.ledger)
    if not view.ledger or not all(place.matches for place in view.ledger):
        warning = '<p class="bad">The ledger does not confirm this statement: do not rely on it.</p>'
        return f"{warning}<ul>{lines}</ul>"
    return f"<p>The ledger confirms this statement:</p><ul>{lines}</ul>"


def _place(place: LedgerPlace) -> str:
    says = "has its digest" if place.matches else f"has another digest, {place.statement_sha256}"
    return (
        f"entry {place.entry_index} of population {escape(place.population_id)} {escape(says)} "
        f"(leaf hash <code>{escape(place.leaf_hash)}</code>)"
    )


def _table(fields: Sequence[Field]) -> str:
    return f"<table><tbody>{''.join(map(_row, fields))}</tbody></table>"


def _row(field: Field) -> str:
    if field.source is None:
        return f'<tr><th scope="row">{escape(field.name)}</th><td class="none">{NOT_STATED}</td><td></td></tr>'
    return (
        f'<tr><th scope="row">{escape(field.name)}</th><td>{escape(field.value)}</td>'
        f'<td class="source">{escape(field.source)}</td></tr>'
    )
