"""runs list | show | watch | cancel | result | statement."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pysytff.cli.output import AsJson, errors_explained, show
from pysytff.cli.session import current
from pysytff.cli.training import write_result
from pysytff.errors import RunEndedError
from pysytff.ledger import written_whole

app = typer.Typer(no_args_is_help=True, help="List, show, watch and cancel runs, and fetch their results.")
RunId = Annotated[str, typer.Argument(help="The run's id, as `pysytff runs list` shows it.")]


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help="Only runs in this state.")] = None,
    as_json: AsJson = False,
) -> None:
    """List your runs."""
    with errors_explained(as_json=as_json):
        runs = current().runs_in(state)
        show([run.info for run in runs] if as_json else runs, as_json=as_json)


@app.command("show")
def show_(run_id: RunId, as_json: AsJson = False) -> None:
    """Show a run, and the decision behind it."""
    with errors_explained(as_json=as_json):
        run = current().runs[run_id]
        show(run.info if as_json else run, as_json=as_json)
        if not as_json:
            show(run.decision, as_json=False)


@app.command()
def watch(
    run_id: RunId,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait at most; the run goes on.", min=0.001)] = None,
    as_json: AsJson = False,
) -> None:
    """Wait for the end of a run. Ends with 1 if it has no result, with 5 if it still runs when the time is over."""
    with errors_explained(as_json=as_json):
        run = current().runs[run_id].watch(timeout, progress=not as_json)
        info = run.info
        show(info if as_json else run, as_json=as_json)
        if info.state != "published":
            raise RunEndedError(run_id, info.state, info.state_reason)


@app.command()
def cancel(run_id: RunId, as_json: AsJson = False) -> None:
    """Cancel a run. What was debited stays debited; the rest is released."""
    with errors_explained(as_json=as_json):
        run = current().runs[run_id].cancel()
        show(run.info if as_json else run, as_json=as_json)


@app.command()
def statement(
    run_id: RunId,
    html: Annotated[Path | None, typer.Option(help="Write the page for people here (HTML).")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a model's privacy statement, as an ε registry and as checks, and whether the ledger confirms it."""
    with errors_explained(as_json=as_json):
        run = current().runs[run_id]
        found = run.statement
        if html is not None:
            with written_whole(html) as write:
                write(run.statement_page().encode())
        show(found, as_json=as_json)
        if not found.confirmed:
            raise typer.Exit(1)


@app.command()
def result(
    run_id: RunId,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the weights here (safetensors).")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a run's metrics and privacy statement, and write its weights."""
    with errors_explained(as_json=as_json):
        write_result(current().runs[run_id].result(), output, as_json=as_json)
