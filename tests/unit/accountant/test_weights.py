from __future__ import annotations

import math
from fractions import Fraction

import pytest

from accountant.curve import UNITS_PER_NAT, estimate
from accountant.filter import Budget
from accountant.orders import DEFAULT_ORDERS
from accountant.weights import best_gaussian_order, choose_weights

BUDGETS = [(0.1, 1e-5), (1.0, 1e-6), (8.0, 1e-6), (20.0, 1e-10)]


@pytest.mark.parametrize(("epsilon", "delta"), BUDGETS)
def test_the_weights_are_positive_and_sum_to_at_most_one_exactly(epsilon: float, delta: float) -> None:
    weights = choose_weights(epsilon, delta, DEFAULT_ORDERS)

    assert min(weights) > 0
    assert 0.999 < sum(map(Fraction, weights)) <= 1


@pytest.mark.parametrize(("epsilon", "delta"), BUDGETS)
def test_half_of_the_weight_lies_on_the_order_that_is_best_for_gaussians(epsilon: float, delta: float) -> None:
    weights = choose_weights(epsilon, delta, DEFAULT_ORDERS)
    best = best_gaussian_order(epsilon, delta, DEFAULT_ORDERS)

    assert max(weights) == weights[best]
    assert 0.5 <= weights[best] < 0.51


def test_a_grid_of_two_orders_has_weights_too() -> None:
    assert sum(choose_weights(8.0, 1e-6, (2.0, 4.0))) <= 1


def lost_share(budget: Budget, q: float, z: float) -> float:
    """Share of the rounds of one kind that the weights cost, against knowing the kind, and so its order, beforehand."""
    costs = estimate(q, z, budget.orders)
    most = max(bound / cost for bound, cost in zip(budget.thresholds(), costs, strict=True))
    ideal = max(
        (bound - math.log(weight) / (order - 1) * UNITS_PER_NAT) / cost
        for bound, cost, order, weight in zip(budget.thresholds(), costs, budget.orders, budget.weights, strict=True)
    )
    return 1 - most / ideal


@pytest.mark.parametrize(("epsilon", "delta"), [(1.0, 1e-6), (3.0, 1e-6), (8.0, 1e-5), (8.0, 1e-6)])
def test_gaussian_like_use_loses_less_than_a_tenth(epsilon: float, delta: float) -> None:
    budget = Budget.open(epsilon, delta)

    assert lost_share(budget, 1.0, 50.0) < 0.07
    assert lost_share(budget, 0.01, 5.0) < 0.07
    assert lost_share(budget, 0.1, 4.0) < 0.09


@pytest.mark.parametrize(("q", "z"), [(0.001, 0.8), (0.01, 1.0), (0.05, 1.5), (0.2, 2.0)])
@pytest.mark.parametrize("epsilon", [3.0, 8.0])
def test_use_with_less_noise_loses_less_than_a_fifth(epsilon: float, q: float, z: float) -> None:
    assert lost_share(Budget.open(epsilon, 1e-6), q, z) < 0.2
