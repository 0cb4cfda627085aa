"""Rule 2's counterexample: an adversary who chooses parameters after seeing results.

First a Gaussian mechanism. Its privacy loss ℓ is seen, and then a two-outcome mechanism is chosen from it: outcome 1
has probability p with the person and p' without. The loss beyond ε of the whole game is the integral over ℓ of what the
chosen mechanism puts beyond e^(ε−ℓ), computed here by direct sums: a discretised adversary is an adversary, so what is
found for the naive rule is really reached.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from accountant.curve import UNITS_PER_NAT, round_curve
from accountant.filter import Budget, Vector, admits
from accountant.kernel import Floats

EPSILON, DELTA = 8.0, 1e-6
TWENTY_ORDERS = (*(half / 2 for half in range(4, 12)), *map(float, (6, 7, 8, 9, 10, 12, 14, 16, 20, 24, 32, 64)))

WITHOUT = np.exp(np.linspace(math.log(1e-16), math.log(0.5), 200))  # p'


def naive_bounds(orders: tuple[float, ...]) -> Floats:
    """ "Some order still fits", with the usual conversion at the full δ."""
    alpha = np.array(orders)
    bounds: Floats = EPSILON - np.log1p(-1 / alpha) + np.log(DELTA * alpha) / (alpha - 1)
    return bounds


def our_bounds(budget: Budget) -> Floats:
    return np.array(budget.thresholds(), dtype=np.float64) / UNITS_PER_NAT


def divergence(order: float, p: Floats, without: Floats) -> Floats:
    """Rényi divergence of the two outcomes' distributions."""
    one = order * np.log(p) + (1 - order) * np.log(without)
    zero = order * np.log1p(-p) + (1 - order) * np.log1p(-without)
    result: Floats = np.logaddexp(one, zero) / (order - 1)
    return result


def greatest_with(order: float, room: float) -> Floats:
    """For each p' the greatest p that costs at most ``room`` at this order, by bisection."""
    low, high = np.log(WITHOUT), np.full_like(WITHOUT, math.log1p(-1e-15))
    for _ in range(55):
        middle = (low + high) / 2
        affordable = divergence(order, np.exp(middle), WITHOUT) <= room
        low, high = np.where(affordable, middle, low), np.where(affordable, high, middle)
    greatest: Floats = np.exp(low)
    return greatest


def excess(loss: Floats, p: Floats, without: Floats) -> Floats:
    """By how much each two-outcome mechanism (columns) exceeds e^ε after each loss (rows)."""
    factor = np.exp(EPSILON - loss)[:, np.newaxis]
    beyond: Floats = np.maximum(0, p - factor * without) + np.maximum(0, (1 - p) - factor * (1 - without))
    return beyond


def delta_reached(orders: tuple[float, ...], bounds: Floats, first_cost: float) -> tuple[float, Floats]:
    """The δ that the adversary reaches in all, and with each order alone. ``first_cost``·α is the Gaussian's curve."""
    t = np.linspace(-9, 9, 401)
    density = np.exp(-t * t / 2)
    density /= density.sum()
    loss = first_cost + math.sqrt(2 * first_cost) * t
    nothing_more = np.maximum(0, 1 - np.exp(EPSILON - loss))
    by_order = []
    for order, bound in zip(orders, bounds, strict=True):
        room = bound - first_cost * order
        then = excess(loss, greatest_with(order, room), WITHOUT).max(axis=1) if room > 0 else nothing_more
        by_order.append(np.maximum(nothing_more, then))
    reached = np.array(by_order)
    return float((density * reached.max(axis=0)).sum()), (density * reached).sum(axis=1)


@pytest.mark.parametrize("first_cost", [0.02, 0.05, 0.2])
def test_the_naive_rule_reaches_about_twice_its_delta(first_cost: float) -> None:
    reached, _ = delta_reached(TWENTY_ORDERS, naive_bounds(TWENTY_ORDERS), first_cost)

    assert 2.0 * DELTA < reached < 2.5 * DELTA


def test_the_naive_rule_exceeds_its_delta_only_by_choosing_the_order_afterwards() -> None:
    _, by_order = delta_reached(TWENTY_ORDERS, naive_bounds(TWENTY_ORDERS), 0.05)

    assert 0.99 * DELTA < by_order.max() <= DELTA


@pytest.mark.parametrize("first_cost", [0.02, 0.05, 0.2, 0.45, 0.75])
def test_the_weighted_union_never_reaches_its_delta(first_cost: float) -> None:
    chosen = Budget.open(EPSILON, DELTA, TWENTY_ORDERS)
    even = Budget(EPSILON, DELTA, TWENTY_ORDERS, (1 / 32,) * 20)
    skewed = Budget(EPSILON, DELTA, TWENTY_ORDERS, (1 / 64,) * 19 + (0.5,))
    for budget in (chosen, even, skewed):
        reached, by_order = delta_reached(TWENTY_ORDERS, our_bounds(budget), first_cost)

        assert reached <= DELTA
        assert (by_order <= DELTA * np.array(budget.weights)).all()


def cost_of_two_outcomes(orders: tuple[float, ...], p: float, without: float) -> Vector:
    """The charged vector of a two-outcome mechanism: the worse of adding and removing, rounded up."""
    a, b = np.array([p]), np.array([without])
    worst = [max(divergence(order, a, b).item(), divergence(order, b, a).item(), 0.0) for order in orders]
    return tuple(math.ceil(value * UNITS_PER_NAT) + 1 for value in worst)


def test_after_the_gaussian_our_filter_refuses_what_the_naive_rule_admits() -> None:
    budget = Budget.open(EPSILON, DELTA, TWENTY_ORDERS)
    first = round_curve(1.0, 3.2, TWENTY_ORDERS).units  # costs about 0.05 α
    assert admits(budget, (0,) * 20, first)

    differing = 0
    for order, bound in zip(TWENTY_ORDERS, naive_bounds(TWENTY_ORDERS), strict=True):
        room = bound - order / (2 * 3.2**2)
        if room <= 0:
            continue
        frontier = greatest_with(order, room * (1 - 1e-6))
        best = int(np.argmax(frontier - np.exp(EPSILON) * WITHOUT))
        second = cost_of_two_outcomes(TWENTY_ORDERS, float(frontier[best]), float(WITHOUT[best]))
        total = [(a + b) / UNITS_PER_NAT for a, b in zip(first, second, strict=True)]
        assert any(spent <= limit for spent, limit in zip(total, naive_bounds(TWENTY_ORDERS), strict=True))
        differing += not admits(budget, first, second)

    assert differing >= 5
