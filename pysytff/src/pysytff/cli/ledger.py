"""ledger [odometer | why | remaining | export]: what auditors and owners ask."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import rich.console
import rich.progress
import typer

from pysytff.cli.output import AsJson, errors_explained, show
from pysytff.cli.session import current
from pysytff.display import Table
from pysytff.errors import ParameterError
from pysytff.models import LedgerEntry

_BODY = 200  # characters of an entry that the table shows; --json shows all

app = typer.Typer(help="Read the ledger: entries, odometer, why, what remains, exports.")

Population = Annotated[str | None, typer.Option(help="Only this population (id).")]
Dataset = Annotated[str | None, typer.Option(help="Only this dataset (id), with the runs on it.")]
Project = Annotated[str | None, typer.Option(help="Only this project (id).")]
Researcher = Annotated[str | None, typer.Option(help="Only this researcher (id).")]
Run = Annotated[str | None, typer.Option(help="Only this run (id).")]
Kinds = Annotated[list[str] | None, typer.Option("--kind", help="Only entries of this kind; may be repeated.")]
Outcome = Annotated[str | None, typer.Option(help="Only decisions that were approved, clamped or refused.")]
Since = Annotated[
    str | None, typer.Option("--from", help="From this time on: 2026-01-31 or 2026-01-31T12:00:00Z; UTC if not said.")
]
Until = Annotated[str | None, typer.Option("--to", help="Before this time.")]
Which = Annotated[str, typer.Argument(help="Name or id of a population.")]


@app.callback(invoke_without_command=True)
def entries(
    context: typer.Context,
    population: Population = None,
    dataset: Dataset = None,
    project: Project = None,
    researcher: Researcher = None,
    run: Run = None,
    kind: Kinds = None,
    outcome: Outcome = None,
    since: Since = None,
    until: Until = None,
    newest_first: Annotated[bool, typer.Option("--newest-first", help="Newest first.")] = False,
    limit: Annotated[int, typer.Option(help="At most so many entries.", min=1)] = 100,
    as_json: AsJson = False,
) -> None:
    """Show the ledger's entries that you may see; or, with a command, what follows from them."""
    given = _filters(population, dataset, project, researcher, run, kind, outcome)
    if context.invoked_subcommand is not None:
        if given or since or until or newest_first:
            raise typer.BadParameter("filters go after the command that they are for, such as: ledger export --kind …")
        return
    with errors_explained(as_json=as_json):
        given |= _times(since, until)
        found = list(current().ledger.entries(**given, newest_first=newest_first, limit=limit))
        show(found if as_json else _table(found), as_json=as_json)


