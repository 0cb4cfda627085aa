"""Rule 2's counterexample: an adversary who chooses parameters after seeing results.

First a Gaussian mechanism, or many small ones of two runs at once; then a two-outcome mechanism that is chosen from
what was seen. The "naive rule" is: some order still fits, with the usual conversion at the full δ. ``adversary``
computes what is reached, by exact sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from accountant.curve import UNITS_PER_NAT
from accountant.filter import Budget, PlannedUse, Vector, add, admits, subtract, zero
from accountant.kernel import Floats
from tests.unit.accountant.adversary import (
    TWENTY_ORDERS,
    WITHOUT,
    Coin,
    Rule,
    divergence,
    excess,
    gaussian_in_bins,
    gaussian_then_two_outcomes,
    greatest_with,
    naive,
    ours,
    two_runs_at_once,
    units,
)

BUDGETS = [(1.0, 1e-5), (2.0, 1e-6), (4.0, 1e-9), (8.0, 1e-6), (10.0, 1e-7)]
PLANS = [None, PlannedUse(0.01, 1.0), PlannedUse(0.001, 0.6), PlannedUse(1.0, 20.0)]
EPSILON, DELTA = 8.0, 1e-6


def share_of_room(rule: Rule, share: float) -> float:
    """A Gaussian's c, for a curve c·α that takes this share of what Gaussians may take in all."""
    return share * float((rule.bounds / rule.alpha).max())


@pytest.mark.parametrize("first_cost", [0.02, 0.05, 0.2])
def test_the_naive_rule_reaches_about_twice_its_delta(first_cost: float) -> None:
    reached, _ = gaussian_then_two_outcomes(naive(EPSILON, DELTA, TWENTY_ORDERS), first_cost)

    assert 2.0 * DELTA < reached < 2.5 * DELTA


@pytest.mark.parametrize(("epsilon", "delta"), BUDGETS)
def test_the_naive_rule_exceeds_every_delta(epsilon: float, delta: float) -> None:
    rule = naive(epsilon, delta, TWENTY_ORDERS)
    reached, _ = gaussian_then_two_outcomes(rule, share_of_room(rule, 0.05))

    assert reached > 1.75 * delta


@pytest.mark.parametrize(("epsilon", "delta"), BUDGETS)
def test_the_naive_rule_exceeds_its_delta_only_by_choosing_the_order_afterwards(epsilon: float, delta: float) -> None:
    rule = naive(epsilon, delta, TWENTY_ORDERS)
    _, by_order = gaussian_then_two_outcomes(rule, share_of_room(rule, 0.05))

    assert 0.99 * delta < by_order.max() <= delta


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.7])
@pytest.mark.parametrize(("epsilon", "delta"), BUDGETS)
def test_the_weighted_union_never_reaches_its_delta(epsilon: float, delta: float, share: float) -> None:
    opened = [Budget.open(epsilon, delta, TWENTY_ORDERS, planned_use=plan) for plan in PLANS]
    even = Budget(epsilon, delta, TWENTY_ORDERS, (1 / 32,) * 20)
    skewed = Budget(epsilon, delta, TWENTY_ORDERS, (1 / 64,) * 19 + (0.5,))
    for budget in (*opened, even, skewed):
        rule = ours(budget)
        reached, by_order = gaussian_then_two_outcomes(rule, share_of_room(rule, share))

        assert 0 < reached <= delta * sum(budget.weights)
        assert (by_order <= delta * np.array(budget.weights)).all()


@pytest.mark.parametrize(("epsilon", "delta", "naively"), [(1.0, 1e-5, 2.0), (2.0, 1e-6, 2.4), (8.0, 1e-6, 2.4)])
def test_two_runs_at_once_and_a_release_reach_more_than_delta_naively_and_never_with_ours(
    epsilon: float, delta: float, naively: float
) -> None:
    rule, rounds = naive(epsilon, delta, TWENTY_ORDERS), (6, 6)
    unit = math.sqrt(2 * share_of_room(rule, 0.2) / (6 * (1 + 4)))  # a coin of loss s costs about α s²/2
    coins = (Coin(1, unit), Coin(2, unit))
    assert two_runs_at_once(rule, coins, rounds) > naively * delta

    for plan in PLANS[:2]:
        budget = Budget.open(epsilon, delta, TWENTY_ORDERS, planned_use=plan)
        both = [units(rounds[i] * coins[i].curve(rule.alpha)) for i in (0, 1)]
        assert admits(budget, both[0], both[1])  # so both are reserved before anything is seen
        assert two_runs_at_once(ours(budget), coins, rounds) <= delta * sum(budget.weights)


