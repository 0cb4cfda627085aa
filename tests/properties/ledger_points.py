"""Stops one operation at any point where a process can die: before each SQL statement, before and after each commit.

Invariants
- A crash drops the connection without a rollback of ours, as the end of a process does; only what was committed stays.
- ``SimulatedCrash`` is no ``Exception``: nothing in the product can mistake it for a failure that it handles.

This module does not: know what an operation is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from governance.ledger.database import Database


class SimulatedCrash(BaseException):
    """The process ended here."""


BEFORE_COMMIT, AFTER_COMMIT = -1, -2  # of the first transaction; other points are counted from 0
At = Callable[[sa.Connection | None], None]


@dataclass
class Points:
    """How many points were passed, and how many transactions were committed."""

    seen: int = 0
    commits: int = 0


def crash(connection: sa.Connection | None) -> None:
    if connection is not None:
        connection.invalidate()
    raise SimulatedCrash


@contextmanager
def points(database: Database, at: int | None = None, then: At = crash) -> Iterator[Points]:
    """Does ``then`` when point ``at`` is reached; ``then`` gets the connection if a transaction is open."""
    engine, passed = database.engine, Points()
    commit = engine.dialect.do_commit

    def pass_one(connection: sa.Connection | None, alias: int | None = None) -> None:
        number, passed.seen = passed.seen, passed.seen + 1
        if at is not None and at in (number, alias):
            then(connection)

    def before_statement(connection: sa.Connection, *_: Any) -> None:
        pass_one(connection)

    def committing(dbapi_connection: Any) -> None:
        commit(dbapi_connection)
        passed.commits += 1
        pass_one(None, AFTER_COMMIT if passed.commits == 1 else None)

    def before_commit(connection: sa.Connection) -> None:
        pass_one(connection, None if passed.commits else BEFORE_COMMIT)

    event.listen(engine, "before_cursor_execute", before_statement)
    event.listen(engine, "commit", before_commit)
    engine.dialect.do_commit = committing  # type: ignore[method-assign]
    try:
        yield passed
    finally:
        del engine.dialect.do_commit  # the class's own again
        event.remove(engine, "before_cursor_execute", before_statement)
        event.remove(engine, "commit", before_commit)
