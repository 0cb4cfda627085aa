"""The commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from pysytff._version import __version__
from pysytff.cli import ledger, runs, session, training
from pysytff.cli.output import AsJson, errors_explained, show

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
app.add_typer(ledger.app, name="ledger")


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


def main() -> None:
    app()
