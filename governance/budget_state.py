"""The budgets that bind one request, read as one value: caps for the filter, readings for people.

Invariants
- The population's cap always comes first; only it carries a claim. Quotas use the population's own orders and weights.
- A quota with a schedule counts with what is unlocked at the time of the request, never with more.
- Every cap says which limit it is, so that a refusal can name the one that was hit.

This module does not: decide, or change an amount.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache

from accountant.calibration import Cap
from accountant.curve import ACCOUNTANT
from accountant.filter import Budget, zero
from accountant.odometer import epsilon_reading
from governance.ledger import budgets, quotas
from governance.ledger.budgets import Balance, Scope
from governance.ledger.database import Connection
from governance.model import BudgetReading, Population, Quota


@dataclass(frozen=True)
class NamedCap(Cap):
    """``limit`` is a stable code: population_budget, population_window, project_quota or researcher_quota."""

    limit: str


@dataclass(frozen=True, slots=True)
class BudgetState:
    budget: Budget
    population_id: str
    balances: dict[Scope, Balance]
    quotas: tuple[Quota, ...]
    at: datetime

    @property
    def caps(self) -> tuple[NamedCap, ...]:
        name = f"the budget of population {self.population_id} (ε = {self.budget.epsilon:g})"
        scope = ("population", self.population_id)
        caps = [NamedCap(name, self.budget, self._spent(scope), "population_budget")]
        for quota in self.quotas:
            budget = quota_budget(self.budget, quota.epsilon_at(self.at))
            name, limit = self._named(quota)
            caps.append(NamedCap(name, budget, self._spent((quota.scope, quota.scope_id)), limit))
        return tuple(caps)

    def readings(self) -> tuple[BudgetReading, ...]:
        """The population's reading, then one for each quota."""
        found = [self._reading(("population", self.population_id), self.budget)]
        for quota in self.quotas:
            scope = (quota.scope, quota.scope_id)
            reading = self._reading(scope, quota_budget(self.budget, quota.epsilon))
            if quota.scope == "population":
                reading = replace(reading, scope="window")
            if quota.schedule is not None:
                unlocked = quota.epsilon_at(self.at)
                later = quota.schedule.next_step(self.at) if unlocked < quota.epsilon else None
                reading = replace(reading, unlocked_epsilon=unlocked, next_unlock_at=later)
            found.append(reading)
        return tuple(found)

    def _named(self, quota: Quota) -> tuple[str, str]:
        what = "the population's window" if quota.scope == "population" else f"the {quota.scope}'s quota"
        limit = "population_window" if quota.scope == "population" else f"{quota.scope}_quota"
        unlocked = quota.epsilon_at(self.at)
        if quota.schedule is None or unlocked >= quota.epsilon:
            return f"{what} (ε = {quota.epsilon:g})", limit
        later = f"{quota.schedule.next_step(self.at):%Y-%m-%d}"
        return f"{what} (ε = {unlocked:g} unlocked of {quota.epsilon:g}; more on {later})", limit

    def _spent(self, scope: Scope) -> tuple[int, ...]:
        balance = self.balances.get(scope)
        return zero(self.budget.orders) if balance is None else balance.committed

    def _reading(self, scope: Scope, budget: Budget) -> BudgetReading:
        balance = self.balances.get(scope)
        nothing = zero(budget.orders)
        committed, debited, as_of = (
            (nothing, nothing, -1) if balance is None else (balance.committed, balance.debited, balance.as_of_entry)
        )
        return BudgetReading(
            scope=scope[0],
            scope_id=scope[1],
            guarantee_epsilon=budget.epsilon,
            delta=budget.delta,
            spent_epsilon=_reading(budget, debited),
            committed_epsilon=_reading(budget, committed),
            accountant=ACCOUNTANT,
            as_of_entry=as_of,
        )


def read(
    connection: Connection, population: Population, at: datetime, scopes: Sequence[Scope] | None = None
) -> BudgetState:
    """``scopes``: the project and researcher whose quotas and balances count; None means all of the population's.

    The population's own window always counts.
    """
    whole = ("population", population.id)
    bound = quotas.read(connection, population.id, None if scopes is None else (whole, *scopes))
    counted = [(quota.scope, quota.scope_id) for quota in bound] if scopes is None else scopes
    found = budgets.read_balances(connection, population.id, (whole, *counted))
    return BudgetState(population.budget, population.id, found, tuple(bound), at)


def quota_budget(budget: Budget, epsilon: float) -> Budget:
    """The filter of a quota: the population's orders and weights, its own ε. Raises ``InvalidBudgetError``."""
    return _quota_budget(budget, epsilon)


@lru_cache(maxsize=1024)
def _quota_budget(budget: Budget, epsilon: float) -> Budget:
    return replace(budget, epsilon=epsilon)  # checking a budget's weights exactly takes milliseconds


@lru_cache(maxsize=4096)
def _reading(budget: Budget, spent: tuple[int, ...]) -> float:
    return epsilon_reading(budget, spent, budget.delta)
