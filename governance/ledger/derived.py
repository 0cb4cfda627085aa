"""Compares every stored row that is derived from entries with what the entries say: who changed a row, is found.

The entries themselves are checked against the mirror and the signed tree (``governance/log_keeper.py``); here they are
believed, and the tables beside them are not.

Invariants
- Reads only, in one snapshot. Every difference names its table, its row and what is wrong.
- Rows without an entry and entries without a row are differences too, but for the result of a run that was published
  after the backup that was restored: the ledger has its digests, and no entry can bring it back.

This module does not: mend anything. A changed row is mended by restoring a backup and reconciling.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from accountant.codec import canonical_bytes
from accountant.filter import Budget
from governance.ledger import tree_store, vectors
from governance.ledger.entries import head
from governance.ledger.recovery import RESTORED
from governance.ledger.replay import Replay, replay
from governance.ledger.tables import (
    balances,
    dataset_versions,
    debits,
    disjoint_populations,
    grants,
    policy_activations,
    populations,
    quotas,
    reservations,
    results,
    runs,
)

Key = tuple[Any, ...]
Rows = dict[Key, dict[str, Any]]

RESERVATION_STATES = {  # of a replayed run
    "reserved": "open",
    "running": "open",
    "quarantined": "quarantined",
    "resolved": "closed",
    "released": "closed",
    "published": "closed",
}


@dataclass(frozen=True, slots=True)
class Difference:
    table: str
    row: str
    what: str


def differences(connection: sa.Connection) -> Iterator[Difference]:
    """Every difference, table by table."""
    size = head(connection).size
    said = _Said()
    folded = replay(said.read(row.body) for row in tree_store.rows(connection, 0, size))
    kept = sa.select(results.c.run_id)
    lost = sa.select(runs.c.id).where(runs.c.state_reason == RESTORED, runs.c.id.not_in(kept))
    said.forget_results(connection.execute(lost).scalars())
    for name, (table, keys, expected) in said.tables(folded).items():
        yield from _compare(connection, name, table, keys, expected)


class _Said:
    """What entries say that rows must hold, by table and primary key."""

    def __init__(self) -> None:
        self._rows: dict[str, Rows] = {
            name: {}
            for name in (
                "populations",
                "quotas",
                "dataset_versions",
                "disjoint_populations",
                "policy_activations",
                "reservations",
                "grants",
                "debits",
                "results",
            )
        }

    def read(self, body: bytes) -> bytes:
        """Takes an entry in, and passes it on."""
        entry = json.loads(body)
        handler = getattr(self, f"_{entry['kind']}", None)
        if handler is not None:
            handler(entry["subjects"], entry["facts"], entry["index"], entry["at"])
        return body

    def _population_opened(self, subjects: Any, facts: Any, index: int, at: str) -> None:
        budget = canonical_bytes(Budget.from_document(facts["budget"]).to_document()).decode()
        row = {"owner_id": facts["owner"], "declared_size": facts["declared_size"], "budget": budget}
        self._rows["populations"][(subjects["population_id"],)] = row

    def _quota_set(self, subjects: Any, facts: Any, index: int, at: str) -> None:
        schedule = facts.get("schedule") or {}
        names = ("starts_at", "initial_epsilon", "step_epsilon", "period_days")
        row = {"epsilon": facts["epsilon"], "set_at": at} | {name: schedule.get(name) for name in names}
        self._rows["quotas"][(subjects["population_id"], facts["scope"], facts["scope_id"])] = row

    def _dataset_registered(self, subjects: Any, facts: Any, index: int, at: str) -> None:
        key = (subjects["dataset_id"], facts["version"])
        self._rows["dataset_versions"][key] = {"version_handle": facts["version_handle"]}

    def _populations_disjoint(self, subjects: Any, facts: Any, index: int, at: str) -> None:
        row = {"versions": json.dumps(facts["versions"], sort_keys=True), "entry_index": index}
        self._rows["disjoint_populations"][tuple(facts["populations"])] = row

    def _policy_activated(self, subjects: Any, facts: Any, index: int, at: str) -> None:
        row = {"revision": facts["revision"], "digests": json.dumps(facts["digests"], sort_keys=True)}
        self._rows["policy_activations"][(facts["sequence"],)] = row

    def _decision(self, subjects: Any, facts: Any, index: int, at: str) -> None:
        charge = facts["charge"]
        if charge is not None:
            self._rows["reservations"][(subjects["run_id"], subjects["population_id"])] = {
                "project_id": subjects["project_id"],
                "researcher_id": subjects["researcher_id"],
                "round_curve": vectors.encode([int(units) for units in charge["units_per_round"]]),
                "rounds_per_charge": charge.get("rounds_per_charge", 1),
                "rounds": charge["event"]["rounds"],
                "entry_index": index,
            }

    def _granted(self, subjects: Any, facts: Any, index: int, at: str) -> None:
        row = {"run_id": subjects["run_id"], "runner_id": facts["runner"], "fencing_token": facts["fencing_token"]}
        self._rows["grants"][(facts["grant"],)] = row

    def _debit(self, subjects: Any, facts: Any, index: int, at: str) -> None:
        key = (subjects["run_id"], subjects["population_id"], facts["first_round"])
        self._rows["debits"][key] = {"rounds": facts["rounds"], "grant_id": facts["grant"], "entry_index": index}

    def _publication(self, subjects: Any, facts: Any, index: int, at: str) -> None:
        names = ("weights_sha256", "statement_sha256")
        self._rows["results"][(subjects["run_id"],)] = {name: facts[name] for name in names}

    def forget_results(self, run_ids: Iterable[str]) -> None:
        for run_id in run_ids:
            self._rows["results"].pop((run_id,), None)

    def tables(self, folded: Replay) -> dict[str, tuple[sa.Table, tuple[str, ...], Rows]]:
        """name -> (table, its key, what it must hold)."""
        for key, run in folded.runs.items():
            counts = {"rounds_debited": run.rounds_debited, "rounds_released": run.rounds_released}
            self._rows["reservations"][key] |= counts | {"state": RESERVATION_STATES[run.state]}
        held = {
            key: {"committed": vectors.encode(committed), "debited": vectors.encode(debited)}
            for key, (committed, debited) in folded.balances.items()
        }
        of = (populations, quotas, dataset_versions, disjoint_populations, policy_activations, reservations, grants)
        found = {
            table.name: (table, tuple(column.name for column in table.primary_key.columns), self._rows[table.name])
            for table in (*of, debits, results)
        }
        return found | {"balances": (balances, ("population_id", "scope", "scope_id"), held)}


def _compare(
    connection: sa.Connection, name: str, table: sa.Table, keys: tuple[str, ...], expected: Rows
) -> Iterator[Difference]:
    left = dict(expected)
    for row in connection.execute(sa.select(table)).mappings():
        key = tuple(row[column] for column in keys)
        wanted = left.pop(key, None)
        label = " ".join(map(str, key))
        if wanted is None:
            if not _untouched(name, row):
                yield Difference(name, label, "no entry tells of this row")
            continue
        stored = _stored(name, row)
        for column, value in wanted.items():
            if stored[column] != value:
                yield Difference(name, label, f"{column} is not what the entries say")
    for key in left:
        yield Difference(name, " ".join(map(str, key)), "the row is missing")


def _untouched(name: str, row: Mapping[Any, Any]) -> bool:
    """A population's balance exists from its opening on; the replay knows it from the first amount on."""
    return name == "balances" and not any(row["committed"]) and not any(row["debited"])


def _stored(name: str, row: Mapping[Any, Any]) -> dict[str, Any]:
    stored = {column: bytes(value) if isinstance(value, memoryview) else value for column, value in row.items()}
    if name == "results":
        statement = canonical_bytes(json.loads(row["privacy_statement"]))
        stored["statement_sha256"] = hashlib.sha256(statement).hexdigest()
    return stored
