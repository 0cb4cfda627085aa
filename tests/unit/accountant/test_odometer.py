from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import mpmath
import pytest
from mpmath import mpf

from accountant.curve import UNITS_PER_NAT, round_curve
from accountant.errors import InvalidBudgetError, InvalidVectorError
from accountant.events import PoissonGaussian
from accountant.filter import Budget, admits, zero
from accountant.odometer import epsilon_reading, run_statement
from accountant.orders import DEFAULT_ORDERS

ORDERS = (1.5, 2.0, 4.0, 16.0, 64.0)
BUDGET = Budget.open(8.0, 1e-6, ORDERS)
CURVE = round_curve(0.01, 1.0, ORDERS)


def exact_reading(budget: Budget, spent: tuple[int, ...], delta: float) -> mpf:
    with mpmath.workdps(50):
        return min(
            mpf(amount) / UNITS_PER_NAT
            + mpmath.log(1 - 1 / mpf(order))
            - mpmath.log(mpf(delta) * mpf(weight) * mpf(order)) / (mpf(order) - 1)
            for amount, order, weight in zip(spent, budget.orders, budget.weights, strict=True)
        )


def test_nothing_spent_reads_zero() -> None:
    assert 0.0 == epsilon_reading(BUDGET, zero(ORDERS), 1e-6)


def test_the_least_spending_reads_more_than_zero() -> None:
    assert 0.0 < epsilon_reading(BUDGET, (0, 0, 0, 0, 1), 1e-6)
    assert 0.0 < epsilon_reading(BUDGET, (0, 0, 0, 0, 1), 0.5)


@pytest.mark.parametrize("delta", [1e-9, 1e-6, 1e-3])
@pytest.mark.parametrize("rounds", [1, 100, 10**6])
def test_a_reading_is_the_conversion_rounded_up(delta: float, rounds: int) -> None:
    spent = CURVE.times(rounds)
    reading, exact = epsilon_reading(BUDGET, spent, delta), exact_reading(BUDGET, spent, delta)

    assert exact <= reading <= exact * (1 + mpf(10) ** -15)


def test_a_full_budget_reads_at_most_its_epsilon() -> None:
    full = tuple(max(bound, 0) for bound in BUDGET.thresholds())
    assert admits(BUDGET, zero(ORDERS), full)

    assert BUDGET.epsilon * (1 - 1e-9) < epsilon_reading(BUDGET, full, BUDGET.delta) <= BUDGET.epsilon


def test_one_unit_too_much_reads_more_than_epsilon() -> None:
    over = tuple(max(bound, 0) + 1 for bound in BUDGET.thresholds())

    assert epsilon_reading(BUDGET, over, BUDGET.delta) > BUDGET.epsilon


def test_orders_and_weights_may_stand_for_the_budget() -> None:
    spent = CURVE.times(100)

    assert epsilon_reading(BUDGET, spent, 1e-7) == epsilon_reading((BUDGET.orders, BUDGET.weights), spent, 1e-7)


def test_a_smaller_delta_reads_more() -> None:
    spent = CURVE.times(100)

    assert epsilon_reading(BUDGET, spent, 1e-9) > epsilon_reading(BUDGET, spent, 1e-6)


def test_readings_are_not_additive() -> None:
    once, twice = CURVE.times(500), CURVE.times(1000)

    assert epsilon_reading(BUDGET, twice, 1e-6) < 1.9 * epsilon_reading(BUDGET, once, 1e-6)


@pytest.mark.parametrize("delta", [0.0, 1.0, math.nan, math.inf, -1e-6, None, "1e-6"])
def test_a_bad_delta_is_refused_never_read_as_zero(delta: Any) -> None:
    with pytest.raises(InvalidBudgetError):
        epsilon_reading(BUDGET, CURVE.times(1), delta)
    with pytest.raises(InvalidBudgetError):
        run_statement(PoissonGaussian(0.01, 1.0, 1), delta, ORDERS)


@pytest.mark.parametrize("spent", [(), (1, 2), (1, 2, 3, 4, -5), (1, 2, 3, 4, math.nan), (1, 2, 3, 4, 5.0)])
def test_a_bad_vector_is_refused_never_read_as_zero(spent: Any) -> None:
    with pytest.raises(InvalidVectorError):
        epsilon_reading(BUDGET, spent, 1e-6)


def test_weights_for_other_orders_are_refused() -> None:
    with pytest.raises(InvalidBudgetError):
        epsilon_reading((ORDERS, (0.5, 0.5)), CURVE.times(1), 1e-6)


def test_a_run_alone_needs_no_union_bound() -> None:
    event = PoissonGaussian(0.01, 1.0, 1000)

    assert run_statement(event, 1e-6, ORDERS) < epsilon_reading(BUDGET, CURVE.times(1000), 1e-6)


def test_a_tiny_run_is_never_free() -> None:
    assert run_statement(PoissonGaussian(1e-7, 1e4, 1), 1e-6, DEFAULT_ORDERS) > 0.0


def test_a_reading_is_an_exact_upper_bound_of_integers() -> None:
    reading = epsilon_reading(BUDGET, CURVE.times(7), 1e-6)

    assert Fraction(math.nextafter(reading, 0.0)) < Fraction(reading)
    assert exact_reading(BUDGET, CURVE.times(7), 1e-6) > math.nextafter(reading, 0.0)
