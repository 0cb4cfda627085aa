"""Balances and quotas of a population as they were right after any entry.

Invariants
- Exact: numbers of rounds come from SQL, amounts are multiplied and added as integers that cannot wrap. The balances of
  the last entry are the stored ones, and those of any other are what replaying the entries up to it gives, bit for bit.
- Quotas are those of the entries up to then.

This module does not: convert an amount to an ε (``accountant.odometer`` does).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from accountant.events import MAX_ROUNDS
from accountant.filter import Vector, add, zero
from governance.budget_state import BudgetState
from governance.errors import StorageError
from governance.ledger import past_budgets, vectors
from governance.ledger.budgets import Balance, Scope, scopes
from governance.ledger.database import Connection
from governance.ledger.past_budgets import Counted
from governance.model import Population, Quota, Schedule

_Pair = tuple[str, str]  # (project, researcher)
_SHIFTS = tuple(range(112, -1, -16))


def state_as_of(
    connection: Connection, population: Population, entry: int, at: datetime, bound: Sequence[Scope] | None = None
) -> BudgetState:
    """``entry``: -1 for before any. ``at``: the time at which schedules count. ``bound``: the project
    and researcher whose quotas and balances count; None means all."""
    balances = balances_as_of(connection, population, entry)
    quotas = quotas_as_of(connection, population.id, entry)
    if bound is not None:
        counts = {("population", population.id), *bound}
        balances = {scope: balance for scope, balance in balances.items() if scope in counts}
        quotas = [quota for quota in quotas if (quota.scope, quota.scope_id) in counts]
    return BudgetState(population.budget, population.id, balances, tuple(quotas), at)


def balances_as_of(connection: Connection, population: Population, entry: int) -> dict[Scope, Balance]:
    """Every scope that had a reservation by then, and the population's own."""
    nothing = zero(population.budget.orders)
    committed: dict[_Pair, Vector] = defaultdict(lambda: nothing)
    debited: dict[_Pair, Vector] = defaultdict(lambda: nothing)
    for batch in past_budgets.counted(connection, population.id, entry):
        of_pair: dict[_Pair, list[Counted]] = defaultdict(list)
        for one in batch:
            of_pair[one.project_id, one.researcher_id].append(one)
        for pair, rows in of_pair.items():
            held, spent = _amounts(rows)
            committed[pair], debited[pair] = add(committed[pair], held), add(debited[pair], spent)
    found: dict[Scope, Balance] = {}
    whole = ("population", population.id)
    lost = _adjustments(connection, population, entry)
    found[whole] = Balance(lost, lost, entry)
    for (project, researcher), amount in committed.items():
        for scope in scopes(population.id, project, researcher):
            before = found.get(scope, Balance(nothing, nothing, entry))
            spent = debited[project, researcher]
            found[scope] = Balance(add(before.committed, amount), add(before.debited, spent), entry)
    return found


def quotas_as_of(connection: Connection, population_id: str, entry: int) -> list[Quota]:
    found: dict[Scope, Quota] = {}
    for body in past_budgets.bodies(connection, "quota_set", population_id, entry):
        facts = json.loads(body)["facts"]
        schedule = facts.get("schedule")
        if schedule is not None:
            schedule = _schedule(schedule)
        scope = (facts["scope"], facts["scope_id"])
        found[scope] = Quota(population_id, *scope, float(facts["epsilon"]), schedule)
    return [found[scope] for scope in sorted(found)]


def _schedule(facts: Mapping[str, Any]) -> Schedule:
    """Canonical JSON writes 2.0 as 2."""
    return Schedule(
        starts_at=datetime.fromisoformat(facts["starts_at"]),
        initial_epsilon=float(facts["initial_epsilon"]),
        step_epsilon=float(facts["step_epsilon"]),
        period_days=facts["period_days"],
    )


def _adjustments(connection: Connection, population: Population, entry: int) -> Vector:
    """What runners ran and whose entries were lost: in the population's own balance only."""
    total = zero(population.budget.orders)
    for body in past_budgets.bodies(connection, "adjustment", population.id, entry):
        facts = json.loads(body)["facts"]
        curve = vectors.encode([int(units) for units in facts["units_per_round"]])
        lost = Counted(curve, facts.get("rounds_per_charge", 1), "", "", facts["rounds"], 0)
        total = add(total, _amounts([lost])[0])
    return total


def _amounts(rows: Sequence[Counted]) -> tuple[Vector, Vector]:
    """Committed and debited amounts of these runs, exact.

    Amounts are split into limbs of 16 bits: at most 10^7 rounds a run, and a thousand runs at a time, stay far below
    63 bits. Adding one run after the other as Python integers gives the same, ten times slower.
    """
    limbs = np.frombuffer(b"".join([row.curve for row in rows]), ">u2").reshape(len(rows), -1).astype(np.int64)
    charges = [[_charges(row, row.committed) for row in rows], [_charges(row, row.debited) for row in rows]]
    held, spent = (np.array(charges, np.int64) @ limbs).reshape(2, -1, 8).tolist()
    return _joined(held), _joined(spent)


def _charges(row: Counted, rounds: int) -> int:
    charges, rest = divmod(rounds, row.rounds_per_charge)
    if rest or not 0 <= charges <= MAX_ROUNDS:
        raise StorageError(f"a reservation is damaged: {rounds} rounds, {row.rounds_per_charge} charged at a time")
    return charges


def _joined(limbs: Sequence[Sequence[int]]) -> Vector:
    return tuple([sum([limb << shift for limb, shift in zip(one, _SHIFTS, strict=True)]) for one in limbs])
