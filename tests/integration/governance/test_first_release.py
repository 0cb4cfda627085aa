"""A ledger that the first release wrote: still verified as it is, and byte for byte the same after the migrations."""

from __future__ import annotations

import io
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from governance.ledger import derived, entries, merkle, vectors
from governance.ledger.chain import leaf_hash
from governance.ledger.database import Database
from governance.ledger.entry_reader import EntryReader
from governance.ledger.merkle import Frontier
from governance.ledger.replay import replay
from governance.ledger.tables import balances, ledger_entries, reservations, run_datasets
from governance.ledger.tables import debits as debits_table
from governance.ledger.tree_store import StoredNodes
from governance.ledger.verify import Known, verify
from migrations import run as migrations

DUMP = Path(__file__).resolve().parents[2] / "fixtures" / "ledger_release_1.sql"
RELEASE = "0002_identity"
Row = dict[str, object]


@pytest.fixture(scope="module")
def first_release() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.executescript(DUMP.read_text(encoding="utf-8"))
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def bodies(first_release: sqlite3.Connection) -> list[bytes]:
    rows = first_release.execute('SELECT body FROM ledger_entries ORDER BY "index"')
    return [bytes(body) for (body,) in rows]


def on_sqlite(folder: Path) -> str:
    file = folder / "first-release.sqlite3"
    connection = sqlite3.connect(file)
    connection.executescript(DUMP.read_text(encoding="utf-8"))
    connection.close()
    return f"sqlite:///{file}"


def on_postgres(url: str, source: sqlite3.Connection) -> None:
    """The first release's schema in an empty database, with the dump's rows."""
    migrations.upgrade(url, RELEASE)
    database = Database.open(url)
    try:
        with database.write() as connection:
            schema = sa.MetaData()
            schema.reflect(connection)
            for table in schema.sorted_tables:
                rows = [] if table.name == "alembic_version" else _rows(source, table)
                if table.name == "log_head":  # the migration made its one row
                    connection.execute(table.update().values(rows[0]))
                elif rows:
                    connection.execute(table.insert(), rows)
    finally:
        database.dispose()


def _rows(source: sqlite3.Connection, table: sa.Table) -> list[Row]:
    """SQLite has no booleans."""
    cursor = source.execute(f'SELECT * FROM "{table.name}"')
    names = [column[0] for column in cursor.description]
    booleans = {column.name for column in table.columns if isinstance(column.type, sa.Boolean)}
    return [
        {name: bool(value) if name in booleans else value for name, value in zip(names, row, strict=True)}
        for row in cursor
    ]


@pytest.fixture
def empty_postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database without any table. The server is asked for here, so that tests on SQLite do not start one."""
    server: str = request.getfixturevalue("postgres_server")
    name = f"first_release_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield server.replace("/postgres?", f"/{name}?", 1)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgres"])
def migrated(request: pytest.FixtureRequest, tmp_path: Path, first_release: sqlite3.Connection) -> Iterator[Database]:
    """The first release's database, brought to this release."""
    if request.param == "sqlite":
        url = on_sqlite(tmp_path)
    else:
        url = request.getfixturevalue("empty_postgres_url")
        on_postgres(url, first_release)
    migrations.upgrade(url)
    database = Database.open(url)
    yield database
    database.dispose()


def stored_bodies(database: Database) -> list[bytes]:
    with database.read() as connection:
        query = sa.select(ledger_entries.c.body).order_by(ledger_entries.c.index)
        return [bytes(body) for body in connection.execute(query).scalars()]


def test_the_fixture_has_every_end_that_the_first_release_knew(bodies: list[bytes]) -> None:
    kinds = {EntryReader().read(body).kind for body in bodies}
    assert {"quota_set", "decision", "granted", "debit", "release", "quarantine", "publication"} <= kinds
    assert {"published", "released", "quarantined", "running", "reserved"} == {
        run.state for run in replay(bodies).runs.values()
    }


def test_the_first_releases_ledger_is_verified_as_it_is(bodies: list[bytes]) -> None:
    report = verify(io.BytesIO(b"".join(body + b"\n" for body in bodies)), Known())
    assert [] == report.findings.kept
    assert len(bodies) == report.entries


def test_its_charged_curves_are_those_that_this_release_computes(bodies: list[bytes]) -> None:
    report = verify(io.BytesIO(b"".join(body + b"\n" for body in bodies)), Known(full_curves=True))
    assert [] == report.findings.kept


