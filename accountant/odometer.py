"""What was spent so far, as an ε at a δ. A reading, never the guarantee: the guarantee is the budget's cap
(privacy rule 5).

Invariants
- Rounded up, and 0.0 only where nothing at all was spent.
- For a vector that the filter admitted, the reading at the budget's own δ is at most the budget's ε, exactly: both
  come from the same integers.
- Readings are never added up: composition is not addition of ε.

This module does not: decide what is admitted.
"""

from __future__ import annotations

import math
from fractions import Fraction

from accountant.charge import charge
from accountant.curve import UNITS_PER_NAT
from accountant.errors import InvalidBudgetError
from accountant.events import Event
from accountant.filter import FINE_BITS, FINE_PER_NAT, Budget, Vector, check_delta, conversion_offsets, subtract, zero
from accountant.orders import check_orders
from accountant.relations import ADD_OR_REMOVE_ONE

_LEAST_READING = 1 / UNITS_PER_NAT  # for what the conversion calls (0, δ)-private: something was spent all the same


def epsilon_reading(source: Budget | tuple[tuple[float, ...], tuple[float, ...]], spent: Vector, delta: float) -> float:
    """The smallest ε with which ``spent`` counts as (ε, delta) under a budget's orders and weights.

    ``source`` is a budget, or a pair (orders, weights). Raises ``InvalidBudgetError`` or ``InvalidVectorError``.
    """
    orders, weights = (source.orders, source.weights) if isinstance(source, Budget) else source
    if len(weights) != len(orders):
        raise InvalidBudgetError("weights", len(weights), f"must be one for each of the {len(orders)} orders")
    return _reading(spent, check_delta(delta), check_orders(orders), weights)


def run_statement(event: Event, delta: float, orders: tuple[float, ...], relation: str = ADD_OR_REMOVE_ONE) -> float:
    """ε at ``delta`` of one run alone, by Rényi divergence. Its parameters are fixed up front, so the best order
    counts in full.

    Raises ``NotComposableError`` where the event has no meaning under the relation, ``InvalidBudgetError``.
    """
    delta = check_delta(delta)
    return _reading(charge(event, orders, relation).total, delta, orders, (1.0,) * len(orders))


def _reading(spent: Vector, delta: float, orders: tuple[float, ...], weights: tuple[float, ...]) -> float:
    if not any(subtract(spent, zero(orders))):  # also checks the vector
        return 0.0
    offsets = conversion_offsets(delta, orders, weights)
    fine = min([(amount << FINE_BITS) + offset for amount, offset in zip(spent, offsets, strict=True)])
    exact = Fraction(fine, FINE_PER_NAT)
    reading = float(exact)
    if Fraction(reading) < exact:
        reading = math.nextafter(reading, math.inf)
    return max(reading, _LEAST_READING)
