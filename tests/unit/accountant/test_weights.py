from __future__ import annotations

import hashlib
import json
import math
from dataclasses import FrozenInstanceError
from fractions import Fraction
from typing import Any

import pytest

from accountant.curve import UNITS_PER_NAT, estimate
from accountant.errors import InvalidEventError
from accountant.filter import Budget
from accountant.orders import DEFAULT_ORDERS
from accountant.relations import ADD_OR_REMOVE_ONE, REPLACE_ONE
from accountant.weights import PlannedUse, best_gaussian_order, best_planned_order, choose_weights

BUDGETS = [(0.1, 1e-5), (1.0, 1e-6), (8.0, 1e-6), (20.0, 1e-10)]


USES = [PlannedUse(1.0, 20.0), PlannedUse(0.001, 0.6), PlannedUse(0.01, 1.0), PlannedUse(1e-9, 1e4), PlannedUse(1, 0.1)]


@pytest.mark.parametrize("planned_use", [None, *USES])
@pytest.mark.parametrize("orders", [DEFAULT_ORDERS, (2.0, 4.0), tuple(float(order) for order in range(2, 514))])
@pytest.mark.parametrize(("epsilon", "delta"), [*BUDGETS, (1e-6, 1e-300), (1e6, 0.9)])
def test_the_weights_are_whole_grains_and_sum_to_at_most_one_exactly(
    epsilon: float, delta: float, orders: tuple[float, ...], planned_use: PlannedUse | None
) -> None:
    weights = choose_weights(epsilon, delta, orders, planned_use)

    assert min(weights) > 0
    assert all((weight * 2**20).is_integer() for weight in weights)
    assert sum(map(Fraction, weights)) <= 1


@pytest.mark.parametrize("planned_use", [None, *USES])
@pytest.mark.parametrize(("epsilon", "delta"), BUDGETS)
def test_hardly_any_weight_is_given_away(epsilon: float, delta: float, planned_use: PlannedUse | None) -> None:
    assert sum(choose_weights(epsilon, delta, DEFAULT_ORDERS, planned_use)) > 0.97


@pytest.mark.parametrize(
    ("epsilon", "delta", "digest"),
    [
        (0.1, 1e-5, "f11894144175b5c9307a8c594a8e2647"),
        (1.0, 1e-6, "3b73702a671e0fb4abdc4a3a45f7f352"),
        (8.0, 1e-6, "182bf59d2facc961520592c8bfa67af2"),
        (20.0, 1e-10, "c0988b4d2bfe502a07e1f032cf5696b2"),
    ],
)
def test_the_weights_without_a_plan_are_those_of_the_first_release(epsilon: float, delta: float, digest: str) -> None:
    weights = json.dumps(Budget.open(epsilon, delta).weights).encode()

    assert digest == hashlib.sha256(weights).hexdigest()[:32]


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


@pytest.mark.parametrize("relation", [ADD_OR_REMOVE_ONE, REPLACE_ONE])
@pytest.mark.parametrize("planned_use", USES[:3])
@pytest.mark.parametrize(("epsilon", "delta"), BUDGETS[1:])
def test_most_of_the_weight_lies_on_the_order_that_is_best_for_the_plan(
    epsilon: float, delta: float, planned_use: PlannedUse, relation: str
) -> None:
    budget = Budget.open(epsilon, delta, relation=relation, planned_use=planned_use)
    best = best_planned_order(epsilon, delta, DEFAULT_ORDERS, planned_use, relation)

    assert max(budget.weights) == budget.weights[best]
    assert 0.7 <= budget.weights[best] < 0.84


@pytest.mark.parametrize(("q", "z"), [(0.001, 0.8), (0.01, 1.0), (0.01, 5.0), (0.2, 2.0), (1.0, 50.0)])
@pytest.mark.parametrize(("epsilon", "delta"), [(1.0, 1e-6), (3.0, 1e-6), (8.0, 1e-5), (8.0, 1e-7)])
def test_use_as_planned_loses_about_half_of_what_it_loses_without_a_plan(
    epsilon: float, delta: float, q: float, z: float
) -> None:
    planned = lost_share(Budget.open(epsilon, delta, planned_use=PlannedUse(q, z)), q, z)

    assert 0 < planned < 0.09
    assert planned < 0.55 * lost_share(Budget.open(epsilon, delta), q, z)


@pytest.mark.parametrize("planned_use", USES)
@pytest.mark.parametrize(("epsilon", "delta"), BUDGETS)
def test_a_wrong_plan_leaves_a_quarter_of_what_no_plan_gives(
    epsilon: float, delta: float, planned_use: PlannedUse
) -> None:
    planned = choose_weights(epsilon, delta, DEFAULT_ORDERS, planned_use)
    unplanned = choose_weights(epsilon, delta, DEFAULT_ORDERS)

    assert all(a >= b / 4 - 2**-20 for a, b in zip(planned, unplanned, strict=True))


def test_a_plan_under_replace_one_is_weighed_as_it_is_charged_with_half_the_noise() -> None:
    replaced = Budget.open(8.0, 1e-6, relation=REPLACE_ONE, planned_use=PlannedUse(0.01, 2.0))

    assert replaced.weights == Budget.open(8.0, 1e-6, planned_use=PlannedUse(0.01, 1.0)).weights
    assert replaced.weights != Budget.open(8.0, 1e-6, planned_use=PlannedUse(0.01, 2.0)).weights


@pytest.mark.parametrize(
    ("q", "z", "field"),
    [
        (0.0, 1.0, "sampling_probability"),
        (1.5, 1.0, "sampling_probability"),
        (math.nan, 1.0, "sampling_probability"),
        ("0.1", 1.0, "sampling_probability"),
        (True, 1.0, "sampling_probability"),
        (0.1, 0.0, "noise_multiplier"),
        (0.1, math.inf, "noise_multiplier"),
        (0.1, 1e5, "noise_multiplier"),
        (0.1, None, "noise_multiplier"),
    ],
)
def test_a_plan_that_could_not_be_accounted_is_refused(q: Any, z: Any, field: str) -> None:
    with pytest.raises(InvalidEventError) as refused:
        PlannedUse(q, z)

    assert field == refused.value.field


def test_a_plan_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        PlannedUse(0.1, 1.0).noise_multiplier = 2.0  # type: ignore[misc]


def test_a_budget_does_not_keep_its_plan() -> None:
    budget = Budget.open(8.0, 1e-6, planned_use=PlannedUse(0.01, 1.0))

    assert {"type", "version", "epsilon", "delta", "orders", "weights", "relation"} == set(budget.to_document())
    assert budget == Budget.from_document(budget.to_document())
