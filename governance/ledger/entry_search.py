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


class _Walk:
    """The indexes that a search walks along (branches), and what is left to be looked at on the way (rest)."""

    def __init__(self, connection: sa.Connection, wanted: Wanted, after: Position | None, newest_first: bool) -> None:
        self._connection = connection
        self._newest_first = newest_first
        self._by_time = wanted.run_id is None and (wanted.since is not None or wanted.until is not None)
        keys = [_T.at, _T.index] if self._by_time else [_T.index]
        self._keys = [key.name for key in keys]
        self._range: list[sa.ColumnElement[bool]] = []
        if after is not None:
            here = sa.tuple_(*keys)
            there = sa.tuple_(*map(sa.literal, after if self._by_time else after[1:]))
            self._range.append(here < there if newest_first else here > there)
        if wanted.below is not None:
            self._range.append(_T.index < wanted.below)
        branches, used = self._branches(wanted)
        self._branches_ = branches
        self.rest = self._left(wanted, used)

    @property
    def nothing(self) -> bool:
        return not self._branches_

    def _branches(self, wanted: Wanted) -> tuple[list[list[sa.ColumnElement[bool]]], set[str]]:
        """What the most selective index is walked for, and the filters that this settles."""
        if wanted.run_id is not None:
            return [[_T.run_id == wanted.run_id]], {"run_id"}
        if self._by_time:
            times = [] if wanted.since is None else [_T.at >= timestamp(wanted.since)]
            times += [] if wanted.until is None else [_T.at < timestamp(wanted.until)]
            return [times], {"since", "until"}
        for name in ("project_id", "researcher_id"):
            if (value := getattr(wanted, name)) is not None:
                return [[_T[name] == value]], {name}
        population_id, used = wanted.population_id, {"population_id"}
        if wanted.dataset_id is not None and population_id is None:
            query = sa.select(datasets.c.population_id).where(datasets.c.id == wanted.dataset_id)
            population_id, used = self._connection.execute(query).scalar_one_or_none(), set()
            if population_id is None:
                return [], used
        if population_id is not None:
            return [[_T.population_id == population_id]], used
        if wanted.seen is not None and len(wanted.seen) <= _MOST_BRANCHES:
            return [[_T.population_id == one] for one in wanted.seen], {"seen"}
        if wanted.kinds:
            return [[_T.kind == one] for one in wanted.kinds], {"kinds"}
        return [[]], set()

    def _left(self, wanted: Wanted, used: set[str]) -> list[sa.ColumnElement[bool]]:
        rest: list[sa.ColumnElement[bool]] = []
        for name in ("population_id", "project_id", "researcher_id"):
            if name not in used and (value := getattr(wanted, name)) is not None:
                rest.append(_T[name] == value)
        if wanted.seen is not None and "seen" not in used:
            rest.append(_T.population_id.in_(wanted.seen))
        if wanted.kinds and "kinds" not in used:
            rest.append(_T.kind.in_(wanted.kinds))
        if not self._by_time:
            rest += [] if wanted.since is None else [_T.at >= timestamp(wanted.since)]
            rest += [] if wanted.until is None else [_T.at < timestamp(wanted.until)]
        if wanted.outcome is not None:
            rest += [_T.kind == "decision", _holds(self._connection, f'"outcome":"{wanted.outcome}"')]
        if wanted.dataset_id is not None:
            rest.append(_belongs(wanted.dataset_id))
        return rest

    def first(self, most: int, columns: Sequence[Any], *more: Any) -> sa.Select[Any]:
        """The first ``most`` rows along all branches. ``more``: further columns."""
        parts = [
            sa.select(*columns, *more).where(*branch, *self._range).order_by(*self._order(_T)).limit(most)
            for branch in self._branches_
        ]
        if len(parts) == 1:
            return parts[0]
        merged = sa.union_all(*(sa.select(part.subquery()) for part in parts)).subquery()
        return sa.select(merged).order_by(*self._order(merged.c)).limit(most)

    def matching(self, most: int) -> tuple[list[int], Position | None]:
        """Indexes of the first that the rest admits, among those that are examined, and the last examined."""
        # Within a subquery that is limited, so that no planner walks another index for the rest's sake.
        examined = self.first(EXAMINED, [_T.at, _T.index], sa.and_(*self.rest).label("fits")).subquery()
        query = sa.select(examined.c.index).where(examined.c.fits).order_by(*self._order(examined.c)).limit(most)
        positions = [int(row[0]) for row in self._connection.execute(query)]
        last = self.first(EXAMINED, [_T.at, _T.index]).subquery()
        end = sa.select(last.c.at, last.c.index).order_by(*self._order(last.c)).limit(1).offset(EXAMINED - 1)
        row = self._connection.execute(end).one_or_none()
        return positions, None if row is None else (str(row[0]), int(row[1]))

    def _order(self, columns: Any) -> list[Any]:
        return [columns[key].desc() if self._newest_first else columns[key] for key in self._keys]


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
