"""The command ``pysytff-verify``: verifies an export of the ledger, offline.

Invariants
- It needs neither a database, nor TensorFlow, nor a network, and reads no settings.
- Exit status: 0 verified; 1 something was found; 2 it was called wrongly or a file could not be read.
"""

from __future__ import annotations

import gc
import io
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from governance.ledger import verify_show, verify_signatures
from governance.ledger.findings import Findings, plain
from governance.ledger.notes import MAX_NOTE_BYTES, NoteError, VerifierKey
from governance.ledger.verify import Known, Report, verify
from governance.ledger.verify_signatures import Kind, Signed

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

_LEDGER = typer.Argument(metavar="LEDGER", help="the export: JSON Lines, one entry a line, byte for byte")
_CHECKPOINT = typer.Option(
    "--checkpoint",
    metavar="FILE",
    help="a signed checkpoint of the log; may be repeated (the checkpoint of a key rotation, for example)",
)
_LOG_KEY = typer.Option(
    "--log-key", metavar="VKEY", help="the log's verifier key, from a source that you trust: name+id+base64"
)
_WITNESS_KEY = typer.Option(
    "--witness-key", metavar="VKEY", help="a witness that must have co-signed the newest checkpoint; may be repeated"
)
_PREVIOUS = typer.Option(
    "--previous",
    metavar="FILE",
    help="an export or checkpoint that you kept, or that a witness has: the ledger must continue it; may be repeated",
)
_UNSIGNED = typer.Option("--without-checkpoint", help="check the entries among themselves only; proves much less")
_FULL = typer.Option("--full-curves", help="compute every charged curve again with both computations; takes longer")
_JSON = typer.Option("--json", help="print the report as JSON")

_FILE_WIDTH = 120  # of a report that goes to a file or a pipe


class UnusableError(Exception):
    """A file that cannot be read or an argument that means nothing: exit status 2."""


@app.command()
def main(
    ledger: Annotated[Path, _LEDGER],
    checkpoint: Annotated[list[Path] | None, _CHECKPOINT] = None,
    log_key: Annotated[str | None, _LOG_KEY] = None,
    witness_key: Annotated[list[str] | None, _WITNESS_KEY] = None,
    previous: Annotated[list[Path] | None, _PREVIOUS] = None,
    without_checkpoint: Annotated[bool, _UNSIGNED] = False,
    full_curves: Annotated[bool, _FULL] = False,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Verifies an export of a PySyTFF ledger, offline.

    Checks that every entry is canonical, in its place and under the signed tree; that the log and the witnesses
    signed it; that every step follows from those before it and every publication was paid for; and computes again
    what every population has spent.

    Exit status: 0 verified, 1 something was found, 2 wrong usage or an unreadable file.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal that has no ε gets an escape, and nobody a traceback
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Entries are freed as they are read; the collector would only walk what stays, over and over.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    try:
        if not checkpoint and not without_checkpoint:
            raise UnusableError("give --checkpoint FILE, or --without-checkpoint to check the entries by themselves")
        if not checkpoint and (log_key or witness_key):
            raise UnusableError("--log-key and --witness-key are checked on a checkpoint: give --checkpoint FILE")
        report = _verified(
            ledger,
            checkpoint or [],
            None if log_key is None else _key("--log-key", log_key),
            [_key("--witness-key", one) for one in witness_key or []],
            previous or [],
            full_curves,
        )
    except UnusableError as error:
        typer.echo(f"pysytff-verify: {plain(str(error))}", err=True)
        raise typer.Exit(2) from error
    if as_json:
        typer.echo(json.dumps(verify_show.document(report), indent=2))
    else:
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=_FILE_WIDTH)
        verify_show.show(report, console)
    raise typer.Exit(0 if report.is_clean else 1)


def _verified(
    ledger: Path,
    checkpoints: list[Path],
    log_key: VerifierKey | None,
    witness_keys: list[VerifierKey],
    previous: list[Path],
    full_curves: bool,
) -> Report:
    findings = Findings()
    with ExitStack() as files:
        signed = [_signed(path, "checkpoint", findings) for path in checkpoints]
        earlier: BinaryIO | None = None
        for path in previous:
            if not _is_export(path):
                signed.append(_signed(path, "earlier", findings))
            elif earlier is None:
                earlier = files.enter_context(_opened(path))
            else:
                raise UnusableError("--previous: one earlier export is enough; the longest one")
        known = Known(
            checkpoints=[one for one in signed if one is not None],
            log_key=log_key,
            witness_keys=witness_keys,
            earlier_export=earlier,
            full_curves=full_curves,
            now=datetime.now(UTC),
        )
        file = files.enter_context(_opened(ledger))
        with _progress(os.fstat(file.fileno()).st_size) as progress:
            try:
                return verify(file, known, findings=findings, progress=progress)
            except OSError as error:
                raise UnusableError(f"{ledger} cannot be read to its end: {error.strerror}") from error


def _key(option: str, text: str) -> VerifierKey:
    try:
        return VerifierKey.parse(text.strip())
    except NoteError as error:
        raise UnusableError(f"{option}: {error}") from error


def _opened(path: Path) -> BinaryIO:
    try:
        file = path.open("rb", buffering=2**20)
    except OSError as error:
        raise UnusableError(f"{path} cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise UnusableError(f"{path} is not a regular file")
    return file


def _signed(path: Path, kind: Kind, findings: Findings) -> Signed | None:
    data = _start(path, MAX_NOTE_BYTES + 1)
    try:
        return verify_signatures.read(path.name, kind, data)
    except NoteError as error:
        findings.add("bad_checkpoint", None, f"{path.name} is not a checkpoint: {error}")
        return None


def _is_export(path: Path) -> bool:
    return _start(path, 1) == b"{"


def _start(path: Path, size: int) -> bytes:
    with _opened(path) as file:
        try:
            return file.read(size)
        except OSError as error:
            raise UnusableError(f"{path} cannot be read: {error.strerror}") from error


@contextmanager
def _progress(size: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, on a terminal only."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda read: None
        return
    columns = (TextColumn("verifying"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task("", total=size)
        yield lambda read: shown.update(task, completed=read)


if __name__ == "__main__":
    app(prog_name="pysytff-verify")
