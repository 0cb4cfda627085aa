"""How a new budget's trust is spread over the orders: the weights of the union bound.

Half lies on the order that is best for Gaussian-like use of the whole budget; there the price is log(2)/(α − 1) nats.
Use with small sampling probabilities and little noise has its best order further down, so most of the rest lies on
a ladder below, a little on one above, and a trace on every order. docs/adr/0002 has the measured loss of this
choice and of others.

Invariants
- The weights are positive multiples of 2**-20 and sum to at most 1, exactly.
- They are a function of ε, δ and the orders alone, taken when the budget is opened; they are stored, never
  computed again.

This module does not: decide what is admitted.
"""

from __future__ import annotations

import math

_BEST = 0.50
_BELOW = 0.42
_ABOVE = 0.03
_EVERYWHERE = 0.05
_RUNG = 0.2  # natural logarithm of the ratio between neighbouring rungs
_FADE = 0.35  # each rung has this share of the one before
_GRAIN = 2**20


def choose_weights(epsilon: float, delta: float, orders: tuple[float, ...]) -> tuple[float, ...]:
    """Weights for a budget of (epsilon, delta), one for each order."""
    best = best_gaussian_order(epsilon, delta, orders)
    mass = [_EVERYWHERE / len(orders)] * len(orders)
    mass[best] += _BEST
    for share, direction in ((_BELOW, -1), (_ABOVE, 1)):
        rungs = _ladder(orders, best, direction)
        total = sum(rungs.values())
        for position, part in rungs.items():
            mass[position] += share * part / total
    return tuple(max(math.floor(part * _GRAIN), 1) / _GRAIN for part in mass)


def best_gaussian_order(epsilon: float, delta: float, orders: tuple[float, ...]) -> int:
    """Position of the order that admits most of a curve c·α, which is what Gaussian mechanisms compose to."""

    def room(order: float) -> float:
        bound = epsilon - math.log1p(-1 / order) + (math.log(delta) + math.log(order)) / (order - 1)
        return bound / order

    return max(range(len(orders)), key=lambda position: room(orders[position]))


def _ladder(orders: tuple[float, ...], best: int, direction: int) -> dict[int, float]:
    """Positions of the orders next to the rungs of a geometric ladder, with relative weights that fade with the
    distance."""
    rungs: dict[int, float] = {}
    heights = [math.log(order) for order in orders]
    height, part = heights[best], 1.0
    while True:
        height += direction * _RUNG
        if not heights[0] - _RUNG / 2 <= height <= heights[-1] + _RUNG / 2:
            return rungs
        part *= _FADE
        position = min(range(len(orders)), key=lambda i: abs(heights[i] - height))
        if position != best:
            rungs[position] = rungs.get(position, 0.0) + part