@dataclass
class Ledger:
    """Balances as governance keeps them; ``refunds_debits`` is the error that privacy rule 12 forbids."""

    budget: Budget
    committed: Vector
    refunds_debits: bool = False

    def reserve(self, cost: Vector) -> bool:
        fits = admits(self.budget, self.committed, cost)
        if fits:
            self.committed = add(self.committed, cost)
        return fits

    def release(self, held: Vector, debited: Vector) -> None:
        self.committed = subtract(self.committed, held if self.refunds_debits else subtract(held, debited))


def reached_by_holding_and_releasing(ledger: Ledger, first_cost: float, *, hold: bool) -> float:
    """A Gaussian is reserved, with as many rounds again that are never run (``hold``). After each output of the first
    one the rest is released, and the best mechanism that the filter then admits is run."""
    budget, alpha = ledger.budget, np.array(ledger.budget.orders)
    gaussian = units(first_cost * alpha)
    held = add(gaussian, gaussian) if hold else gaussian
    assert ledger.reserve(held)
    ledger.release(held, gaussian)  # the Gaussian was debited and run
    probability, loss = gaussian_in_bins(first_cost)
    reached = np.maximum(0, 1 - np.exp(budget.epsilon - loss))
    for p, without in last_mechanisms(budget, ledger.committed):
        if admits(budget, ledger.committed, cost_of_two_outcomes(budget.orders, p, without)):
            beyond = excess(budget.epsilon, loss, np.array([p]), np.array([without]))[:, 0]
            reached = np.maximum(reached, beyond)
    return float(probability @ reached)


def last_mechanisms(budget: Budget, committed: Vector) -> list[tuple[float, float]]:
    """On every order's frontier, a hair inside; whether one is admitted, the filter itself says."""
    found = []
    for order, bound, spent in zip(budget.orders, budget.thresholds(), committed, strict=True):
        room = (bound - spent - 4) / UNITS_PER_NAT
        if room > 0:
            frontier = greatest_with(order, room)
            found += [(float(p), float(without)) for p, without in zip(frontier, WITHOUT, strict=True)][::4]
    return found


def cost_of_two_outcomes(orders: tuple[float, ...], p: float, without: float) -> Vector:
    a, b = np.array([p]), np.array([without])
    return units([divergence(order, a, b).item() for order in orders])


@pytest.mark.parametrize("plan", PLANS[:2])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
@pytest.mark.parametrize(("epsilon", "delta"), [(1.0, 1e-5), (8.0, 1e-6)])
def test_holding_room_and_releasing_it_later_gains_nothing(
    epsilon: float, delta: float, share: float, plan: PlannedUse | None
) -> None:
    budget = Budget.open(epsilon, delta, TWENTY_ORDERS, planned_use=plan)
    cost = share_of_room(ours(budget), share)
    held = reached_by_holding_and_releasing(Ledger(budget, zero(TWENTY_ORDERS)), cost, hold=True)

    assert held == reached_by_holding_and_releasing(Ledger(budget, zero(TWENTY_ORDERS)), cost, hold=False)
    assert 0.1 * delta < held <= delta * sum(budget.weights)


@pytest.mark.parametrize(("epsilon", "delta"), [(1.0, 1e-5), (8.0, 1e-6)])
def test_a_ledger_that_gave_back_what_was_debited_would_exceed_delta(epsilon: float, delta: float) -> None:
    budget = Budget.open(epsilon, delta, TWENTY_ORDERS)
    cost = share_of_room(ours(budget), 0.4)
    refunding = Ledger(budget, zero(TWENTY_ORDERS), refunds_debits=True)

    assert reached_by_holding_and_releasing(refunding, cost, hold=True) > 10 * delta


def test_after_the_gaussian_our_filter_refuses_what_the_naive_rule_admits() -> None:
    budget, rule, first = Budget.open(EPSILON, DELTA, TWENTY_ORDERS), naive(EPSILON, DELTA, TWENTY_ORDERS), 0.05
    spent = units(first * rule.alpha)
    assert admits(budget, zero(TWENTY_ORDERS), spent)

    differing = 0
    for order, room in zip(TWENTY_ORDERS, rule.bounds - first * rule.alpha, strict=True):
        if room > 0:
            frontier = greatest_with(order, room * (1 - 1e-6))
            best = int(np.argmax(frontier - np.exp(EPSILON) * WITHOUT))
            second = cost_of_two_outcomes(TWENTY_ORDERS, float(frontier[best]), float(WITHOUT[best]))
            total: Floats = np.array(add(spent, second), dtype=np.float64) / UNITS_PER_NAT
            assert (total <= rule.bounds).any()
            differing += not admits(budget, spent, second)

    assert differing >= 5
