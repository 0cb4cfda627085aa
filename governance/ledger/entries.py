"""Appends ledger entries and run events, and reads them.

Invariants
- Whoever appends holds the log head's row, so indexes are dense and in commit order. It is the last lock taken
  (order: population's balances, then run, then log head), so there is no deadlock.
- The Merkle tree grows in the same transaction: each entry's row keeps the hashes of the subtrees that it completes,
  the head keeps the frontier.
- Nothing is appended to a closed ledger: every transaction that would raises ``LedgerClosedError``. Only the
  reconciliation appends (``even_if_closed``), and opens it again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from governance.errors import LedgerClosedError, StorageError
from governance.ledger import chain
from governance.ledger.merkle import Frontier
from governance.ledger.tables import ledger_entries, log_head, run_events, runner_reports
from governance.model import LedgerEntry, RunEvent, timestamp

_HEAD = sa.select(log_head.c.size, log_head.c.events, log_head.c.fencing, log_head.c.frontier, log_head.c.closed)
_LOCK_HEAD = _HEAD.with_for_update()
_SIZE = sa.select(log_head.c.size)
_BODY = sa.select(ledger_entries.c.body).where(ledger_entries.c.index == sa.bindparam("at"))
_INSERT_ENTRY = ledger_entries.insert()
_INSERT_EVENT = run_events.insert()
_STORE_HEAD = log_head.update().values(
    size=sa.bindparam("new_size"),
    events=sa.bindparam("new_events"),
    fencing=sa.bindparam("new_fencing"),
    frontier=sa.bindparam("new_frontier"),
    closed=sa.bindparam("new_closed"),
)
_SUBJECTS = chain.SUBJECTS


@dataclass(frozen=True, slots=True)
class Head:
    frontier: Frontier
    events: int
    fencing: int
    closed: str | None

    @property
    def size(self) -> int:
        return self.frontier.size


class Log:
    """The log's head, locked until the transaction ends; entries, events and fencing tokens are numbered from it."""

    def __init__(self, connection: sa.Connection, *, even_if_closed: bool = False) -> None:
        """Raises ``LedgerClosedError``, ``StorageError`` where the stored tree is damaged."""
        self._connection = connection
        self._locked = self._head = _head(connection, _LOCK_HEAD)
        if not even_if_closed:
            require_open(self._head)

    @property
    def head(self) -> Head:
        return self._head

    def append(self, kind: str, at: datetime, facts: Mapping[str, Any], **subjects: str | None) -> LedgerEntry:
        """Appends one entry. ``subjects``: population_id, project_id, researcher_id, dataset_id, run_id."""
        if unknown := set(subjects) - set(_SUBJECTS):
            raise ValueError(f"unknown subjects {sorted(unknown)}")
        named = {name: value for name, value in subjects.items() if value is not None}
        moment = timestamp(at)
        return self._insert(kind, moment, chain.entry_body(self._head.size, kind, moment, named, facts), named)

    def restore(self, body: bytes) -> LedgerEntry:
        """Appends an entry that was lost, byte for byte. Raises ``ValueError`` if it is not the next one."""
        entry = json.loads(body)
        if entry["index"] != self._head.size:
            raise ValueError(f"entry {entry['index']} cannot be restored as entry {self._head.size}")
        return self._insert(entry["kind"], entry["at"], body, entry["subjects"])

    def _insert(self, kind: str, moment: str, body: bytes, subjects: Mapping[str, str]) -> LedgerEntry:
        row: dict[str, Any] = {name: subjects.get(name) for name in _SUBJECTS}
        row |= {"index": self._head.size, "kind": kind, "at": moment, "body": body, "leaf_hash": chain.leaf_hash(body)}
        frontier, completed = self._head.frontier.append(row["leaf_hash"])
        self._connection.execute(_INSERT_ENTRY, row | {"subtrees": b"".join(completed)})
        self._head = replace(self._head, frontier=frontier)
        return _entry(row)

    def event(self, run_id: str, at: datetime, event_type: str, data: Mapping[str, Any]) -> None:
        """Something for the run's watchers. A watcher that polls ``id > last`` misses none: ids are in commit order."""
        row = {"id": self._head.events + 1, "run_id": run_id, "at": timestamp(at), "type": event_type}
        self._connection.execute(_INSERT_EVENT, row | {"data": json.dumps(dict(data))})
        self._head = replace(self._head, events=self._head.events + 1)

    def fencing_token(self) -> int:
        """Strictly increasing over all grants, for ever."""
        self._head = replace(self._head, fencing=self._head.fencing + 1)
        return self._head.fencing

    def fence_beyond(self, token: int) -> None:
        """No token up to ``token`` is handed out any more: after a restore some of them may have been."""
        self._head = replace(self._head, fencing=max(self._head.fencing, token))

    def close(self, reason: str) -> None:
        self._head = replace(self._head, closed=reason)

    def reopen(self) -> None:
        self._head = replace(self._head, closed=None)

    def store(self) -> None:
        if self._head != self._locked:
            head = self._head
            self._connection.execute(
                _STORE_HEAD,
                {
                    "new_size": head.size,
                    "new_events": head.events,
                    "new_fencing": head.fencing,
                    "new_frontier": head.frontier.encode(),
                    "new_closed": head.closed,
                },
            )
            self._locked = self._head


@contextmanager
def locked(connection: sa.Connection) -> Iterator[Log]:
    """Locks the log's head, and stores it when the block ends normally. Raises ``LedgerClosedError``."""
    log = Log(connection)
    yield log
    log.store()


def require_open(found: Head) -> None:
    """Raises ``LedgerClosedError``."""
    if found.closed is not None:
        raise LedgerClosedError(
            "the ledger is closed until its operator has reconciled it (pysytff-server ledger reconcile); "
            "nothing is admitted or debited meanwhile",
            reason=found.closed,
        )


def head(connection: sa.Connection) -> Head:
    """The log's head, without a lock."""
    return _head(connection, _HEAD)


def close(connection: sa.Connection, reason: str) -> bool:
    """Closes the ledger until it is reconciled; False if it was closed already. ``reason`` is a code, for operators.

    Runners' reports of earlier times go: they say nothing about what was lost since.
    """
    log = Log(connection, even_if_closed=True)
    if log.head.closed is not None:
        return False
    log.close(reason)
    log.store()
    connection.execute(runner_reports.delete())
    return True


def _head(connection: sa.Connection, query: sa.Select[Any]) -> Head:
    size, events, fencing, frontier, closed = connection.execute(query).one()
    try:
        return Head(Frontier.decode(int(size), bytes(frontier)), int(events), int(fencing), closed)
    except ValueError as error:
        raise StorageError("the log's stored head is damaged; nothing is appended to it") from error


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


def body_at(connection: sa.Connection, index: int) -> bytes:
    return bytes(connection.execute(_BODY, {"at": index}).scalar_one())


def select_all(connection: sa.Connection, *, kind: str) -> list[LedgerEntry]:
    """Every entry of a rare kind."""
    query = sa.select(ledger_entries).where(ledger_entries.c.kind == kind).order_by(ledger_entries.c.index)
    return [_entry(row) for row in connection.execute(query).mappings()]


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
