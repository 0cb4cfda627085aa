"""Appends ledger entries and run events, and reads them.

Invariants
- Whoever appends holds the log head's row, so indexes are dense and in commit order. It is the last lock taken
  (order: population's balances, then run, then log head), so there is no deadlock.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from governance.ledger import chain
from governance.ledger.tables import ledger_entries, log_head, run_events
from governance.model import LedgerEntry, RunEvent, timestamp

_SUBJECTS = ("population_id", "project_id", "researcher_id", "dataset_id", "run_id")


def lock_head(connection: sa.Connection) -> int:
    """Locks the log's head for the rest of the transaction; returns the number of entries."""
    return int(connection.execute(sa.select(log_head.c.size).with_for_update()).scalar_one())


def size(connection: sa.Connection) -> int:
    return int(connection.execute(sa.select(log_head.c.size)).scalar_one())


def append(
    connection: sa.Connection, kind: str, at: datetime, facts: Mapping[str, Any], **subjects: str | None
) -> LedgerEntry:
    """Appends one entry and returns it. ``subjects``: population_id, project_id, researcher_id, dataset_id, run_id."""
    if unknown := set(subjects) - set(_SUBJECTS):
        raise ValueError(f"unknown subjects {sorted(unknown)}")
    index = lock_head(connection)
    named = {name: value for name, value in subjects.items() if value is not None}
    body = chain.entry_body(index, kind, at, named, facts)
    row: dict[str, Any] = {name: subjects.get(name) for name in _SUBJECTS}
    row |= {"index": index, "kind": kind, "at": timestamp(at), "body": body, "leaf_hash": chain.leaf_hash(body)}
    connection.execute(ledger_entries.insert(), row)
    connection.execute(log_head.update().values(size=index + 1))
    return _entry(row)


def select(
    connection: sa.Connection,
    *,
    populations: Collection[str] | None = None,
    researcher_id: str | None = None,
    population_id: str | None = None,
    run_id: str | None = None,
    kind: str | None = None,
    after: int = -1,
    limit: int = 100,
) -> list[LedgerEntry]:
    """Entries with index > ``after``, in order. ``populations`` None means every one; empty means none."""
    query = sa.select(ledger_entries).where(ledger_entries.c.index > after)
    if populations is not None:
        query = query.where(ledger_entries.c.population_id.in_(populations))
    for column, value in (("researcher_id", researcher_id), ("population_id", population_id), ("run_id", run_id)):
        if value is not None:
            query = query.where(ledger_entries.c[column] == value)
    if kind is not None:
        query = query.where(ledger_entries.c.kind == kind)
    rows = connection.execute(query.order_by(ledger_entries.c.index).limit(limit)).mappings()
    return [_entry(row) for row in rows]


def append_event(
    connection: sa.Connection, run_id: str, at: datetime, event_type: str, data: Mapping[str, Any]
) -> None:
    """Events get their number under the head's lock too, so a watcher that polls ``id > last`` misses none."""
    number = int(connection.execute(sa.select(log_head.c.events).with_for_update()).scalar_one()) + 1
    connection.execute(
        run_events.insert(),
        {"id": number, "run_id": run_id, "at": timestamp(at), "type": event_type, "data": json.dumps(dict(data))},
    )
    connection.execute(log_head.update().values(events=number))


def last_event(connection: sa.Connection) -> int:
    return int(connection.execute(sa.select(log_head.c.events)).scalar_one())


def select_events(connection: sa.Connection, *, after: int, limit: int, run_id: str | None = None) -> list[RunEvent]:
    query = sa.select(run_events).where(run_events.c.id > after)
    if run_id is not None:
        query = query.where(run_events.c.run_id == run_id)
    rows: Sequence[sa.RowMapping] = connection.execute(query.order_by(run_events.c.id).limit(limit)).mappings().all()
    return [
        RunEvent(row["id"], row["run_id"], datetime.fromisoformat(row["at"]), row["type"], json.loads(row["data"]))
        for row in rows
    ]


def _entry(row: Mapping[Any, Any]) -> LedgerEntry:
    return LedgerEntry(
        index=row["index"],
        kind=row["kind"],
        at=datetime.fromisoformat(row["at"]),
        body=bytes(row["body"]),
        leaf_hash=bytes(row["leaf_hash"]),
        population_id=row["population_id"],
        project_id=row["project_id"],
        researcher_id=row["researcher_id"],
        dataset_id=row["dataset_id"],
        run_id=row["run_id"],
    )
