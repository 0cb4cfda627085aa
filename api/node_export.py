"""Writes the ledger of a node on disk as JSON Lines, with its checkpoints beside it: for an auditor, without the API.

Invariants
- Each file is written whole or not at all. The export ends where the checkpoint does; without one it has all entries.

This module does not: print, or verify what it writes (``pysytff-verify`` does).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from api import node
from api.errors import NodeError
from api.settings import Settings
from governance import log_keeper
from governance.audit.reader import Audit
from governance.ledger.database import Database
from governance.ledger.entry_search import Wanted
from governance.ledger.notes import Checkpoint, NoteError
from governance.log_files import write_whole
from governance.model import Principal, Role

EXPORT, CHECKPOINT = "ledger.jsonl", "ledger.jsonl.checkpoint"
_OPERATOR = Principal("operator", Role.ADMIN)


@dataclass(frozen=True, slots=True)
class NodeExport:
    file: Path
    checkpoint: Path | None  # None: nothing was signed yet
    size: int
    unsigned: int  # newer entries, left out
    rotations: tuple[Path, ...]  # the checkpoint of each change of the log's key


def export(settings: Settings, folder: Path) -> NodeExport:
    """Into ``folder``, which is made if it is not there. Raises ``NodeError`` and domain errors."""
    node.require(settings)
    try:
        note = log_keeper.read_checkpoint(settings.ledger_dir)
        signed = None if note is None else Checkpoint.parse_text(note.text).size
    except (NoteError, OSError) as error:
        raise NodeError(f"the checkpoint in {settings.ledger_dir} cannot be read: {error}") from error
    database = Database.open(settings.database_url)
    try:
        made = Audit(database).export(_OPERATOR, "jsonl", Wanted())
        folder.mkdir(parents=True, exist_ok=True)
        size = made.size if signed is None else min(signed, made.size)
        _write(folder / EXPORT, islice(_lines(made.parts), size))
        if note is not None:
            write_whole(folder / CHECKPOINT, note.encode().encode())
        rotations = tuple(_rotations(settings.ledger_dir / log_keeper.ROTATIONS, folder, size))
    except OSError as error:
        raise NodeError(f"the export cannot be written to {folder}: {error.strerror or error}") from error
    finally:
        database.dispose()
    checkpoint = None if note is None else folder / CHECKPOINT
    return NodeExport(folder / EXPORT, checkpoint, size, made.size - size, rotations)


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Entries are whole within a part."""
    for part in parts:
        yield from part.splitlines(keepends=True)


def _rotations(kept: Path, folder: Path, size: int) -> Iterator[Path]:
    """Copies what whoever trusts an older key needs, as far as the export goes."""
    if not kept.is_dir():
        return
    for index in sorted(int(one.name) for one in kept.iterdir() if one.name.isdecimal()):
        if index < size:
            copy = folder / f"{EXPORT}.rotation-{index}"
            write_whole(copy, (kept / str(index)).read_bytes())
            yield copy


def _write(path: Path, parts: Iterable[bytes]) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink()
        raise