def test_its_balances_are_those_that_it_stored(bodies: list[bytes], first_release: sqlite3.Connection) -> None:
    rows = first_release.execute("SELECT population_id, scope, scope_id, committed, debited FROM balances")
    stored = {(row[0], row[1], row[2]): (vectors.decode(row[3]), vectors.decode(row[4])) for row in rows}
    assert stored == replay(bodies).balances


def test_the_migrations_leave_every_entry_as_it_was(migrated: Database, bodies: list[bytes]) -> None:
    after = stored_bodies(migrated)
    assert bodies == after
    assert [] == replay(after).findings.kept
    with migrated.read() as connection:
        hashes = connection.execute(sa.select(ledger_entries.c.leaf_hash).order_by(ledger_entries.c.index)).scalars()
        assert [leaf_hash(body) for body in bodies] == [bytes(one) for one in hashes]


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_a_migration_that_fails_leaves_the_database_as_it_was_and_may_be_run_again(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path, first_release: sqlite3.Connection
) -> None:
    if backend == "sqlite":
        url = on_sqlite(tmp_path)
    else:
        url = request.getfixturevalue("empty_postgres_url")
        on_postgres(url, first_release)
    database = Database.open(url)
    with database.write() as connection:
        templates = connection.execute(sa.text("SELECT id, grant_template FROM runs")).all()
        connection.execute(sa.text("UPDATE runs SET grant_template = '{}'"))
    before = sa.inspect(database.engine).get_table_names()
    with pytest.raises(KeyError):
        migrations.upgrade(url)
    assert before == sa.inspect(database.engine).get_table_names()
    with database.write() as connection:
        for run_id, template in templates:
            values = {"id": run_id, "template": template}
            connection.execute(sa.text("UPDATE runs SET grant_template = :template WHERE id = :id"), values)
    migrations.upgrade(url)
    assert migrations.is_current(database)
    database.dispose()


def test_the_migrated_rows_are_those_that_its_entries_tell_of(migrated: Database) -> None:
    with migrated.read() as connection:
        assert [] == list(derived.differences(connection))


def test_the_migrations_grow_the_tree_of_these_entries(migrated: Database, bodies: list[bytes]) -> None:
    frontier = Frontier.empty()
    for body in bodies:
        frontier = frontier.append(leaf_hash(body))[0]
    with migrated.read() as connection:
        assert frontier == entries.head(connection).frontier
        nodes = StoredNodes(connection)
        for index in range(len(bodies)):
            proof = merkle.inclusion_proof(index, len(bodies), nodes)
            merkle.verify_inclusion(leaf_hash(bodies[index]), index, len(bodies), proof, frontier.root())


def test_the_migrations_leave_balances_and_reservations_as_the_entries_have_them(
    migrated: Database, bodies: list[bytes]
) -> None:
    folded = replay(bodies)
    with migrated.read() as connection:
        stored = {
            (row.population_id, row.scope, row.scope_id): (vectors.decode(row.committed), vectors.decode(row.debited))
            for row in connection.execute(sa.select(balances))
        }
        held = {
            (row.run_id, row.population_id): (
                row.rounds,
                row.rounds_per_charge,
                row.rounds_debited,
                row.rounds_released,
            )
            for row in connection.execute(sa.select(reservations))
        }
        debited: dict[tuple[str, str], int] = {}
        for row in connection.execute(sa.select(debits_table)):
            key = (row.run_id, row.population_id)
            debited[key] = debited.get(key, 0) + row.rounds
        used = {row.run_id for row in connection.execute(sa.select(run_datasets))}

    assert folded.balances == stored
    assert held == {
        key: (run.rounds, run.rounds_per_charge, run.rounds_debited, run.rounds_released)
        for key, run in folded.runs.items()
    }
    assert debited == {key: run.rounds_debited for key, run in folded.runs.items() if run.rounds_debited}
    assert {run.id for run in folded.runs.values()} == used


def test_a_migrated_ledger_goes_on_and_is_verified_across_the_change(migrated: Database, bodies: list[bytes]) -> None:
    first = EntryReader().read(bodies[1])
    facts = {"scope": "project", "scope_id": "prj_new", "epsilon": 1.0, "by": "usr_owner"}
    with migrated.write() as connection, entries.locked(connection) as log:
        at = entries.select(connection, limit=1)[0].at
        log.append("quota_set", at, facts, population_id=first.subjects["population_id"])
    after = stored_bodies(migrated)
    assert (len(bodies) + 1, []) == (len(after), replay(after).findings.kept)
