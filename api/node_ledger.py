"""What an operator does with the ledger of a node on disk: look at its state, check its rows, reconcile it.

This module does not: know HTTP, or print.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from api import node
from api.errors import NodeError
from api.node_reconcile import reconciled
from api.settings import Settings
from governance import log_keeper, log_keys
from governance.ledger import derived, entries, recovery, run_store
from governance.ledger.database import Database
from governance.ledger.derived import Difference
from governance.ledger.notes import Checkpoint, NoteError
from governance.reconciliation import Reconciled


@dataclass(frozen=True, slots=True)
class LedgerState:
    key: str | None  # in force: what witnesses and auditors are given; None before the first
    size: int
    closed: str | None  # why
    signed: int | None  # size of the last checkpoint
    reported: tuple[str, ...]  # runners, since the ledger closed
    missing: tuple[str, ...]


def state(settings: Settings) -> LedgerState:
    """Raises ``NodeError`` and domain errors."""
    with _opened(settings) as database, database.read() as connection:
        head = entries.head(connection)
        reported = set(run_store.reports(connection))
        keys = log_keys.enrolled(connection)
        missing = recovery.runners_in_service(connection) - reported
    try:
        note = log_keeper.read_checkpoint(settings.ledger_dir)
        signed = None if note is None else Checkpoint.parse_text(note.text).size
    except (NoteError, OSError) as error:
        raise NodeError(f"the checkpoint in {settings.ledger_dir} cannot be read: {error}") from error
    key = keys[-1].key.encode() if keys else None
    return LedgerState(key, head.size, head.closed, signed, tuple(sorted(reported)), tuple(sorted(missing)))


def check(settings: Settings) -> list[Difference]:
    """Rows beside the entries that are not what the entries say."""
    with _opened(settings) as database, database.read() as connection:
        return list(derived.differences(connection))


def reconcile_with(
    settings: Settings,
    files: Mapping[str, Path],
    unreachable: Sequence[str],
    *,
    without_witnesses: Sequence[str] = (),
    mirror_lost: bool = False,
) -> Reconciled:
    """``files``: runner id -> what ``python -m runner report`` wrote. Raises ``UnreconciledError``, ``NodeError``."""
    with _opened(settings) as database:
        return reconciled(
            settings,
            database,
            files,
            unreachable,
            without_witnesses=without_witnesses,
            mirror_lost=mirror_lost,
        )


@contextmanager
def _opened(settings: Settings) -> Iterator[Database]:
    node.require(settings)
    database = Database.open(settings.database_url)
    try:
        yield database
    finally:
        database.dispose()
