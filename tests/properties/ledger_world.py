"""Reads a whole ledger as it stands, and compares it with the model.

Invariants
- One read transaction: one state.
- Everything that the claim rests on is compared exactly: runs, reservations, debits, grants, results, balances, quotas,
  the head, the tree and every entry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from governance.ledger import tables, vectors
from governance.ledger.database import Database
from governance.model import timestamp
from tests.properties import ledger_operations as ops
from tests.properties.ledger_fold import Fold, completed, peaks
from tests.properties.ledger_model import Mismatch, Model, Run
from tests.properties.ledger_operations import Operation

Row = Mapping[str, Any]


@dataclass
class World:
    rows: dict[str, list[Row]]
    bodies: list[bytes]  # from the index that was asked for
    subtrees: list[bytes]

    def born(self, model: Model, operation: Operation) -> dict[str, Any]:
        """Ids that the database gave to what ``operation`` made."""
        match operation:
            case ops.Admit(who=who, key=key):
                person = model.site.researchers[who].id
                found = [r for r in self.rows["idempotency_keys"] if (r["principal_id"], r["key"]) == (person, key)]
                decision = found[0]["decision_id"] if found else None
                runs = [row["id"] for row in self.rows["runs"] if row["decision_id"] == decision]
                return {"decision": decision, "run": runs[0] if runs else None}
            case ops.Claim(runner=runner):
                granted = [row for row in self.rows["grants"] if row["runner_id"] == runner]
                return {"granted": granted[0] if granted else None}
            case ops.Expire():
                return {"quarantined": {row["id"] for row in self.rows["runs"] if row["state"] == "quarantined"}}
        return {}


_READ = (
    tables.runs,
    tables.reservations,
    tables.debits,
    tables.grants,
    tables.results,
    tables.balances,
    tables.quotas,
    tables.log_head,
    tables.idempotency_keys,
    tables.runner_reports,
)
_ENTRIES = sa.select(tables.ledger_entries.c.body, tables.ledger_entries.c.subtrees).order_by(
    tables.ledger_entries.c.index
)
_COUNTS = sa.select(
    sa.select(sa.func.count()).select_from(tables.run_events).scalar_subquery(),
    sa.select(sa.func.coalesce(sa.func.max(tables.run_events.c.id), 0)).scalar_subquery(),
    sa.select(sa.func.count()).select_from(tables.decisions).scalar_subquery(),
)


def observe(database: Database, first_entry: int = 0) -> World:
    with database.read() as connection:
        rows: dict[str, list[Row]] = {
            table.name: [dict(row) for row in connection.execute(sa.select(table)).mappings()] for table in _READ
        }
        wanted = _ENTRIES.where(tables.ledger_entries.c.index >= first_entry)
        entries = connection.execute(wanted).all()
        rows["counts"] = [
            dict(zip(("events", "last_event", "decisions"), connection.execute(_COUNTS).one(), strict=True))
        ]
    return World(rows, [bytes(row[0]) for row in entries], [bytes(row[1]) for row in entries])


def compare(world: World, model: Model, fold: Fold) -> None:
    """Raises ``Mismatch`` unless the database holds exactly what the model says. ``fold`` has had every entry."""
    _same(
        "runs", {row["id"]: _run_row(row) for row in world.rows["runs"]}, {r.id: _run(r) for r in model.runs.values()}
    )
    legs = {(row["run_id"], row["population_id"]): _leg_row(row) for row in world.rows["reservations"]}
    _same("reservations", legs, {(r.id, p): _leg(r) for r in model.runs.values() for p in r.group})
    debits = {(row["run_id"], row["population_id"], row["first_round"]): row["rounds"] for row in world.rows["debits"]}
    due = {(r.id, p, first): n for r in model.runs.values() for p in r.group for first, n in r.debits.items()}
    _same("debits", debits, due)
    grants = {row["id"]: _grant_row(row) for row in world.rows["grants"]}
    _same("grants", grants, {r.grant: _grant(r) for r in model.runs.values() if r.grant is not None})
    published = sorted(row["run_id"] for row in world.rows["results"])
    _same("results", published, sorted(r.id for r in model.runs.values() if r.published))
    quotas = {(row["population_id"], row["scope"], row["scope_id"]): row["epsilon"] for row in world.rows["quotas"]}
    _same("quotas", quotas, {key: epsilon for key, (epsilon, _) in model.quotas.items()})
    reports = {row["runner_id"]: len(json.loads(row["document"])) for row in world.rows["runner_reports"]}
    _same("reports", reports, model.reports)
    _same("keys", len(world.rows["idempotency_keys"]), len(model.answers))
    _compare_balances(world, model, fold)
    _compare_head(world, model, fold)


def _compare_balances(world: World, model: Model, fold: Fold) -> None:
    stored = {
        (row["population_id"], row["scope"], row["scope_id"]): (
            vectors.decode(row["committed"]),
            vectors.decode(row["debited"]),
        )
        for row in world.rows["balances"]
    }
    due = model.balances()
    _same("balances", stored, due)
    if not model.within_budget():
        raise Mismatch("a population's committed amounts are above its budget at every order")
    width = len(model.site.populations[0].budget.orders)
    _same("replay of the entries", {key: fold.balance(key, width) for key in due}, stored)
    if set(fold.committed) - set(stored):
        raise Mismatch("entries move amounts of which there is no balance")


def _compare_head(world: World, model: Model, fold: Fold) -> None:
    (head,) = world.rows["log_head"]
    counts = world.rows["counts"][0]
    _same("the head's size", head["size"], len(fold.leaves))
    _same("the head's frontier", bytes(head["frontier"]), peaks(fold.leaves))
    _same("the head's fencing token", head["fencing"], model.token)
    _same("the head's events", (head["events"], head["events"]), (counts["events"], counts["last_event"]))
    _same("the ledger's being closed", head["closed"] is not None, model.shut)
    _same("decisions", counts["decisions"], model.decisions)


def compare_tree(world: World, fold: Fold) -> None:
    """Of a world that was observed from entry 0: every row's subtrees."""
    for index, subtrees in enumerate(world.subtrees):
        _same(f"subtrees of entry {index}", subtrees, completed(fold.leaves, index))


