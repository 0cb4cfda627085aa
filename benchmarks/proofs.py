"""``proofs``: inclusion and consistency proofs out of a database of a million entries, and their whole way to a caller.

What is measured is ``Transparency``, as the routes call it: the head's size, the stored nodes in one statement, and the
proof. The baseline keeps no tree: it reads every leaf's hash and computes the proof from them. Each proof is verified.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import sqlalchemy as sa

from benchmarks.log_stage import ENGINES, databases, fill
from benchmarks.record import Recorder
from benchmarks.timing import milliseconds, p50, p99
from governance.ledger import merkle
from governance.ledger.database import Database
from governance.ledger.merkle import Frontier, Node
from governance.ledger.tables import ledger_entries
from governance.transparency import Transparency

_ENTRIES = 1_000_000
_PROOFS, _WARM_UP = 3_000, 200
_RECOMPUTED = 3


def run(recorder: Recorder) -> None:
    for engine in ENGINES:
        with databases() as make:
            database = make(engine)
            leaves = fill(database, _ENTRIES)
            _measure(recorder, engine, database, leaves)


def _measure(recorder: Recorder, engine: str, database: Database, leaves: list[bytes]) -> None:
    transparency = Transparency(database, Path())
    chance = random.Random(1)
    root = _root(leaves)
    inclusion, consistency = [], []
    for turn in range(-_WARM_UP, _PROOFS):
        index, old = chance.randrange(_ENTRIES), chance.randrange(1, _ENTRIES)
        first = milliseconds(partial(transparency.inclusion, index, _ENTRIES))
        second = milliseconds(partial(transparency.consistency, old, _ENTRIES))
        if turn >= 0:
            inclusion.append(first)
            consistency.append(second)
    _verify(transparency, chance, leaves, root)
    recomputed = p50(
        [milliseconds(partial(_recompute, database, chance.randrange(_ENTRIES))) for _ in range(_RECOMPUTED)]
    )
    baseline = ("the proof computed from all leaves", recomputed)
    one_row = sa.select(ledger_entries.c.leaf_hash).where(ledger_entries.c.index == sa.bindparam("at"))
    fetched = p50([milliseconds(partial(_fetch_one, database, one_row)) for _ in range(_PROOFS)])
    recorder.add(f"{engine}, inclusion, against one row", p50(inclusion), "ms", baseline=("one row fetched", fetched))
    for name, took in (("inclusion", inclusion), ("consistency", consistency)):
        recorder.add(f"{engine}, {name}, p50", p50(took), "ms", baseline=baseline, aim="<= 1 ms")
        recorder.add(f"{engine}, {name}, p99", p99(took), "ms", baseline=baseline)


def _verify(transparency: Transparency, chance: random.Random, leaves: list[bytes], root: bytes) -> None:
    for _ in range(20):
        index, old = chance.randrange(_ENTRIES), chance.randrange(1, 50_000)
        proof = transparency.inclusion(index, _ENTRIES).proof
        merkle.verify_inclusion(leaves[index], index, _ENTRIES, proof, root)
        proof = transparency.consistency(old, _ENTRIES).proof
        merkle.verify_consistency(old, _root(leaves[:old]), _ENTRIES, root, proof)


def _fetch_one(database: Database, query: sa.Select[tuple[bytes]]) -> bytes:
    with database.glance() as connection:
        return bytes(connection.execute(query, {"at": _ENTRIES // 3}).scalar_one())


def _root(leaves: Sequence[bytes]) -> bytes:
    frontier = Frontier.empty()
    for leaf in leaves:
        frontier, _ = frontier.append(leaf)
    return frontier.root()


def _recompute(database: Database, index: int) -> list[bytes]:
    """As a log without a stored tree would: every leaf is read, every level is hashed."""
    with database.read() as connection:
        query = sa.select(ledger_entries.c.leaf_hash).order_by(ledger_entries.c.index)
        level = [bytes(row[0]) for row in connection.execute(query)]
    size, levels = len(level), [level]
    while len(level) > 1:
        pairs = range(0, len(level) - 1, 2)
        level = [merkle.node_hash(level[at], level[at + 1]) for at in pairs]
        levels.append(level)

    def fetch(nodes: Sequence[Node]) -> Mapping[Node, bytes]:
        return {node: levels[node[0]][node[1]] for node in nodes}

    return merkle.inclusion_proof(index, size, fetch)
