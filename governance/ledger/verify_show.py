"""A verifier's report for people (rich) and for programs (JSON).

Invariants
- Nothing from the ledger is taken for markup or reaches the terminal unescaped.
- It says what was *not* checked as loudly as what was found.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from governance.ledger.findings import KEPT, MEANINGS, plain
from governance.ledger.verify import PopulationReport, Report

_SHOWN = 50  # findings in the table; --json has all that were kept


def document(report: Report) -> dict[str, Any]:
    return {
        "verified": report.is_clean,
        "entries": report.entries,
        "root": report.root,
        "anchor": {"key": report.anchor, "pinned": report.is_pinned},
        "checkpoints": [asdict(one) for one in report.checkpoints],
        "populations": [_finite(asdict(one)) for one in report.populations],
        "findings": [asdict(one) | {"meaning": MEANINGS[one.code]} for one in report.findings.kept],
        "findings_total": report.findings.total,
        "findings_by_code": dict(report.findings.counts),
    }


def _finite(value: Any) -> Any:
    """JSON has no infinity: what is beyond every number is null."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show(report: Report, console: Console) -> None:
    _line(console, f"{report.entries} entries; root {report.root}")
    for one in report.checkpoints:
        when = ", ".join(_cosigned(name, at) for name, at in one.cosigned)
        signed = ", ".join(one.signed_by) or "nobody known"
        more = f"; co-signed by {when}" if when else ""
        _line(console, f"checkpoint {one.name}: {one.size} entries, signed by {signed}{more}")
    _show_anchor(report, console)
    if report.populations:
        console.print(_populations(report.populations, is_ascii=console.options.ascii_only))
    if report.is_clean:
        _line(console, "Verified.", "bold green")
        return
    console.print(_findings(report))
    total = report.findings.total
    if total > _SHOWN:
        _line(console, f"{total} findings; the first {_SHOWN} are shown, --json has the first {KEPT}.")
    _line(console, f"NOT verified: {total} finding{'' if total == 1 else 's'}.", "bold red")


def _line(console: Console, text: str, style: str = "") -> None:
    """Not wrapped: keys and hashes are copied from here."""
    console.print(Text(plain(text), style=style), soft_wrap=True)


def _show_anchor(report: Report, console: Console) -> None:
    if report.is_pinned:
        _line(console, f"trusted: the pinned key {report.anchor}")
    elif report.checkpoints:
        text = (
            "WARNING: no --log-key was given, so the ledger's own first key was taken on trust. Whoever replaced the "
            f"whole ledger replaced it too. Compare it with what the operator published: {report.anchor or 'none'}"
        )
        _line(console, text, "bold yellow")
    else:
        text = (
            "WARNING: no checkpoint was given: the entries were checked among themselves, and nobody has signed them."
        )
        _line(console, text, "bold yellow")


def _cosigned(name: str, at: int | None) -> str:
    if at is None or at >= 253402300800:  # after the year 9999
        return name
    return f"{name} at {datetime.fromtimestamp(at, UTC).strftime('%Y-%m-%dT%H:%M:%SZ')}"


def _populations(found: list[PopulationReport], *, is_ascii: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("population, and its quotas", overflow="fold")
    epsilon, delta = ("epsilon", "delta") if is_ascii else ("ε", "δ")
    readings = (f"{epsilon}, at most", delta, f"spent {epsilon}", f"committed {epsilon}")
    for heading in (*readings, "runs", "refused", "published"):
        table.add_column(heading, justify="right")
    for one in found:
        cells = [f"{one.epsilon:g}", f"{one.delta:g}", f"{one.spent_epsilon:.4f}", f"{one.committed_epsilon:.4f}"]
        numbers = (one.decisions - one.refusals, one.refusals, one.publications)
        table.add_row(Text(plain(one.id)), *cells, *map(str, numbers))
        for quota in one.quotas:
            cells = [f"{quota.epsilon:g}", "", f"{quota.spent_epsilon:.4f}", f"{quota.committed_epsilon:.4f}"]
            table.add_row(Text(plain(f" {quota.scope} {quota.scope_id}"), style="dim"), *cells, "", "", "")
    return table


def _findings(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("entry", justify="right")
    table.add_column("finding", style="red", no_wrap=True)
    table.add_column("what was found, and what it means", overflow="fold")
    explained: set[str] = set()
    for one in report.findings.kept[:_SHOWN]:
        text = Text(one.message)
        if one.code not in explained:
            explained.add(one.code)
            text.append(f"\n({MEANINGS[one.code]})", style="dim")
        table.add_row("" if one.index is None else str(one.index), one.code, text)
    return table
