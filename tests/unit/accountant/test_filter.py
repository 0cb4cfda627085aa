from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError
from typing import Any

import mpmath
import numpy as np
import pytest
from mpmath import mpf

from accountant.codec import canonical_bytes
from accountant.curve import UNITS_PER_NAT, round_curve
from accountant.errors import InvalidBudgetError, InvalidVectorError
from accountant.filter import RELATIONS, Budget, add, admits, subtract, zero
from accountant.orders import DEFAULT_ORDERS

ORDERS = (1.5, 2.0, 4.0, 16.0, 64.0)
EVEN = (0.2, 0.2, 0.2, 0.2, 0.125)
BUDGET = Budget(8.0, 1e-6, ORDERS, EVEN)


def exact_threshold(epsilon: float, delta: float, order: float, weight: float) -> mpf:
    with mpmath.workdps(50):
        alpha = mpf(order)
        bound = mpf(epsilon) - mpmath.log(1 - 1 / alpha)
        bound += mpmath.log(mpf(delta) * mpf(weight) * alpha) / (alpha - 1)
        return bound * UNITS_PER_NAT


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0, 20.0])
@pytest.mark.parametrize("delta", [1e-5, 1e-9, 1e-100])
def test_thresholds_are_the_rules_bound_rounded_down(epsilon: float, delta: float) -> None:
    budget = Budget(epsilon, delta, (*ORDERS, 4096.0), (0.1, 0.1, 0.1, 0.1, 0.09, 0.5))
    for threshold, order, weight in zip(budget.thresholds(), budget.orders, budget.weights, strict=True):
        exact = exact_threshold(epsilon, delta, order, weight)
        assert threshold <= exact < threshold + 1 + 1e-9


def test_one_order_with_room_is_enough() -> None:
    full = tuple(max(bound, 0) for bound in BUDGET.thresholds())
    over = tuple(bound + 1 for bound in full)

    assert admits(BUDGET, zero(ORDERS), full)
    assert not admits(BUDGET, zero(ORDERS), over)
    assert admits(BUDGET, zero(ORDERS), (*over[:3], full[3], over[4]))


def test_the_last_unit_counts() -> None:
    full = tuple(max(bound, 0) for bound in BUDGET.thresholds())
    one = (1,) * len(ORDERS)

    assert admits(BUDGET, (*full[:4], full[4] - 1), one)
    assert not admits(BUDGET, full, one)


def test_an_order_whose_bound_is_negative_admits_nothing() -> None:
    small = Budget(0.5, 1e-6, (1.5, 64.0), (0.5, 0.5))
    assert small.thresholds()[0] < 0

    assert not admits(small, (0, small.thresholds()[1]), (1, 1))


def test_amounts_beyond_64_bits_are_not_admitted() -> None:
    amounts = round_curve(1e-4, 0.5, (2.0, 512.0, 1024.0)).times(3000)
    budget = Budget(1.0, 1e-6, (2.0, 512.0, 1024.0), (0.25, 0.25, 0.5))

    assert not admits(budget, amounts, amounts)
    assert add(amounts, amounts)[-1] > 2**63


def test_sums_beyond_127_bits_are_refused() -> None:
    huge = (2**126,) * len(ORDERS)
    with pytest.raises(InvalidVectorError):
        add(huge, huge)
    with pytest.raises(InvalidVectorError):
        admits(BUDGET, huge, huge)


@pytest.mark.parametrize(
    "vector",
    [
        (),
        (1, 2, 3, 4),
        (1, 2, 3, 4, 5, 6),
        (1, 2, 3, 4, -1),
        (1, 2, 3, 4, 5.0),
        (1, 2, 3, 4, math.nan),
        (1, 2, 3, 4, True),
        (1, 2, 3, 4, None),
        (1, 2, 3, 4, np.int64(5)),
        (1, 2, 3, 4, 2**127),
    ],
)
def test_foreign_amounts_are_refused(vector: Any) -> None:
    good = (1, 2, 3, 4, 5)
    for refuse in (
        lambda: admits(BUDGET, vector, good),
        lambda: admits(BUDGET, good, vector),
        lambda: add(good, vector),
        lambda: add(vector, good),
        lambda: subtract(good, vector),
    ):
        with pytest.raises(InvalidVectorError):
            refuse()


def test_what_was_added_can_be_subtracted_exactly() -> None:
    held, run = (3 * 2**70, 5, 7, 11, 13), (2**70 + 1, 5, 0, 1, 13)

    assert held == subtract(add(held, run), run)


