"""The odometer: what was spent and committed in a population, read at any δ and as of any entry.

Invariants
- Two kinds of number, never mixed (privacy rule 5): the guarantee is the cap at its own δ; everything else is a reading
  at the δ that was asked for. A reading at another δ is no guarantee at that δ.
- Readings come from exact amounts (``past.py``) by ``accountant.odometer``, rounded up.

This module does not: decide who may read it (``reader.py`` does).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from accountant.curve import ACCOUNTANT
from accountant.odometer import epsilon_reading
from governance.audit import past
from governance.ledger.budgets import Balance, Scope
from governance.ledger.database import Connection
from governance.model import Population, Quota

CONVERSION = "Canonne-Kamath-Steinke 2020, Proposition 12, with the population's orders and weights"
MEANS = {
    "guarantee": "the cap on everything ever published about this population, at its own delta; enforced by a filter",
    "spent_epsilon": "an odometer reading at the delta asked for, over what was debited by then",
    "committed_epsilon": "the same over debited, reserved and quarantined: what admission counts",
    "quota_epsilon": "the cap of a quota that was in force then, at the guarantee's delta; it carries no claim",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """``quota_epsilon``, ``unlocked_epsilon``: of a quota that was in force then; None if there was none."""

    scope: str  # population | project | researcher
    scope_id: str
    spent_epsilon: float
    committed_epsilon: float
    quota_epsilon: float | None
    unlocked_epsilon: float | None


@dataclass(frozen=True, slots=True)
class OdometerReading:
    """``as_of_entry``: the last entry that counts, of ``ledger_size``; ``as_of_time`` is that entry's."""

    population_id: str
    as_of_entry: int
    as_of_time: datetime | None
    ledger_size: int
    delta: float
    guarantee_epsilon: float
    guarantee_delta: float
    accountant: str
    items: tuple[Reading, ...]


def read(
    connection: Connection,
    population: Population,
    *,
    entry: int,
    at: datetime | None,
    size: int,
    delta: float,
    only: Collection[Scope] | None = None,
) -> OdometerReading:
    """``at``: the time of ``entry``. ``only``: these scopes, None for all that ever spent or had a quota. Raises
    ``InvalidBudgetError`` for an unfit delta."""
    balances = past.balances_as_of(connection, population, entry)
    quotas = {(one.scope, one.scope_id): one for one in past.quotas_as_of(connection, population.id, entry)}
    whole = ("population", population.id)
    others = sorted({*balances, *quotas} - {whole})
    items = [
        _reading(population, scope, balances.get(scope), quotas.get(scope), delta, at)
        for scope in (whole, *others)
        if only is None or scope in only
    ]
    budget = population.budget
    return OdometerReading(
        population.id, entry, at, size, delta, budget.epsilon, budget.delta, ACCOUNTANT, tuple(items)
    )


def _reading(
    population: Population,
    scope: Scope,
    balance: Balance | None,
    quota: Quota | None,
    delta: float,
    at: datetime | None,
) -> Reading:
    spent = committed = 0.0
    if balance is not None:
        spent = epsilon_reading(population.budget, balance.debited, delta)
        committed = epsilon_reading(population.budget, balance.committed, delta)
    if quota is None:
        return Reading(*scope, spent, committed, None, None)
    unlocked = None if quota.schedule is None or at is None else quota.epsilon_at(at)
    return Reading(*scope, spent, committed, quota.epsilon, unlocked)
