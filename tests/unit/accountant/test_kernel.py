"""The kernel against fifty-digit arithmetic, over the gate's whole domain and beyond."""

from __future__ import annotations

import numpy as np
import pytest
from mpmath import mpf

from accountant.kernel import grid, renyi_curve
from accountant.orders import DEFAULT_ORDERS
from tests.unit.accountant.oracle import exact_curve

TOLERANCE = 1e-11

WHOLE_ORDERS = (2.0, 3.0, 17.0, 108.0)
PROBABILITIES = (1e-12, 1e-7, 1e-6, 1e-3, 0.1, 0.5, 0.97)


def worst_relative_error(q: float, z: float, orders: tuple[float, ...]) -> float:
    computed = renyi_curve(q, z, grid(orders))
    return max(
        float(abs(mpf(float(value)) / exact_curve(q, z, order) - 1))
        for value, order in zip(computed, orders, strict=True)
    )


@pytest.mark.parametrize("q", PROBABILITIES)
@pytest.mark.parametrize("z", [0.1, 0.35, 1.0, 8.0, 1e4])
def test_whole_orders_agree_with_fifty_digits(q: float, z: float) -> None:
    assert worst_relative_error(q, z, WHOLE_ORDERS) < TOLERANCE


@pytest.mark.parametrize("q", PROBABILITIES)
@pytest.mark.parametrize("z", [0.6, 1.7, 8.0, 1e4])
def test_fractional_orders_agree_with_fifty_digits(q: float, z: float) -> None:
    assert worst_relative_error(q, z, (1.1, 2.5, 10.9)) < TOLERANCE


@pytest.mark.parametrize(("q", "order"), [(1e-7, 1.1), (1e-3, 2.5), (0.5, 10.9)])
def test_fractional_orders_agree_with_fifty_digits_at_the_least_noise(q: float, order: float) -> None:
    assert worst_relative_error(q, 0.1, (order, 11.0)) < TOLERANCE


@pytest.mark.parametrize(("q", "z"), [(1e-7, 0.1), (0.01, 1.0), (0.999, 1e4)])
def test_the_greatest_order_agrees_with_fifty_digits(q: float, z: float) -> None:
    assert worst_relative_error(q, z, (1000.0, 1024.0)) < TOLERANCE


def test_without_sampling_it_is_the_gaussian_curve() -> None:
    orders = np.array(DEFAULT_ORDERS)

    np.testing.assert_allclose(renyi_curve(1.0, 3.0, grid(DEFAULT_ORDERS)), orders / 18, rtol=1e-15)


def test_sampling_nearly_everybody_is_nearly_the_gaussian_curve() -> None:
    orders = np.array(DEFAULT_ORDERS)

    np.testing.assert_allclose(renyi_curve(1 - 1e-15, 3.0, grid(DEFAULT_ORDERS)), orders / 18, rtol=1e-12)


def test_each_order_is_independent_of_the_others_in_its_grid() -> None:
    alone = renyi_curve(0.02, 0.8, grid((1.5, 32.0)))
    among = renyi_curve(0.02, 0.8, grid(DEFAULT_ORDERS))

    np.testing.assert_allclose(alone, [among[DEFAULT_ORDERS.index(1.5)], among[DEFAULT_ORDERS.index(32.0)]], rtol=1e-12)


@pytest.mark.parametrize("orders", [(1.1, 1.2, 9.9), (2.0, 3.0, 64.0)])
def test_a_grid_may_hold_only_one_kind_of_orders(orders: tuple[float, ...]) -> None:
    assert worst_relative_error(0.01, 1.0, orders) < TOLERANCE
