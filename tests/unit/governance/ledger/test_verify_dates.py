"""Approvals under a window that are dated later than they were made."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.unit.governance.ledger.made_ledger import (
    LOG_KEY,
    WITNESS,
    Made,
    codes,
    places,
    signed,
    verified,
)

MADE = "2026-01-02T00:00:00.000000Z"
LATE = "2099-01-01T00:00:00.000000Z"
AT = datetime(2026, 1, 2, tzinfo=UTC)
WITNESSES: dict[str, Any] = {"witness_keys": (WITNESS.verifier,)}


def windowed(at: str) -> Made:
    """Rows: 0 key, 1 policies, 2 and 3 population, 4 a window, 5 an approval that is dated ``at``."""
    made = Made()
    made.key(LOG_KEY)
    made.policies()
    made.opened()
    schedule = {"starts_at": made.at, "initial_epsilon": 1.0, "step_epsilon": 0.5, "period_days": 30}
    made.quota("population", "pop_1", 8.0, schedule=schedule)
    made.at = at
    made.decided("run_1")
    return made


def written(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def test_an_entry_that_was_appended_later_is_dated_long_before() -> None:
    made = windowed(LATE)
    made.at = MADE
    made.granted("run_1")
    made.decided("run_2")
    made.granted("run_2")
    report = verified(made.bodies())
    assert ({"postdated": 1}, [5]) == (codes(report), places(report, "postdated"))


def test_every_postdated_approval_is_named() -> None:
    made = windowed(LATE)
    made.at = MADE
    made.decided("run_2")
    made.at = "2098-01-01T00:00:00.000000Z"
    made.decided("run_3")
    made.at = MADE
    made.decided("run_4")
    assert [5, 7] == places(verified(made.bodies()), "postdated")


@pytest.mark.parametrize(("back", "expected"), [(timedelta(days=1), 0), (timedelta(days=1, microseconds=1), 1)])
def test_times_may_step_back_by_a_day(back: timedelta, expected: int) -> None:
    made = windowed(MADE)
    made.at = written(AT - back)
    made.granted("run_1")
    assert expected == codes(verified(made.bodies())).get("postdated", 0)


@pytest.mark.parametrize(("back", "expected"), [(86_400, 0), (86_401, 1)])
def test_a_witness_that_signed_before_is_believed(back: int, expected: int) -> None:
    bodies = windowed(MADE).bodies()
    checkpoint = signed(bodies, LOG_KEY, WITNESS, at=int(AT.timestamp()) - back)
    report = verified(bodies, checkpoint, **WITNESSES)
    assert expected == codes(report).get("postdated", 0)


def test_a_witness_says_nothing_about_what_came_after_its_signature() -> None:
    made = windowed(MADE)
    earlier = signed(made.bodies()[:5], LOG_KEY, WITNESS, name="earlier", kind="earlier", at=1_700_000_000)
    now = signed(made.bodies(), LOG_KEY, WITNESS)
    assert {} == codes(verified(made.bodies(), now, earlier, **WITNESSES))


@pytest.mark.parametrize(("ahead", "expected"), [(timedelta(days=1), 0), (timedelta(days=1, seconds=1), 1)])
def test_what_lies_in_the_future_is_named(ahead: timedelta, expected: int) -> None:
    assert expected == codes(verified(windowed(MADE).bodies(), now=AT - ahead)).get("postdated", 0)


def test_without_a_window_a_date_opens_nothing() -> None:
    made = windowed(LATE)
    del made.rows[4]
    made.at = MADE
    made.granted("run_1")
    assert {} == codes(verified(made.bodies(), now=AT))


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"])
def test_any_date_of_the_calendar_is_read(at: str) -> None:
    bodies = windowed(at).bodies()
    report = verified(bodies, signed(bodies, LOG_KEY, WITNESS, at=0), **WITNESSES, now=AT)
    assert set(codes(report)) <= {"postdated"}