def test_giving_back_more_than_is_held_is_refused() -> None:
    with pytest.raises(InvalidVectorError):
        subtract((1, 2, 3, 4, 5), (1, 2, 3, 4, 6))


def test_the_stored_form_of_a_budget_never_changes() -> None:
    expected = (
        b'{"delta":0.000001,"epsilon":8,"orders":[1.5,2,4,16,64],"relation":"ADD_OR_REMOVE_ONE",'
        b'"type":"weighted_union_rdp_filter","version":1,"weights":[0.2,0.2,0.2,0.2,0.125]}'
    )

    assert expected == canonical_bytes(BUDGET.to_document())


@pytest.mark.parametrize("budget", [BUDGET, Budget.open(8.0, 1e-6), Budget.open(0.1, 1e-9)])
def test_a_budget_survives_canonical_json_exactly(budget: Budget) -> None:
    restored = Budget.from_document(json.loads(canonical_bytes(budget.to_document())))

    assert budget == restored
    assert budget.thresholds() == restored.thresholds()


@pytest.mark.parametrize(
    "change",
    [
        {"type": "rdp_filter"},
        {"version": 2},
        {"version": True},
        {"version": "1"},
        {"extra": 1},
        {"orders": "1.5"},
        {"orders": [1.5, 2.0, 4.0, 16.0]},
        {"orders": [1.5, 2.0, 4.0, 16.0, None]},
        {"weights": {"1.5": 1}},
        {"weights": [0.2, 0.2, 0.2, 0.2, "0.2"]},
        {"relation": "REPLACE_TWO"},
        {"relation": None},
        {"epsilon": "8"},
        {"delta": None},
    ],
)
def test_a_foreign_or_damaged_budget_document_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidBudgetError):
        Budget.from_document(BUDGET.to_document() | change)


@pytest.mark.parametrize("document", [None, [], "budget", {}, {"epsilon": 8.0}])
def test_what_is_no_budget_document_is_refused(document: object) -> None:
    with pytest.raises(InvalidBudgetError):
        Budget.from_document(document)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, 1e-7, 1e7, math.nan, math.inf, "8", None, True, 10**400])
def test_a_bad_epsilon_is_refused(epsilon: Any) -> None:
    with pytest.raises(InvalidBudgetError) as refused:
        Budget.open(epsilon, 1e-6)

    assert "epsilon" == refused.value.field


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-6, 2.0, math.nan, math.inf, "1e-6", None, False])
def test_a_bad_delta_is_refused(delta: Any) -> None:
    with pytest.raises(InvalidBudgetError) as refused:
        Budget.open(8.0, delta)

    assert "delta" == refused.value.field


@pytest.mark.parametrize(
    "weights",
    [
        (0.2, 0.2, 0.2, 0.2),
        (0.2, 0.2, 0.2, 0.2, 0.3),
        (0.2, 0.2, 0.2, 0.2, 0.20000000000000004),
        (0.2, 0.2, 0.2, 0.2, 0.0),
        (0.2, 0.2, 0.2, 0.2, -0.2),
        (0.2, 0.2, 0.2, 0.2, math.nan),
        (0, 0, 0, 0, 1),
    ],
)
def test_weights_that_are_no_union_bound_are_refused(weights: Any) -> None:
    with pytest.raises(InvalidBudgetError) as refused:
        Budget(8.0, 1e-6, ORDERS, weights)

    assert "weights" == refused.value.field


def test_a_budget_that_could_admit_nothing_is_refused_when_it_is_opened() -> None:
    with pytest.raises(InvalidBudgetError, match="raise epsilon or delta"):
        Budget.open(0.001, 1e-10)


@pytest.mark.parametrize("relation", ["ADD_OR_REMOVE_ONE", "REPLACE_ONE", "REPLACE_SPECIAL"])
def test_each_neighbouring_relation_may_be_a_budgets(relation: str) -> None:
    assert relation in RELATIONS
    assert relation == Budget.open(8.0, 1e-6, ORDERS, relation).relation


@pytest.mark.parametrize("relation", ["replace_one", "", None, 1, ("REPLACE_ONE",)])
def test_an_unknown_relation_is_refused(relation: Any) -> None:
    with pytest.raises(InvalidBudgetError) as refused:
        Budget.open(8.0, 1e-6, ORDERS, relation)

    assert "relation" == refused.value.field


def test_a_budget_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        BUDGET.epsilon = 9.0  # type: ignore[misc]


def test_a_new_budget_has_the_default_orders() -> None:
    assert DEFAULT_ORDERS == Budget.open(8.0, 1e-6).orders
    assert "ADD_OR_REMOVE_ONE" == Budget.open(8.0, 1e-6).relation
