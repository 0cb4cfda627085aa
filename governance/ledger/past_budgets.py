"""Reads what was reserved and debited in a population as of any entry: numbers of rounds, and the quotas of that time.

Invariants
- SQL gives numbers of rounds, at most 10^7 a row; it never adds an amount (privacy rule 13).
- What is counted as of entry n is what the entries 0 to n say: a reservation and a debit name the entry that made them,
  a release the one that closed it.

This module does not: multiply, read a budget, or decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from governance.ledger.tables import debits, ledger_entries, reservations

_BATCH = 1_000
_R = reservations.c
_CURVE = (_R.round_curve, _R.rounds_per_charge, _R.project_id, _R.researcher_id)
_MADE = (_R.population_id == sa.bindparam("population"), _R.entry_index <= sa.bindparam("entry"))
_ENDED = sa.and_(_R.closed_entry.is_not(None), _R.closed_entry <= sa.bindparam("entry"))
_RESERVED = sa.select(
    *_CURVE,
    _R.rounds - sa.case((_ENDED, _R.rounds_released), else_=0),
    sa.case((_ENDED, _R.rounds_debited), else_=0),
).where(*_MADE)
_DEBITED = (  # of what had not ended by then: as many as ran at a time, however long the ledger is
    sa.select(*_CURVE, sa.literal(0), debits.c.rounds)
    .join(debits, sa.and_(debits.c.run_id == _R.run_id, debits.c.population_id == _R.population_id))
    .where(*_MADE, sa.not_(_ENDED), debits.c.entry_index <= sa.bindparam("entry"))
)
_OF_KIND = (
    sa.select(ledger_entries.c.body)
    .where(
        ledger_entries.c.kind == sa.bindparam("wanted"),
        ledger_entries.c.population_id == sa.bindparam("population"),
        ledger_entries.c.index <= sa.bindparam("entry"),
    )
    .order_by(ledger_entries.c.index)
)
_TIME = sa.select(ledger_entries.c.at).where(ledger_entries.c.index == sa.bindparam("entry"))


class Counted(NamedTuple):
    """Rounds of a run, or of one of its debits. ``curve``: units of one charge, as they are stored (``vectors``)."""

    curve: bytes
    rounds_per_charge: int
    project_id: str
    researcher_id: str
    committed: int
    debited: int


def counted(connection: sa.Connection, population_id: str, as_of: int) -> Iterator[list[Counted]]:
    """In batches, so that memory is bounded. A run that had not ended comes once more for each of its debits."""
    asked = {"population": population_id, "entry": as_of}
    for query in (_RESERVED, _DEBITED):
        rows = connection.execute(query.execution_options(yield_per=_BATCH), asked)
        for batch in rows.partitions(_BATCH):
            yield [Counted(*row) for row in batch]


def bodies(connection: sa.Connection, kind: str, population_id: str, as_of: int) -> list[bytes]:
    """Of a kind that is rare, in order."""
    asked = {"wanted": kind, "population": population_id, "entry": as_of}
    return [bytes(row[0]) for row in connection.execute(_OF_KIND, asked)]


def time_of(connection: sa.Connection, index: int) -> datetime | None:
    at = connection.execute(_TIME, {"entry": index}).scalar_one_or_none()
    return None if at is None else datetime.fromisoformat(at)


def newest(
    connection: sa.Connection, population_id: str, *, researcher_id: str | None = None, run_id: str | None = None
) -> str | None:
    """The run that was approved last in a population; of this researcher, or this very run, if given."""
    query = sa.select(_R.run_id).where(_R.population_id == population_id)
    if researcher_id is not None:
        query = query.where(_R.researcher_id == researcher_id)
    if run_id is not None:
        query = query.where(_R.run_id == run_id)
    found = connection.execute(query.order_by(_R.entry_index.desc()).limit(1)).scalar_one_or_none()
    return None if found is None else str(found)
