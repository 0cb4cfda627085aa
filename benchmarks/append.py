"""``append``: one entry, durable, with the Merkle tree against the same transaction without it.

Both lock the head, insert a row and store the head; the baseline leaves ``subtrees`` and ``frontier`` as they are and
hashes the leaf alone, as the first release did. Each has a database of its own that grows at the same rate, in turns.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from benchmarks.log_stage import ENGINES, databases, facts, fill
from benchmarks.record import Recorder
from benchmarks.timing import interleaved, milliseconds, p50, p99
from governance.ledger import chain, entries
from governance.ledger.database import Database
from governance.ledger.merkle import Frontier
from governance.ledger.tables import ledger_entries, log_head
from governance.model import timestamp, utc_now

_BEFORE = 10_000
_TURNS, _WARM_UP = 600, 50
_HASHED = 1 << 15
_SUBJECTS = {"population_id": "pop_0000000000000001", "run_id": "run_0000000000000001"}
_LOCK = sa.select(log_head.c.size, log_head.c.events, log_head.c.fencing).with_for_update()
_STORE = log_head.update().values(
    size=sa.bindparam("new_size"), events=sa.bindparam("new_events"), fencing=sa.bindparam("new_fencing")
)


def run(recorder: Recorder) -> None:
    for engine in ENGINES:
        with databases() as make:
            works: dict[str, Callable[[], object]] = {}
            for name, append in (("with", _with_tree), ("without", _without_tree)):
                database = make(engine)
                fill(database, _BEFORE)
                works[name] = lambda database=database, append=append: append(database)  # type: ignore[misc]
            took = interleaved(works, times=_TURNS, warm_up=_WARM_UP)
        without = ("the same transaction without the tree", p50(took["without"]))
        recorder.add(f"{engine}, one entry, p50", p50(took["with"]), "ms", baseline=without, aim="<= 1.2")
        tail = ("the same transaction without the tree, p99", p99(took["without"]))
        recorder.add(f"{engine}, one entry, p99", p99(took["with"]), "ms", baseline=tail)
    recorder.add("the tree's own work for one entry", 1000 * milliseconds(_grow) / _HASHED, "µs")


def _with_tree(database: Database) -> None:
    with database.write() as connection:
        size = entries.size(connection)
        entries.append(connection, "debit", utc_now(), facts(size), **_SUBJECTS)


def _without_tree(database: Database) -> None:
    with database.write() as connection:
        entries.size(connection)
        index, events, fencing = connection.execute(_LOCK).one()
        moment = timestamp(utc_now())
        body = chain.entry_body(index, "debit", moment, _SUBJECTS, facts(index))
        row = dict.fromkeys(chain.SUBJECTS) | _SUBJECTS
        leaf = chain.leaf_hash(body)
        connection.execute(
            ledger_entries.insert(),
            row | {"index": index, "kind": "debit", "at": moment, "body": body, "leaf_hash": leaf, "subtrees": b""},
        )
        connection.execute(_STORE, {"new_size": index + 1, "new_events": events, "new_fencing": fencing})


def _grow() -> None:
    frontier = Frontier.empty()
    for number in range(_HASHED):
        frontier, _ = frontier.append(number.to_bytes(32, "big"))