@app.command()
def odometer(
    population: Which,
    delta: Annotated[float | None, typer.Option(help="Read at this δ; the budget's own if left out.")] = None,
    as_of: Annotated[int | None, typer.Option(help="As of this entry; of now if left out.", min=0)] = None,
    scope: Annotated[str | None, typer.Option(help="Only population, project or researcher.")] = None,
    scope_id: Annotated[str | None, typer.Option(help="Only this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read what was spent and committed, at any δ and as of any entry."""
    with errors_explained(as_json=as_json):
        found = current().ledger.odometer(population, delta=delta, as_of_entry=as_of, scope=scope, scope_id=scope_id)
        show(found, as_json=as_json)


@app.command()
def why(
    decision: Annotated[str, typer.Argument(help="The decision's id: dec_…")],
    as_json: AsJson = False,
) -> None:
    """Explain why a request was refused, clamped or approved."""
    with errors_explained(as_json=as_json):
        show(current().ledger.explain(decision), as_json=as_json)


@app.command()
def remaining(
    population: Which,
    like: Annotated[str | None, typer.Option(help="A run (id); the last approved one if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell how many more runs like one that there was would fit."""
    with errors_explained(as_json=as_json):
        show(current().ledger.remaining(population, like_run=like), as_json=as_json)


@app.command()
def export(
    out: Annotated[Path, typer.Option("--out", "-o", help="Write to this file, and FILE.checkpoint beside it.")],
    form: Annotated[
        str, typer.Option("--format", help="jsonl (the whole log, for pysytff-verify), csv or parquet.")
    ] = "jsonl",
    from_index: Annotated[int | None, typer.Option(help="jsonl: from this entry on.", min=0)] = None,
    population: Population = None,
    dataset: Dataset = None,
    project: Project = None,
    researcher: Researcher = None,
    run: Run = None,
    kind: Kinds = None,
    outcome: Outcome = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Write the ledger to a file, whole or not at all."""
    with errors_explained(as_json=as_json):
        given = _filters(population, dataset, project, researcher, run, kind, outcome) | _times(since, until)
        columns = (
            rich.progress.TextColumn("{task.description}", markup=False),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.fields[seen]}", markup=False),
            rich.progress.TimeElapsedColumn(),
        )
        console = rich.console.Console(file=sys.stderr)
        with rich.progress.Progress(*columns, console=console, disable=as_json or not console.is_terminal) as bar:
            task = bar.add_task("exporting", total=None, seen="")

            def progress(done: int, total: int | None) -> None:
                seen = f"{done / 1e6:.1f} MB" if total is None else f"{done} of {total} entries"
                bar.update(task, completed=done, total=total, seen=seen)

            made = current().ledger.export(out, format=form, from_index=from_index, progress=progress, **given)
        answer = {
            "file": str(made.file),
            "checkpoint": None if made.checkpoint is None else str(made.checkpoint),
            "rotations": [str(one) for one in made.rotations],
            "ledger_size": made.size,
            "unsigned": made.unsigned,
            "bytes": made.bytes,
        }
        signed = (
            "the node has signed no checkpoint yet" if made.checkpoint is None else f"checkpoint: {made.checkpoint}"
        )
        text = f"{made.file}: the ledger at {made.size} entries, {made.bytes} bytes; {signed}"
        if made.unsigned:
            text += f"\n{made.unsigned} newer entries are not signed yet, and left out"
        if made.rotations:
            files = " ".join(f"--checkpoint {one}" for one in made.rotations)
            text += f"\nthe log's key has changed; from an older key pysytff-verify gets here with {files}"
        show(answer if as_json else text, as_json=as_json)


def _filters(
    population: str | None,
    dataset: str | None,
    project: str | None,
    researcher: str | None,
    run: str | None,
    kind: list[str] | None,
    outcome: str | None,
) -> dict[str, Any]:
    given = {
        "population_id": population,
        "dataset_id": dataset,
        "project_id": project,
        "researcher_id": researcher,
        "run_id": run,
        "kind": kind or None,
        "outcome": outcome,
    }
    return {name: value for name, value in given.items() if value is not None}


def _times(since: str | None, until: str | None) -> dict[str, datetime]:
    return {
        name: _moment(option, text)
        for name, option, text in (("since", "--from", since), ("until", "--to", until))
        if text
    }


def _moment(option: str, text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00").replace("z", "+00:00"))
    except ValueError:
        hint = "such as 2026-01-31 or 2026-01-31T12:00:00Z"
        raise ParameterError([{"path": option, "message": f"{text!r} is no time", "hint": hint}]) from None


def _table(found: Iterable[LedgerEntry]) -> Table:
    rows: list[tuple[Any, ...]] = []
    for entry in found:
        rest = {key: value for key, value in entry.body.items() if key not in ("index", "kind", "at", "v")}
        shown = json.dumps(rest, ensure_ascii=False)
        at = entry.at.isoformat(timespec="seconds")
        rows.append(
            (entry.index, entry.kind, at, entry.leaf_hash[:16], shown if len(shown) <= _BODY else shown[:_BODY] + "…")
        )
    return Table("Ledger", ("index", "kind", "at", "leaf hash", "body"), rows, note="" if rows else "(none)")
