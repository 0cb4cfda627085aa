"""Appends ledger entries and run events, and reads them.

Invariants
- Whoever appends holds the log head's row, so indexes are dense and in commit order. It is the last lock taken
  (order: population's balances, then run, then log head), so there is no deadlock.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from governance.ledger import chain
from governance.ledger.tables import ledger_entries, log_head, run_events
from governance.model import LedgerEntry, RunEvent, timestamp

_LOCK_HEAD = sa.select(log_head.c.size, log_head.c.events, log_head.c.fencing).with_for_update()
_SIZE = sa.select(log_head.c.size)
_INSERT_ENTRY = ledger_entries.insert()
_INSERT_EVENT = run_events.insert()
_STORE_HEAD = log_head.update().values(
    size=sa.bindparam("new_size"), events=sa.bindparam("new_events"), fencing=sa.bindparam("new_fencing")
)
_SUBJECTS = ("population_id", "project_id", "researcher_id", "dataset_id", "run_id")


class Log:
    """The log's head, locked until the transaction ends; entries, events and fencing tokens are numbered from it."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        row = connection.execute(_LOCK_HEAD).one()
        self._locked = self._head = (int(row[0]), int(row[1]), int(row[2]))

    def append(self, kind: str, at: datetime, facts: Mapping[str, Any], **subjects: str | None) -> LedgerEntry:
        """Appends one entry. ``subjects``: population_id, project_id, researcher_id, dataset_id, run_id."""
        if unknown := set(subjects) - set(_SUBJECTS):
            raise ValueError(f"unknown subjects {sorted(unknown)}")
        index, events, fencing = self._head
        named = {name: value for name, value in subjects.items() if value is not None}
        moment = timestamp(at)
        body = chain.entry_body(index, kind, moment, named, facts)
        row: dict[str, Any] = {name: subjects.get(name) for name in _SUBJECTS}
        row |= {"index": index, "kind": kind, "at": moment, "body": body, "leaf_hash": chain.leaf_hash(body)}
        self._connection.execute(_INSERT_ENTRY, row)
        self._head = (index + 1, events, fencing)
        return _entry(row)

    def event(self, run_id: str, at: datetime, event_type: str, data: Mapping[str, Any]) -> None:
        """Something for the run's watchers. A watcher that polls ``id > last`` misses none: ids are in commit order."""
        size, events, fencing = self._head
        row = {"id": events + 1, "run_id": run_id, "at": timestamp(at), "type": event_type}
        self._connection.execute(_INSERT_EVENT, row | {"data": json.dumps(dict(data))})
        self._head = (size, events + 1, fencing)

    def fencing_token(self) -> int:
        """Strictly increasing over all grants, for ever."""
        size, events, fencing = self._head
        self._head = (size, events, fencing + 1)
        return fencing + 1

    def store(self) -> None:
        if self._head != self._locked:
            size, events, fencing = self._head
            self._connection.execute(_STORE_HEAD, {"new_size": size, "new_events": events, "new_fencing": fencing})
            self._locked = self._head


@contextmanager
def locked(connection: sa.Connection) -> Iterator[Log]:
    """Locks the log's head, and stores it when the block ends normally."""
    log = Log(connection)
    yield log
    log.store()


def append(
    connection: sa.Connection, kind: str, at: datetime, facts: Mapping[str, Any], **subjects: str | None
) -> LedgerEntry:
    """Appends one entry where nothing else is numbered in the same transaction."""
    with locked(connection) as log:
        return log.append(kind, at, facts, **subjects)


def size(connection: sa.Connection) -> int:
    return int(connection.execute(_SIZE).scalar_one())


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
