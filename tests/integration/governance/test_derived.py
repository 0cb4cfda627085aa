"""Whatever row somebody changes beside the entries, it is found and named."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import sqlalchemy as sa

from governance.ledger import derived, tables
from governance.ledger.database import Database
from governance.model import Schedule
from tests.integration.governance.conftest import Governed
from tests.integration.governance.test_hierarchy import Two, two
from tests.integration.governance.test_replay import busy

__all__ = ["two"]  # a fixture


def found(database: Database) -> list[tuple[str, str]]:
    with database.read() as connection:
        return [(one.table, one.what) for one in derived.differences(connection)]


class _Undo(Exception):
    pass


def found_after(database: Database, table: str, statement: str) -> list[tuple[str, str]]:
    """Done by somebody who owns the database, so that no guard stops it; and undone."""
    differences: list[tuple[str, str]] = []
    with contextlib.suppress(_Undo), database.write() as connection:
        if database.is_sqlite:
            triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = :of"
            for name in connection.execute(sa.text(triggers), {"of": table}).scalars().all():
                connection.execute(sa.text(f"DROP TRIGGER {name}"))
        else:
            connection.execute(sa.text(f"ALTER TABLE {table} DISABLE TRIGGER ALL"))
        assert connection.execute(sa.text(statement)).rowcount > 0
        differences = [(one.table, one.what) for one in derived.differences(connection)]
        raise _Undo
    return differences


@pytest.fixture
def spent(two: Two) -> Database:
    governed = two.governed
    two.declare()
    schedule = Schedule(governed.clock(), 4.0, 1.0, 30)
    whole = governed.population.id
    governed.registry.set_quota(governed.owner, whole, "population", whole, 8.0, schedule)
    busy(governed)
    governed.registry.create_project(governed.researcher, "another project")
    grant = governed.started(rounds=4)
    two.admit(rounds=5)
    governed.settlement.debit(governed.runner, grant.grant_id, grant.fencing_token, 0, 2)
    return governed.database


def test_an_honest_database_has_no_difference(spent: Database) -> None:
    assert [] == found(spent)


def test_a_fresh_database_has_no_difference(governed: Governed) -> None:
    assert [] == found(governed.database)


CHANGES: list[tuple[str, str, str]] = [
    ("balances", "UPDATE balances SET committed = debited", "committed is not what the entries say"),
    ("balances", "DELETE FROM balances WHERE scope = 'project'", "the row is missing"),
    ("populations", "UPDATE populations SET declared_size = 10", "declared_size is not what the entries say"),
    ("populations", "UPDATE populations SET budget = replace(budget, '8', '9')", "budget is not what the entries say"),
    ("quotas", "UPDATE quotas SET epsilon = 9", "epsilon is not what the entries say"),
    ("quotas", "UPDATE quotas SET period_days = 1", "period_days is not what the entries say"),
    ("reservations", "UPDATE reservations SET state = 'closed'", "state is not what the entries say"),
    ("reservations", "UPDATE reservations SET rounds_debited = 0", "rounds_debited is not what the entries say"),
    ("debits", "UPDATE debits SET rounds = rounds + 1", "rounds is not what the entries say"),
    ("debits", "DELETE FROM debits", "the row is missing"),
    ("grants", "UPDATE grants SET fencing_token = fencing_token + 100", "fencing_token is not what the entries say"),
    ("results", "UPDATE results SET weights_sha256 = 'x'", "weights_sha256 is not what the entries say"),
    (
        "results",
        "UPDATE results SET privacy_statement = replace(privacy_statement, 'one person', 'one row')",
        "statement_sha256 is not what the entries say",
    ),
    (
        "dataset_versions",
        "UPDATE dataset_versions SET version_handle = 'ver_x' WHERE version_handle LIKE 'ver_a%'",
        "version_handle is not what the entries say",
    ),
    ("disjoint_populations", "UPDATE disjoint_populations SET versions = '{}'", "versions is not what the entries say"),
    ("policy_activations", "UPDATE policy_activations SET revision = 'x'", "revision is not what the entries say"),
    (
        "datasets",
        "UPDATE datasets SET max_examples_per_unit = 1000000",
        "max_examples_per_unit is not what the entries say",
    ),
    ("datasets", "UPDATE datasets SET policy_id = 'other'", "policy_id is not what the entries say"),
    (
        "datasets",
        "UPDATE datasets SET population_id = (SELECT MAX(id) FROM populations WHERE id <> datasets.population_id)",
        "population_id is not what the entries say",
    ),
    (
        "dataset_versions",
        "UPDATE dataset_versions SET holdout_handle = 'x'",
        "holdout_handle is not what the entries say",
    ),
    ("run_datasets", "UPDATE run_datasets SET version = version + 1", "version is not what the entries say"),
    ("run_datasets", "DELETE FROM run_datasets", "the row is missing"),
    ("log_head", "UPDATE log_head SET fencing = 0", "fencing is not what the entries say"),
    ("grants", "UPDATE grants SET state = 'active'", "state is not what the entries say"),
    ("grants", "UPDATE grants SET state = 'ended'", "state is not what the entries say"),
    ("reservations", "UPDATE reservations SET closed_entry = NULL", "closed_entry is not what the entries say"),
    *(
        ("runs", f"UPDATE runs SET state = '{state}' WHERE state <> '{state}'", "state is not what the entries say")
        for state in ("reserved", "running", "published", "cancelled", "failed")
    ),
    *(
        (
            "runs",
            f"UPDATE runs SET {column} = (SELECT MAX(id) FROM {table} WHERE id <> runs.{column})",
            f"{column} is not what the entries say",
        )
        for column, table in (("researcher_id", "principals"), ("project_id", "projects"), ("decision_id", "grants"))
    ),
    ("runs", "UPDATE runs SET rounds = rounds + 1", "rounds is not what the entries say"),
    (
        "runs",
        "UPDATE runs SET population_id = (SELECT MAX(id) FROM populations WHERE id <> runs.population_id)",
        "population_id is not what the entries say",
    ),
    (
        "runs",
        "UPDATE runs SET effective = replace(effective, '\"rounds\": ', '\"rounds\": 1')",
        "effective is not what the entries say",
    ),
    ("runs", "UPDATE runs SET requested = '['", "requested is not what the entries say"),
    (
        "runs",
        "UPDATE runs SET grant_template = replace(grant_template, '\"clipping_norm\": ', '\"clipping_norm\": 1')",
        "grant_template is not what the entries say",
    ),
    ("runs", "UPDATE runs SET grant_template = '{}'", "grant_template is not what the entries say"),
]


def test_a_changed_row_is_named(spent: Database) -> None:
    missed = [change for change in CHANGES if (change[0], change[2]) not in found_after(spent, *change[:2])]
    assert [] == missed
    assert [] == found(spent)


def test_a_result_is_not_taken_for_lost_where_nothing_was_restored(spent: Database) -> None:
    with spent.write() as connection:
        connection.execute(sa.text("UPDATE runs SET state_reason = 'restored'"))
    assert ("results", "the row is missing") in found_after(spent, "results", "DELETE FROM results")


@pytest.mark.parametrize("kind", ["decision", "population_opened"])
def test_an_entry_that_cannot_be_read_is_named(spent: Database, kind: str) -> None:
    statement = f"UPDATE ledger_entries SET body = leaf_hash WHERE kind = '{kind}'"
    assert ("ledger_entries", "the line is not UTF-8") in found_after(spent, "ledger_entries", statement)


def test_a_row_that_no_entry_tells_of_is_named(spent: Database) -> None:
    with spent.write() as connection:
        row: dict[str, Any] = dict(connection.execute(sa.select(tables.debits).limit(1)).mappings().one())
        connection.execute(tables.debits.insert(), row | {"first_round": 9999})
    assert [("debits", "no entry tells of this row")] == found(spent)
