"""``pysytff-server ledger``: what operators do with the log.

This module does not: do the work (``node.py``, ``node_ledger.py``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.cli_common import DataDir, Url, ask_password, err, load_settings, out, plain

ledger = typer.Typer(help="The log of this node: its keys and its state.", no_args_is_help=True)


@ledger.command("rotate-key")
def rotate_key(data_dir: DataDir = None) -> None:
    """Give the log a new signing key. Both sign the next checkpoint; after that the old one is destroyed."""
    from api import node

    found = node.rotate_log_key(load_settings(data_dir))
    out.print(f"in force from entry {found.index} on:\n  {plain(found.key.encode())}")
    out.print("Witnesses must learn it: pysytff-witness trust KEY. Auditors follow it from the old one by themselves.")


@ledger.command("status")
def status(data_dir: DataDir = None) -> None:
    """The log's key, and whether the ledger is open; if not, why, and which runners have reported since."""
    from api import node_ledger

    found = node_ledger.state(load_settings(data_dir))
    signed = "none yet" if found.signed is None else f"{found.signed} entries"
    out.print(f"key: {plain(found.key or 'none yet')}")
    out.print(f"entries: {found.size}; last checkpoint: {signed}")
    if found.closed is None:
        out.print("open")
        return
    out.print(f"CLOSED: {found.closed}. Nothing is admitted or debited.")
    out.print(f"runners that have reported: {', '.join(found.reported) or 'none'}")
    out.print(f"runners that have not:      {', '.join(found.missing) or 'none'}")
    out.print("When nothing more can come, open it again with: pysytff-server ledger reconcile")


@ledger.command("check")
def check(data_dir: DataDir = None) -> None:
    """Compare every balance, reservation, debit, quota and result with the entries. Exit status 1: some differ."""
    from api import node_ledger

    found = node_ledger.check(load_settings(data_dir))
    for one in found:
        out.print(plain(f"{one.table} {one.row}: {one.what}"))
    if found:
        err.print(f"{len(found)} rows were changed; restore a backup of the database from before, then reconcile")
        raise typer.Exit(1)
    out.print("every row is what the entries say")


@ledger.command("export")
def export(
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="write ledger.jsonl and its checkpoint here")],
    data_dir: DataDir = None,
) -> None:
    """Write the whole ledger and the last checkpoint, for pysytff-verify. The node may be running."""
    from api import node_export

    made = node_export.export(load_settings(data_dir), out_dir)
    signed = "the node has signed no checkpoint yet" if made.checkpoint is None else str(made.checkpoint)
    out.print(f"{plain(str(made.file))}: {made.size} entries\n{plain(signed)}")
    for rotation in made.rotations:
        out.print(f"{plain(str(rotation))}: a further --checkpoint, for the log's key has changed")
    if made.unsigned:
        out.print(f"{made.unsigned} newer entries are not signed yet, and left out")


@ledger.command("reconcile")
def reconcile(
    report: Annotated[
        list[str] | None,
        typer.Option("--report", metavar="RUNNER=FILE", help="a runner's journal, from: python -m runner report"),
    ] = None,
    unreachable: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUNNER",
            help="its journal is lost for good: every run that it may have had, queued ones too, is spent in full",
        ),
    ] = None,
    without_witness: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="a witness that cannot be asked any more")
    ] = None,
    mirror_lost: Annotated[
        bool,
        typer.Option("--mirror-lost", help="the log's folder is lost for good: only a witness can still tell"),
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Open a closed ledger again: what the database lost comes back from the mirror and from the runners' journals.

    Nothing happens unless all of it can. Runners in service report by themselves, within a minute, once the node is up.
    """
    from api import node_ledger

    files = _files(report or [])
    done = node_ledger.reconcile_with(
        load_settings(data_dir),
        files,
        unreachable or [],
        without_witnesses=without_witness or [],
        mirror_lost=mirror_lost,
    )
    out.print(f"the database had {done.stored} entries; {done.recovered} came back from the mirror")
    for run_id, rounds in done.debited:
        out.print(f"  {run_id}: {rounds} rounds debited that a runner had run")
    for run_id in done.quarantined:
        out.print(f"  {run_id}: quarantined; resolve it with evidence, or leave it")
    for run_id in done.released:
        out.print(f"  {run_id}: released, its request is lost; its researcher asks again")
    for run_id in done.results_lost:
        out.print(f"  {run_id}: published; its metrics and statement were in the lost rows and do not come back")
    if done.policies_lost:
        out.print("A policy's activation came back without its Rego: activate the policies again.")
    for dataset_id in done.datasets_lost:
        out.print(f"{dataset_id} came back without its columns: its owner registers the data again.")
    out.print("The ledger is open.")


@ledger.command("resolve")
def resolve(
    run: Annotated[str, typer.Argument(metavar="RUN", help="id of a run that is in quarantine")],
    kind: Annotated[str, typer.Option(help="host_lost, power_loss, process_killed, network_lost or operator_stopped")],
    statement: Annotated[str, typer.Option(help="what happened, when, and how you know")],
    email: Annotated[str, typer.Option("--email", help="an admin's e-mail; the password is asked for", prompt=True)],
    url: Url = None,
) -> None:
    """Give back the undebited rounds of a quarantined run, on evidence that nothing private decided its end.

    What was debited stays spent. A crash that may depend on somebody's data is no evidence: such a run stays held.
    """
    from api import owner

    with owner.Session(url or load_settings().own_url, email, ask_password(email)) as session:
        found = session.resolve(run, kind, statement)
    debited, rounds = found["rounds_debited"], found["rounds"]
    out.print(f"{plain(run)}: {debited} of {rounds} rounds stay spent, {rounds - debited} were given back")


def _files(named: list[str]) -> dict[str, Path]:
    found = {}
    for one in named:
        runner_id, sign, path = one.partition("=")
        if not (runner_id and sign and path):
            raise typer.BadParameter(f"{one!r} is not RUNNER=FILE", param_hint="--report")
        found[runner_id] = Path(path)
    return found
