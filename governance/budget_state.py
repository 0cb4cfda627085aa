"""The budgets that bind one request, read as one value: caps for the filter, readings for people.

Invariants
- The population's cap always comes first; only it carries a claim. Quotas use the population's own orders and weights.

This module does not: decide, or change an amount.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from accountant.calibration import Cap
from accountant.curve import ACCOUNTANT
from accountant.filter import Budget, zero
from accountant.odometer import epsilon_reading
from governance.ledger import budgets
from governance.ledger.budgets import Balance, Scope
from governance.ledger.database import Connection
from governance.model import BudgetReading, Population, Quota


@dataclass(frozen=True, slots=True)
class BudgetState:
    budget: Budget
    population_id: str
    balances: dict[Scope, Balance]
    quotas: tuple[Quota, ...]

    @property
    def caps(self) -> tuple[Cap, ...]:
        caps = [Cap("the population's budget", self.budget, self._spent(("population", self.population_id)))]
        for quota in self.quotas:
            name = f"the {quota.scope}'s quota"
            caps.append(Cap(name, quota_budget(self.budget, quota.epsilon), self._spent((quota.scope, quota.scope_id))))
        return tuple(caps)

    def readings(self) -> tuple[BudgetReading, ...]:
        """The population's reading, then one for each quota."""
        found = [self._reading(("population", self.population_id), self.budget)]
        for quota in self.quotas:
            found.append(self._reading((quota.scope, quota.scope_id), quota_budget(self.budget, quota.epsilon)))
        return tuple(found)

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


def read(connection: Connection, population: Population, scopes: Sequence[Scope] | None = None) -> BudgetState:
    """``scopes``: the project and researcher whose quotas and balances count; None means all of the population's."""
    quotas = tuple(budgets.read_quotas(connection, population.id, None if scopes is None else tuple(scopes)))
    bound = ((quota.scope, quota.scope_id) for quota in quotas) if scopes is None else scopes
    wanted = (("population", population.id), *bound)
    return BudgetState(
        population.budget, population.id, budgets.read_balances(connection, population.id, wanted), quotas
    )


def quota_budget(budget: Budget, epsilon: float) -> Budget:
    """The filter of a quota: the population's orders and weights, its own ε. Raises ``InvalidBudgetError``."""
    return _quota_budget(budget, epsilon)


@lru_cache(maxsize=1024)
def _quota_budget(budget: Budget, epsilon: float) -> Budget:
    return replace(budget, epsilon=epsilon)  # checking a budget's weights exactly takes milliseconds


@lru_cache(maxsize=4096)
def _reading(budget: Budget, spent: tuple[int, ...]) -> float:
    return epsilon_reading(budget, spent, budget.delta)