def _run(run: Run) -> tuple[object, ...]:
    return run.state, run.rounds, run.done, run.researcher, run.project, run.group[0]


def _run_row(row: Row) -> tuple[object, ...]:
    return (
        row["state"],
        row["rounds"],
        row["rounds_done"],
        row["researcher_id"],
        row["project_id"],
        row["population_id"],
    )


def _leg(run: Run) -> tuple[object, ...]:
    return run.held, run.rounds, run.debited, run.released, run.units


def _leg_row(row: Row) -> tuple[object, ...]:
    units = vectors.decode(row["round_curve"])
    return row["state"], row["rounds"], row["rounds_debited"], row["rounds_released"], units


def _grant(run: Run) -> tuple[object, ...]:
    lease = None if run.lease is None else timestamp(run.lease)
    return run.id, run.runner, run.token, "active" if run.live else "ended", lease


def _grant_row(row: Row) -> tuple[object, ...]:
    return row["run_id"], row["runner_id"], row["fencing_token"], row["state"], row["lease_expires_at"]


def _same(what: str, found: object, due: object) -> None:
    if found == due:
        return
    if isinstance(found, dict) and isinstance(due, dict):
        odd = [key for key in found.keys() | due.keys() if found.get(key) != due.get(key)]
        key = odd[0]
        raise Mismatch(f"{what}: {len(odd)} differ, as {key}: {_short(found.get(key))} for {_short(due.get(key))}")
    raise Mismatch(f"{what}: {_short(found)} for {_short(due)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 300 else text[:300] + "…"
