"""The ledger's tables and entries, on both databases."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa

from governance.errors import ConstraintError, StorageError
from governance.ledger import chain, entries
from governance.ledger.database import Database, metadata
from governance.ledger.tables import APPEND_ONLY
from governance.model import utc_now
from tests.integration.governance.conftest import Governed

REFUSED = (StorageError, ConstraintError)


@pytest.mark.parametrize("table", APPEND_ONLY)
def test_rows_of_append_only_tables_can_be_neither_changed_nor_deleted(governed: Governed, table: str) -> None:
    governed.debit_all(governed.started())
    columns = [column.name for column in metadata.tables[table].columns]
    with governed.database.read() as connection:
        before = connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one()
    assert before > 0, "a table without rows would prove nothing"
    statements = [f'UPDATE {table} SET "{columns[-1]}" = "{columns[-1]}"', f"DELETE FROM {table}"]
    if governed.database.is_sqlite:
        names = ", ".join(f'"{name}"' for name in columns)
        statements.append(f"INSERT OR REPLACE INTO {table} ({names}) SELECT {names} FROM {table}")
    else:
        statements.append(f"TRUNCATE {table} CASCADE")
    for statement in statements:
        with pytest.raises(REFUSED), governed.database.write() as connection:
            connection.execute(sa.text(statement))
    with governed.database.read() as connection:
        assert before == connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one()


@pytest.mark.parametrize("table", ["balances", "reservations", "log_head"])
def test_rows_that_hold_amounts_are_never_deleted(governed: Governed, table: str) -> None:
    governed.admit()
    with pytest.raises(REFUSED), governed.database.write() as connection:
        connection.execute(sa.text(f"DELETE FROM {table}"))


def test_indexes_are_dense_and_every_leaf_hash_is_that_of_its_body(governed: Governed) -> None:
    governed.debit_all(governed.started())
    found, cursor = governed.queries.entries(governed.auditor, limit=1000)
    assert cursor is None
    assert list(range(len(found))) == [entry.index for entry in found]
    for entry in found:
        body = json.loads(entry.body)
        assert chain.leaf_hash(entry.body) == entry.leaf_hash
        assert (entry.index, entry.kind) == (body["index"], body["kind"])


def test_a_transaction_that_fails_leaves_no_entry_and_no_gap(database: Database) -> None:
    with database.read() as connection:
        before = entries.size(connection)

    def crash() -> None:
        with database.write() as connection:
            entries.append(connection, "decision", utc_now(), {})
            raise RuntimeError("crash before the commit")

    with pytest.raises(RuntimeError):
        crash()
    with database.write() as connection:
        assert before == entries.append(connection, "decision", utc_now(), {}).index


def test_entries_hold_no_personal_text(governed: Governed) -> None:
    governed.admit(purpose="a purpose with my name in it")
    found, _ = governed.queries.entries(governed.auditor, limit=1000)
    everything = b"".join(entry.body for entry in found)
    for personal in (b"example.org", b"my name"):
        assert personal not in everything


def test_the_migrated_schema_is_the_one_that_the_code_declares(database: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    import governance.ledger.identity_tables  # noqa: F401  (registers its tables)

    with database.read() as connection:
        assert [] == compare_metadata(MigrationContext.configure(connection), metadata)
