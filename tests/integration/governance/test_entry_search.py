"""What a page of a search costs: a walk along one index, as long in a long ledger as in a short one."""

from __future__ import annotations

import itertools
import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from governance.ledger import entry_search
from governance.ledger.database import Database
from governance.ledger.entry_search import Wanted
from governance.ledger.tables import ledger_entries

ENTRIES = 30_000
MOST_ROWS = 2_000
MOST_STEPS = 600
START = datetime(2026, 1, 1, tzinfo=UTC)


def fill(database: Database) -> None:
    """Entries of many populations, projects and runs; one population has nearly all, one has three."""
    rows = []
    for index in range(ENTRIES):
        rare = index in (7, ENTRIES // 2, ENTRIES - 5)
        body = {"kind": "decision", "facts": {"outcome": "refused" if rare else "approved"}}
        rows.append(
            {
                "index": index,
                "kind": ("decision", "debit", "granted", "publication")[index % 4] if not rare else "decision",
                "at": f"{START + timedelta(seconds=index):%Y-%m-%dT%H:%M:%S.%fZ}",
                "body": json.dumps(body, separators=(",", ":")).encode(),
                "leaf_hash": secrets.token_bytes(32),
                "subtrees": b"",
                "population_id": "pop_rare" if rare else "pop_large",
                "project_id": f"prj_{index % 50}",
                "researcher_id": f"usr_{index % 20}",
                "run_id": f"run_{index // 4}",
            }
        )
    with database.write() as connection:
        for first in range(0, ENTRIES, 2_000):
            connection.execute(ledger_entries.insert(), rows[first : first + 2_000])
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))


@pytest.fixture
def long(database: Database) -> Database:
    fill(database)
    return database


SEARCHES: dict[str, Wanted] = {
    "everything": Wanted(),
    "population": Wanted(population_id="pop_large"),
    "rare population": Wanted(population_id="pop_rare"),
    "project": Wanted(project_id="prj_7"),
    "researcher": Wanted(researcher_id="usr_7"),
    "run": Wanted(run_id="run_77"),
    "kind": Wanted(kinds=("publication",)),
    "kinds": Wanted(kinds=("publication", "granted")),
    "time": Wanted(since=START + timedelta(hours=1), until=START + timedelta(hours=9)),
    "population and kind": Wanted(population_id="pop_large", kinds=("publication",)),
    "researcher and time": Wanted(researcher_id="usr_7", since=START + timedelta(hours=1)),
    "refusals": Wanted(outcome="refused"),
    "refusals of a population": Wanted(population_id="pop_large", outcome="refused"),
    "an owner's populations": Wanted(seen=("pop_large", "pop_rare")),
    "an owner's debits": Wanted(seen=("pop_large", "pop_rare"), kinds=("debit",)),
}


@pytest.mark.parametrize("newest_first", [False, True])
def test_no_page_reads_more_than_a_bounded_part_of_the_ledger(
    long: Database, monkeypatch: pytest.MonkeyPatch, newest_first: bool
) -> None:
    monkeypatch.setattr(entry_search, "EXAMINED", 500)
    for name, wanted in SEARCHES.items():
        with long.read() as connection:
            if long.is_sqlite:
                assert sqlite_steps(connection, wanted, newest_first) <= MOST_STEPS, (
                    name,
                    sqlite_steps(connection, wanted, newest_first),
                )
                continue
            for statement in recorded(connection, wanted, newest_first):
                plan = explained(connection, statement)
                assert rows_read(plan) <= MOST_ROWS, (name, plan)


@pytest.mark.parametrize("newest_first", [False, True])
def test_the_pages_together_are_what_was_asked_for(long: Database, newest_first: bool) -> None:
    for name, wanted in SEARCHES.items():
        found: list[int] = []
        after = None
        with long.read() as connection:
            while True:
                page, after = entry_search.search(
                    connection, wanted, after=after, limit=1000, newest_first=newest_first
                )
                found += [entry.index for entry in page]
                if after is None:
                    break
        expected = [index for index in range(ENTRIES) if fits(index, wanted)]
        assert (expected[::-1] if newest_first else expected) == found, name


def fits(index: int, wanted: Wanted) -> bool:
    rare = index in (7, ENTRIES // 2, ENTRIES - 5)
    population = "pop_rare" if rare else "pop_large"
    kind = "decision" if rare else ("decision", "debit", "granted", "publication")[index % 4]
    at = START + timedelta(seconds=index)
    refused = kind == "decision" and rare
    return (
        wanted.population_id in (None, population)
        and (wanted.seen is None or population in wanted.seen)
        and wanted.project_id in (None, f"prj_{index % 50}")
        and wanted.researcher_id in (None, f"usr_{index % 20}")
        and wanted.run_id in (None, f"run_{index // 4}")
        and (not wanted.kinds or kind in wanted.kinds)
        and (wanted.outcome is None or refused)
        and (wanted.since is None or wanted.since <= at)
        and (wanted.until is None or at < wanted.until)
    )


def search(connection: sa.Connection, wanted: Wanted, newest_first: bool) -> None:
    """A page in the middle."""
    middle = (f"{START + timedelta(seconds=ENTRIES // 2):%Y-%m-%dT%H:%M:%S.%fZ}", ENTRIES // 2)
    entry_search.search(connection, wanted, after=middle, limit=100, newest_first=newest_first)


def sqlite_steps(connection: sa.Connection, wanted: Wanted, newest_first: bool) -> int:
    """Instructions of SQLite's machine, in hundreds: one entry that is looked at takes ten to thirty."""
    driver: Any = connection.connection.driver_connection
    counted = itertools.count()
    driver.set_progress_handler(lambda: next(counted) < 0, 100)
    try:
        search(connection, wanted, newest_first)
    finally:
        driver.set_progress_handler(None, 0)
    return next(counted)


def recorded(connection: sa.Connection, wanted: Wanted, newest_first: bool) -> list[tuple[str, Any]]:
    """Its statements."""
    found: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        found.append((statement, parameters))

    sa.event.listen(connection, "before_cursor_execute", note)
    try:
        search(connection, wanted, newest_first)
    finally:
        sa.event.remove(connection, "before_cursor_execute", note)
    return found


def explained(connection: sa.Connection, statement: tuple[str, Any]) -> Any:
    text, parameters = statement
    answer = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}", parameters)
    return answer.scalar_one()[0]["Plan"]


def rows_read(plan: Any) -> float:
    """Of the ledger, those that a filter dropped included."""
    rows = 0.0
    if plan.get("Relation Name") == "ledger_entries":
        rows = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
        rows += plan.get("Rows Removed by Index Recheck", 0)
    return rows + sum(map(rows_read, plan.get("Plans", ())))
