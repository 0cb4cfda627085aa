"""Balances and quotas of a population as they were right after any entry.

Invariants
- Exact: counts of rounds come from SQL, amounts are multiplied and added as Python integers. The balances of the last
  entry are the stored ones, and those of any other are what replaying the entries up to it gives, bit for bit.
- Quotas are those of the entries up to then.

This module does not: convert an amount to an ε (``accountant.odometer`` does).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import add as plus
from typing import Any

from accountant.filter import Vector, add, zero
from governance.budget_state import BudgetState
from governance.ledger import past_budgets
from governance.ledger.budgets import Balance, Scope, scopes
from governance.ledger.database import Connection
from governance.ledger.past_budgets import Counted
from governance.model import Population, Quota, Schedule

_Pair = tuple[str, str]  # (project, researcher)


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
    for one in past_budgets.counted(connection, population.id, entry):
        pair = (one.project_id, one.researcher_id)
        spent = _amount(one, one.debited)
        held = spent if one.committed == one.debited else _amount(one, one.committed)
        committed[pair], debited[pair] = _sum(committed[pair], held), _sum(debited[pair], spent)
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
        units, per_charge = tuple(map(int, facts["units_per_round"])), facts.get("rounds_per_charge", 1)
        total = add(total, _amount(Counted(units, per_charge, "", "", 0, 0), facts["rounds"]))
    return total


def _amount(one: Counted, rounds: int) -> Vector:
    charges, rest = divmod(rounds, one.rounds_per_charge)
    if rest:
        raise ValueError(f"{rounds} rounds are not whole charges of {one.rounds_per_charge}")
    return tuple([units * charges for units in one.units])


def _sum(one: Vector, other: Vector) -> Vector:
    """As ``accountant.filter.add``, which checks every amount: that is done once, in the end."""
    return tuple(map(plus, one, other))
