"""Compares every stored row that is derived from entries with what the entries say: who changed a row, is found.

The entries themselves are checked against the mirror and the signed tree (``governance/log_keeper.py``); here they are
believed, and the tables beside them are not.

Invariants
- Reads only, in one snapshot. Every difference names its table, its row and what is wrong.
- Rows without an entry and entries without a row are differences too, but for the result of a run that was published
  after the backup that was restored: the ledger has its digests, and no entry can bring it back.

This module does not: mend anything. A changed row is mended by restoring a backup and reconciling.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from accountant.errors import AccountantError
from governance.ledger import tree_store
from governance.ledger.database import metadata
from governance.ledger.derived_said import RESERVATION_STATES as RESERVATION_STATES
from governance.ledger.derived_said import Rows, Said, statement_digest
from governance.ledger.entries import head
from governance.ledger.entry_reader import EntryReader
from governance.ledger.findings import BadEntryError
from governance.ledger.recovery import RESTORED
from governance.ledger.replay import replay
from governance.ledger.tables import results, runs


@dataclass(frozen=True, slots=True)
class Difference:
    table: str
    row: str
    what: str


def differences(connection: sa.Connection) -> Iterator[Difference]:
    """Every difference, table by table."""
    said, unread = Said(), list[Difference]()
    folded = replay(_read(connection, said, unread))
    yield from unread
    said.finish(folded)
    kept = sa.select(results.c.run_id)
    lost = sa.select(runs.c.id).where(runs.c.state_reason == RESTORED, runs.c.id.not_in(kept))
    for run_id in connection.execute(lost).scalars():
        if said.published.get(run_id, said.recovered_before) < said.recovered_before:
            del said.rows["results"][(run_id,)]
    for name, expected in said.rows.items():
        yield from _compare(connection, metadata.tables[name], expected)


def _read(connection: sa.Connection, said: Said, unread: list[Difference]) -> Iterator[bytes]:
    reader = EntryReader()
    for row in tree_store.rows(connection, 0, head(connection).size):
        try:
            said.read(reader.read(row.body))
        except (BadEntryError, AccountantError, KeyError, TypeError, ValueError) as error:
            what = str(error) if isinstance(error, BadEntryError) else "its facts are not those of its kind"
            unread.append(Difference("ledger_entries", str(row.index), what))
        yield row.body


def _compare(connection: sa.Connection, table: sa.Table, expected: Rows) -> Iterator[Difference]:
    left, keys = dict(expected), [column.name for column in table.primary_key.columns]
    for row in connection.execute(sa.select(table)).mappings():
        key = tuple(row[column] for column in keys)
        wanted = left.pop(key, None)
        label = " ".join(map(str, key))
        if wanted is None:
            if not _untouched(table.name, row):
                yield Difference(table.name, label, "no entry tells of this row")
            continue
        stored = _stored(table.name, row)
        for column, value in wanted.items():
            if not _fits(value, stored[column]):
                yield Difference(table.name, label, f"{column} is not what the entries say")
    for key in left:
        yield Difference(table.name, " ".join(map(str, key)), "the row is missing")


def _fits(wanted: Any, stored: Any) -> bool:
    if not callable(wanted):
        return bool(wanted == stored)
    try:
        return bool(wanted(stored))
    except (AccountantError, KeyError, TypeError, ValueError, RecursionError):
        return False  # whatever somebody put there


def _untouched(name: str, row: Mapping[Any, Any]) -> bool:
    """A population's balance exists from its opening on; the replay knows it from the first amount on."""
    return name == "balances" and not any(row["committed"]) and not any(row["debited"])


def _stored(name: str, row: Mapping[Any, Any]) -> dict[str, Any]:
    stored = {column: bytes(value) if isinstance(value, memoryview) else value for column, value in row.items()}
    if name == "results":
        stored["statement_sha256"] = statement_digest(row["privacy_statement"])
    return stored
