"""The one door to the database: engines, and the two kinds of transaction.

Invariants
- ``write()`` commits when its block ends normally and leaves nothing behind otherwise; the caller answers only after
  it.
- On SQLite a writer takes the write lock before its first read (``BEGIN IMMEDIATE``), so what it reads cannot change
  under it. On PostgreSQL writers lock rows by name (``SELECT … FOR UPDATE`` in the store modules).
- SQLite runs WAL with ``synchronous=FULL``: a commit survives power loss. ``recursive_triggers=ON`` makes
  ``INSERT OR REPLACE`` fire the append-only guards too.
- Driver errors leave a transaction as ``StorageError``; a violated constraint leaves as ``ConstraintError``.

This module does not: define tables, hold SQL of the domain, or retry.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import make_url

from governance.errors import ConstraintError, StorageError

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Connection = sa.Connection  # what the rest of governance names a transaction by, without knowing SQLAlchemy

_WRITE = "pysytff_write"  # execution option that marks a writer's connection
_BUSY_TIMEOUT_MS = 15_000


class Database:
    """One database, shared by all threads of a process. ``open`` with a SQLAlchemy URL; ``dispose`` when done."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._writer = engine.execution_options(**{_WRITE: True})
        self._reader = engine if self.is_sqlite else engine.execution_options(isolation_level="REPEATABLE READ")
        self._glance = engine if self.is_sqlite else engine.execution_options(isolation_level="AUTOCOMMIT")
        # SQLite's busy handler sleeps and polls, so writers of one process would starve one another by chance;
        # a lock in front of it hands the write lock over at once. Other processes still meet the busy handler.
        self._sqlite_writers = threading.Lock()

    @staticmethod
    def open(url: str) -> Database:
        """Opens ``sqlite:///file``, ``postgresql://…`` or ``postgresql+psycopg://…``.

        Raises ``StorageError`` for others.
        """
        try:
            parsed = make_url(url)
        except sa.exc.ArgumentError as error:
            raise StorageError("DATABASE_URL is not a database URL; use sqlite:///FILE or postgresql://…") from error
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.drivername == "sqlite":
            if parsed.database in (None, "", ":memory:"):
                raise StorageError("an in-memory SQLite database cannot keep a ledger; name a file: sqlite:///FILE")
            engine = sa.create_engine(
                parsed, connect_args={"timeout": _BUSY_TIMEOUT_MS / 1000, "check_same_thread": False}, pool_size=20
            )
            _prepare_sqlite(engine)
        elif parsed.drivername == "postgresql+psycopg":
            engine = sa.create_engine(
                parsed,
                isolation_level="READ COMMITTED",  # writers lock rows by name, and read again after each lock
                connect_args={"options": "-c synchronous_commit=on"},  # a debit survives power loss (rule 11)
                pool_pre_ping=True,
                pool_size=20,
                max_overflow=20,
                pool_timeout=10,
            )
        else:
            raise StorageError(f"{parsed.drivername!r} is not supported; use sqlite:///FILE or postgresql://…")
        return Database(engine)

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that writes; commits at the end of the block. Raises ``StorageError``."""
        if self.is_sqlite:
            with self._sqlite_writers, _translated(), self._writer.begin() as connection:
                yield connection
        else:
            with _translated(), self._writer.begin() as connection:
                yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that only reads, in one snapshot.

        Raises ``StorageError``.
        """
        with _translated(), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def glance(self) -> Iterator[sa.Connection]:
        """For one statement that only reads: on PostgreSQL two trips to the server fewer than ``read``.

        Raises ``StorageError``.
        """
        with _translated(), self._glance.connect() as connection:
            yield connection

    def dispose(self) -> None:
        self.engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sa.exc.IntegrityError as error:
        raise ConstraintError("the database refused the write: a constraint would be broken") from error
    except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
        raise StorageError("the database did not take the operation; nothing of it was kept") from error


def _prepare_sqlite(engine: sa.Engine) -> None:
    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves; the driver's implicit one is deferred
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={_BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "recursive_triggers=ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        immediate = connection.get_execution_options().get(_WRITE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
