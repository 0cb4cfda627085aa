"""The commands, put together."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from pysytff._version import __version__
from pysytff.cli import runs, session, training
from pysytff.cli.output import AsJson, errors_explained, show
from pysytff.display import Table
from pysytff.models import LedgerEntry

_BODY = 200  # characters of an entry that the table shows; --json shows all

app = typer.Typer(
    name="pysytff",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals hold tokens
    help="Governed, private federated training: find datasets, ask for training, get models.",
    epilog="Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 not logged in, 5 still running, 130 Ctrl-C.",
)
app.command()(session.login)
app.command()(session.logout)
app.command()(session.whoami)
app.command()(training.preview)
app.command()(training.train)
app.add_typer(runs.app, name="runs")


def _show_version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Options of the program itself."""


@app.command()
def datasets(
    name: Annotated[str | None, typer.Argument(help="Name or id of one dataset, to see its assets.")] = None,
    as_json: AsJson = False,
) -> None:
    """List datasets, or show one with the ids of its assets. Metadata only: no data leaves the node."""
    with errors_explained(as_json=as_json):
        listing = session.current().datasets
        show(listing if name is None else listing[name], as_json=as_json)


@app.command()
def budget(
    population: Annotated[
        str | None, typer.Argument(help="Name or id of a population; all that you see if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the guarantee and the odometer readings of populations and quotas."""
    with errors_explained(as_json=as_json):
        show(session.current().budget(population), as_json=as_json)


@app.command()
def ledger(
    population: Annotated[str | None, typer.Option(help="Only entries of this population (id).")] = None,
    run: Annotated[str | None, typer.Option(help="Only entries of this run (id).")] = None,
    kind: Annotated[str | None, typer.Option(help="Only entries of this kind.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many entries.", min=1)] = 100,
    as_json: AsJson = False,
) -> None:
    """Show the ledger's entries that you may see."""
    with errors_explained(as_json=as_json):
        entries = session.current().ledger(population_id=population, run_id=run, kind=kind, limit=limit)
        found = list(entries)
        show(found if as_json else _entries(found), as_json=as_json)


def _entries(entries: Iterable[LedgerEntry]) -> Table:
    rows: list[tuple[Any, ...]] = []
    for entry in entries:
        rest = {key: value for key, value in entry.body.items() if key not in ("index", "kind", "at", "v")}
        shown = json.dumps(rest, ensure_ascii=False)
        at = entry.at.isoformat(timespec="seconds")
        rows.append(
            (entry.index, entry.kind, at, entry.leaf_hash[:16], shown if len(shown) <= _BODY else shown[:_BODY] + "…")
        )
    return Table("Ledger", ("index", "kind", "at", "leaf hash", "body"), rows, note="" if rows else "(none)")


def main() -> None:
    app()
