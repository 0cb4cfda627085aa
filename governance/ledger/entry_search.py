"""Finds ledger entries by what they are about, page by page.

Invariants
- A page costs the same in a ledger of ten entries and of ten million: one index is walked from where the page before
  ended, and at most ``EXAMINED`` entries of it are looked at. So a page may hold fewer entries than were asked for, and
  still name a next one.
- Nothing is left out and nothing comes twice, whatever is appended meanwhile.
- Entries come in the order of their indexes; if a range of time drives the search, in the order of their times.

A run's entries belong to each dataset of the run that lies in the entry's population. A refused request over several
datasets belongs to the first one of each population, as its entry says.

This module does not: decide who may see what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from governance.ledger.tables import datasets, ledger_entries, run_datasets
from governance.model import LedgerEntry, timestamp

EXAMINED = 5_000
_MOST_BRANCHES = 8
_END = 2**62  # beyond every index
_LATEST = "9999-12-31T23:59:59.999999Z"
_T = ledger_entries.c
_SHOWN = [column for column in ledger_entries.c if column.name != "subtrees"]

Position = tuple[str, int]  # (time, index) of the last entry that was looked at


@dataclass(frozen=True, slots=True)
class Wanted:
    """``seen``: the populations whose entries may be seen, None for all. ``since`` <= time < ``until``; index <
    ``below``."""

    seen: tuple[str, ...] | None = None
    population_id: str | None = None
    dataset_id: str | None = None
    project_id: str | None = None
    researcher_id: str | None = None
    run_id: str | None = None
    kinds: tuple[str, ...] = ()
    outcome: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    below: int | None = None


def search(
    connection: sa.Connection, wanted: Wanted, *, after: Position | None, limit: int, newest_first: bool = False
) -> tuple[list[LedgerEntry], Position | None]:
    """The next entries, and where the page after them begins; None where there is none."""
    walk = _Walk(connection, wanted, after, newest_first)
    if walk.nothing:
        return [], None
    if not walk.rest:
        found = _read(connection, walk.first(limit + 1, _SHOWN))
        return found[:limit], _position(found[limit - 1]) if len(found) > limit else None
    positions, frontier = walk.matching(limit + 1)
    by_index = {entry.index: entry for entry in _read(connection, sa.select(*_SHOWN).where(_T.index.in_(positions)))}
    found = [by_index[index] for index in positions[:limit]]
    return found, _position(found[-1]) if len(positions) > limit else frontier


def of_decision(
    connection: sa.Connection,
    decision_id: str,
    *,
    seen: Sequence[str] | None = None,
    researcher_id: str | None = None,
    entry_index: int | None = None,
) -> list[LedgerEntry]:
    """A decision's entries, one for each population. ``entry_index``: of the first of them.

    Without it the entries that may be seen are searched for it: what is erased from the side table has no other trace.
    """
    query = sa.select(*_SHOWN).where(_T.kind == "decision", _holds(connection, f'"decision":"{decision_id}"'))
    if entry_index is not None:
        query = query.where(_T.index >= entry_index, _T.index < entry_index + 64)  # appended one after the other
    if seen is not None:
        query = query.where(_T.population_id.in_(seen))
    if researcher_id is not None:
        query = query.where(_T.researcher_id == researcher_id)
    return _read(connection, query.order_by(_T.index))


@dataclass(frozen=True, slots=True)
class _Branch:
    """One stretch of an index on (``column``, index), or on the index alone: from ``low`` to ``high``, both excluded.

    On PostgreSQL written as comparisons of pairs and ordered by both, because then only that index serves: with an
    equality and an order by index alone, its planner may walk the whole ledger for a rare value. SQLite uses but one
    side of such a pair, and plans the equality as it should.
    """

    column: str | None
    low: tuple[str | int, ...]
    high: tuple[str | int, ...]

    def rows(self, columns: Sequence[Any], *, newest_first: bool, by_pairs: bool) -> sa.Select[Any]:
        keys = [_T.index] if self.column is None else [_T[self.column], _T.index]
        order = [key.desc() if newest_first else key for key in keys]
        query = sa.select(*columns)
        if not by_pairs and self.column is not None and self.low[0] == self.high[0]:
            same = (_T[self.column] == self.low[0], _T.index > self.low[1], _T.index < self.high[1])
            return query.where(*same).order_by(order[1])
        here = sa.tuple_(*keys)
        between = (here > sa.tuple_(*map(sa.literal, self.low)), here < sa.tuple_(*map(sa.literal, self.high)))
        return query.where(*between).order_by(*order)


class _Walk:
    """The stretches of an index that a search walks along, and what is left to be looked at on the way (``rest``)."""

    def __init__(self, connection: sa.Connection, wanted: Wanted, after: Position | None, newest_first: bool) -> None:
        self._connection = connection
        self._newest_first = newest_first
        self._after = after
        self._by_time = wanted.run_id is None and (wanted.since is not None or wanted.until is not None)
        self._below = _END if wanted.below is None else wanted.below
        self._branches, settled = self._plan(wanted)
        self.rest = self._left(wanted, settled)

    @property
    def nothing(self) -> bool:
        return not self._branches

    def _plan(self, wanted: Wanted) -> tuple[list[_Branch], str]:
        """What the most selective index is walked for, and the filter that this settles."""
        if wanted.run_id is not None:
            return [self._of("run_id", wanted.run_id)], "run_id"
        if self._by_time:
            return [self._of_time(wanted)], "time"
        for name in ("project_id", "researcher_id", "population_id"):
            if (value := getattr(wanted, name)) is not None:
                return [self._of(name, value)], name
        if wanted.dataset_id is not None:
            query = sa.select(datasets.c.population_id).where(datasets.c.id == wanted.dataset_id)
            population_id = self._connection.execute(query).scalar_one_or_none()
            return ([] if population_id is None else [self._of("population_id", population_id)]), ""
        if wanted.seen is not None and len(wanted.seen) <= _MOST_BRANCHES:
            return [self._of("population_id", one) for one in wanted.seen], "seen"
        if wanted.kinds:
            return [self._of("kind", one) for one in wanted.kinds], "kinds"
        low, high = self._ends()
        return [_Branch(None, (low,), (high,))], ""

    def _ends(self) -> tuple[int, int]:
        if self._after is None:
            return -1, self._below
        here = self._after[1]
        return (-1, min(here, self._below)) if self._newest_first else (here, self._below)

    def _of(self, column: str, value: str) -> _Branch:
        low, high = self._ends()
        return _Branch(column, (value, low), (value, high))

    def _of_time(self, wanted: Wanted) -> _Branch:
        low: Position = ("" if wanted.since is None else timestamp(wanted.since), -1)
        high: Position = (_LATEST if wanted.until is None else timestamp(wanted.until), -1)
        if self._after is not None:
            low, high = (low, min(high, self._after)) if self._newest_first else (max(low, self._after), high)
        return _Branch("at", low, high)

    def _left(self, wanted: Wanted, settled: str) -> list[sa.ColumnElement[bool]]:
        rest: list[sa.ColumnElement[bool]] = []
        for name in ("population_id", "project_id", "researcher_id"):
            if name != settled and (value := getattr(wanted, name)) is not None:
                rest.append(_T[name] == value)
        if wanted.seen is not None and settled != "seen":
            rest.append(_T.population_id.in_(wanted.seen))
        if wanted.kinds and settled != "kinds":
            rest.append(_T.kind.in_(wanted.kinds))
        if self._by_time:
            rest += [] if wanted.below is None else [_T.index < wanted.below]
        else:
            rest += [] if wanted.since is None else [_T.at >= timestamp(wanted.since)]
            rest += [] if wanted.until is None else [_T.at < timestamp(wanted.until)]
        if wanted.outcome is not None:
            rest += [_T.kind == "decision", _holds(self._connection, f'"outcome":"{wanted.outcome}"')]
        if wanted.dataset_id is not None:
            rest.append(_belongs(wanted.dataset_id))
        return rest

    def first(self, most: int, columns: Sequence[Any]) -> sa.Select[Any]:
        """The first ``most`` rows along all branches."""
        by_pairs = self._connection.dialect.name != "sqlite"
        parts = [
            one.rows(columns, newest_first=self._newest_first, by_pairs=by_pairs).limit(most) for one in self._branches
        ]
        if len(parts) == 1:
            return parts[0]
        merged = sa.union_all(*(sa.select(part.subquery()) for part in parts)).subquery()
        return sa.select(merged).order_by(*self._order(merged.c)).limit(most)

    def matching(self, most: int) -> tuple[list[int], Position | None]:
        """Indexes of the first that the rest admits, among those that are examined, and the last examined."""
        # Within a subquery that is limited, so that no planner walks another index for the rest's sake.
        examined = self.first(EXAMINED, [_T.at, _T.index, sa.and_(*self.rest).label("fits")]).subquery()
        query = sa.select(examined.c.index).where(examined.c.fits).order_by(*self._order(examined.c)).limit(most)
        positions = [int(row[0]) for row in self._connection.execute(query)]
        if len(positions) == most:
            return positions, None
        last = self.first(EXAMINED, [_T.at, _T.index]).subquery()
        end = sa.select(last.c.at, last.c.index).order_by(*self._order(last.c)).limit(1).offset(EXAMINED - 1)
        row = self._connection.execute(end).one_or_none()
        return positions, None if row is None else (str(row[0]), int(row[1]))

    def _order(self, columns: Any) -> list[Any]:
        keys = [columns.at, columns.index] if self._by_time else [columns.index]
        return [key.desc() if self._newest_first else key for key in keys]


def _belongs(dataset_id: str) -> sa.ColumnElement[bool]:
    of_run = sa.exists().where(
        run_datasets.c.run_id == _T.run_id,
        run_datasets.c.dataset_id == dataset_id,
        run_datasets.c.population_id == _T.population_id,
    )
    return sa.or_(_T.dataset_id == dataset_id, of_run)


def _holds(connection: sa.Connection, text: str) -> sa.ColumnElement[bool]:
    """Whether the canonical bytes hold this member. In a text its quotes would be escaped, so it is found only as a
    member."""
    if connection.dialect.name == "sqlite":
        return sa.func.instr(_T.body, sa.literal(text.encode(), sa.LargeBinary)) > 0
    escaped = text.encode().replace(b"\\", b"\\\\").replace(b"%", b"\\%").replace(b"_", b"\\_")
    return _T.body.op("LIKE", is_comparison=True)(sa.literal(b"%" + escaped + b"%", sa.LargeBinary))


def _read(connection: sa.Connection, query: sa.Select[Any]) -> list[LedgerEntry]:
    return [_entry(row) for row in connection.execute(query).mappings()]


def _position(entry: LedgerEntry) -> Position:
    return timestamp(entry.at), entry.index


def _entry(row: Mapping[Any, Any]) -> LedgerEntry:
    return LedgerEntry(
        **{
            **row,
            "at": datetime.fromisoformat(row["at"]),
            "body": bytes(row["body"]),
            "leaf_hash": bytes(row["leaf_hash"]),
        }
    )
