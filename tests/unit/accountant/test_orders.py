from __future__ import annotations

import math

import pytest
from dp_accounting.rdp import rdp_privacy_accountant

from accountant.errors import InvalidBudgetError
from accountant.orders import DEFAULT_ORDERS, check_orders


def test_the_default_grid_holds_all_orders_of_dp_accounting() -> None:
    assert set(rdp_privacy_accountant.DEFAULT_RDP_ORDERS) <= set(DEFAULT_ORDERS)


def test_the_default_grid_has_eight_orders_per_octave_from_64_to_1024() -> None:
    above = [order for order in DEFAULT_ORDERS if order >= 64]

    assert 33 == len(above)
    assert all(abs(math.log2(order / 64) * 8 - step) < 0.1 for step, order in enumerate(above))


def test_the_default_grid_is_valid() -> None:
    assert DEFAULT_ORDERS == check_orders(DEFAULT_ORDERS)


@pytest.mark.parametrize(
    "orders",
    [
        (),
        (2.0,),
        (2.0, 2.0),
        (3.0, 2.0),
        (1.0, 2.0),
        (0.5, 2.0),
        (2.0, math.nan),
        (2.0, math.inf),
        (2, 3),
        (2.0, 12.5),
        (2.0, 4097.0),
        tuple(float(order) for order in range(2, 600)),
    ],
)
def test_unusable_orders_are_refused(orders: tuple[float, ...]) -> None:
    with pytest.raises(InvalidBudgetError):
        check_orders(orders)
