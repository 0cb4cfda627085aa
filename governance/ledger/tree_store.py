"""Reads the Merkle tree and the rows that it stands over.

Invariants
- Reads only; ``entries.Log`` writes the tree, in the transaction that appends.
- What is read here is claimed by the database, not proved: whoever signs computes it again from the bodies
  (``governance/log_keeper.py``).
- One statement for a proof in a tree of up to a million entries, one more for each 32 rows beyond.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from governance.ledger import chain, merkle
from governance.ledger.merkle import Node
from governance.ledger.tables import BIG, ledger_entries

_PAGE = 1000
_WIDTH = 32  # rows of one statement; the same text for every proof, so that it is prepared once
_NODES = sa.select(ledger_entries.c.index, ledger_entries.c.leaf_hash, ledger_entries.c.subtrees).where(
    ledger_entries.c.index.in_([sa.bindparam(f"i{number}", type_=BIG) for number in range(_WIDTH)])
)
_ROWS = (
    sa.select(
        ledger_entries.c.index,
        ledger_entries.c.kind,
        ledger_entries.c.at,
        ledger_entries.c.body,
        ledger_entries.c.leaf_hash,
        ledger_entries.c.subtrees,
        *(ledger_entries.c[name] for name in chain.SUBJECTS),
    )
    .where(ledger_entries.c.index >= sa.bindparam("start"), ledger_entries.c.index < sa.bindparam("stop"))
    .order_by(ledger_entries.c.index)
    .limit(_PAGE)
)
_OF_KIND = (
    sa.select(ledger_entries.c.index, ledger_entries.c.body)
    .where(ledger_entries.c.kind == sa.bindparam("kind"))
    .order_by(ledger_entries.c.index)
)


class MissingNodeError(ValueError):
    """The database does not have a row, or a hash in it, that a tree of this size must have."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the ledger as it is stored."""

    index: int
    kind: str
    at: str
    body: bytes
    leaf_hash: bytes
    subtrees: bytes
    subjects: Mapping[str, str]


class StoredNodes:
    """The tree's stored nodes, to be given to ``merkle`` as its ``fetch``."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def __call__(self, nodes: Sequence[Node]) -> dict[Node, bytes]:
        """Raises ``MissingNodeError``."""
        places = {node: merkle.stored_at(*node) for node in nodes}
        indexes = sorted({index for index, _ in places.values()})
        rows: dict[int, sa.Row[Any]] = {}
        for start in range(0, len(indexes), _WIDTH):
            wanted = indexes[start : start + _WIDTH]
            wanted += wanted[-1:] * (_WIDTH - len(wanted))
            parameters = {f"i{number}": index for number, index in enumerate(wanted)}
            rows |= {row[0]: row for row in self._connection.execute(_NODES, parameters)}
        return {node: _node(rows.get(index), index, slot) for node, (index, slot) in places.items()}


def rows(connection: sa.Connection, start: int, stop: int) -> Iterator[Row]:
    """Entries start ≤ index < stop, in order, a page at a time. What is missing is left out."""
    while start < stop:
        page = connection.execute(_ROWS, {"start": start, "stop": stop}).all()
        for row in page:
            yield _row(row)
        if len(page) < _PAGE:
            return
        start = page[-1][0] + 1


def bodies_of_kind(connection: sa.Connection, kind: str) -> list[tuple[int, bytes]]:
    """(index, body) of every entry of a kind that is rare."""
    return [(int(row[0]), _bytes(row[1])) for row in connection.execute(_OF_KIND, {"kind": kind})]


def _row(row: sa.Row[Any]) -> Row:
    index, kind, at, body, leaf_hash, subtrees, *subjects = row
    named = {name: value for name, value in zip(chain.SUBJECTS, subjects, strict=True) if value is not None}
    return Row(int(index), kind, at, _bytes(body), _bytes(leaf_hash), _bytes(subtrees), named)


def _bytes(stored: object) -> bytes:
    """Nothing for what is no BLOB: SQLite lets its owner put anything in any column."""
    return bytes(stored) if isinstance(stored, bytes | memoryview) else b""


def _node(row: sa.Row[Any] | None, index: int, slot: int) -> bytes:
    found = b""
    if row is not None:
        begin = slot * merkle.HASH_BYTES
        found = _bytes(row[1]) if slot < 0 else _bytes(row[2])[begin : begin + merkle.HASH_BYTES]
    if len(found) != merkle.HASH_BYTES:
        raise MissingNodeError(f"entry {index} is missing, or the hashes beside it are")
    return found
