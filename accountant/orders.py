"""Which Rényi orders are accounted.

Invariants
- A grid is checked once, before anything is computed on it, and never changes within one population.
- Fractional orders lie below ``MAX_FRACTIONAL_ORDER``: there, and nowhere else, the kernel's quadrature was verified.

This module does not: compute curves.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

from accountant.errors import InvalidBudgetError

MIN_ORDER = 1.05
MAX_FRACTIONAL_ORDER = 11.0
MAX_ORDER = 4096.0
MAX_ORDERS = 512


def _default_orders() -> tuple[float, ...]:
    library = [1 + x / 10.0 for x in range(1, 100)] + [float(x) for x in range(11, 64)]
    # Whole numbers, because the all-positive series needs them. Without these a budget of 0.1 loses a tenth.
    octaves = {float(round(64 * 2 ** (step / 8))) for step in range(33)}
    return (*library, *sorted(octaves))


# dp_accounting's default grid, and eight per octave from 64 to 1024: 185 orders.
DEFAULT_ORDERS: tuple[float, ...] = _default_orders()


@lru_cache(maxsize=64)
def check_orders(orders: tuple[float, ...]) -> tuple[float, ...]:
    """The same orders, or ``InvalidBudgetError``."""
    if not 2 <= len(orders) <= MAX_ORDERS:
        raise InvalidBudgetError("orders", len(orders), f"must be between 2 and {MAX_ORDERS} orders")
    for order in orders:
        if type(order) is not float or not math.isfinite(order) or not MIN_ORDER <= order <= MAX_ORDER:
            raise InvalidBudgetError("orders", order, f"each must be a float between {MIN_ORDER} and {MAX_ORDER:g}")
        if not order.is_integer() and order > MAX_FRACTIONAL_ORDER:
            raise InvalidBudgetError("orders", order, f"orders above {MAX_FRACTIONAL_ORDER:g} must be whole numbers")
    if any(later <= earlier for earlier, later in pairwise(orders)):
        raise InvalidBudgetError("orders", list(orders), "must increase")
    return orders
