"""How a new budget's trust is spread over the orders: the weights of the union bound.

Half lies on the order that is best for Gaussian-like use of the whole budget; there the price is log(2)/(α − 1) nats.
Use with small sampling probabilities and little noise has its best order further down, so most of the rest lies on
a ladder below, a little on one above, and a trace on every order.

An owner who knows what the budget will be used for may say so (``PlannedUse``). Then most lies on the order that is
best for that, a little on a ladder around it, and a quarter stays as it would be without a plan. So a plan that turns
out wrong costs at most log(4)/(α − 1) nats more than none. docs/privacy-proof.md has the measured loss of both.

Invariants
- The weights are positive multiples of 2**-20 and sum to at most 1, exactly.
- They are a function of ε, δ, the orders, the relation and the plan alone, taken when the budget is opened; they are
  stored, never computed again.
- Every choice of weights is equally private. A plan decides only which use finds most room.

This module does not: decide what is admitted, or hold anybody to a plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from accountant import events
from accountant.curve import estimate
from accountant.relations import ADD_OR_REMOVE_ONE, REPLACE_ONE

_BEST = 0.50
_BELOW = 0.42
_ABOVE = 0.03
_EVERYWHERE = 0.05
_RUNG = 0.2  # natural logarithm of the ratio between neighbouring rungs
_FADE = 0.35  # each rung has this share of the one before
_GRAIN = 2**20

_PLANNED = 0.70
_PLANNED_SIDE = 0.025  # on the ladder on either side
_UNPLANNED = 0.25  # of the weights that a budget without a plan has


@dataclass(frozen=True, slots=True)
class PlannedUse:
    """The round that the owner expects most of the budget to be spent on: Poisson sampling with
    ``sampling_probability`` and Gaussian noise of ``noise_multiplier``. How many such rounds does not matter.

    Raises ``InvalidEventError``, as the event of such a round would.
    """

    sampling_probability: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "sampling_probability", events.sampling_probability(self.sampling_probability))
        object.__setattr__(self, "noise_multiplier", events.noise_multiplier(self.noise_multiplier))


def choose_weights(
    epsilon: float,
    delta: float,
    orders: tuple[float, ...],
    planned_use: PlannedUse | None = None,
    relation: str = ADD_OR_REMOVE_ONE,
) -> tuple[float, ...]:
    """Weights for a budget of (epsilon, delta), one for each order."""
    mass = _without_plan(epsilon, delta, orders)
    if planned_use is not None:
        best = best_planned_order(epsilon, delta, orders, planned_use, relation)
        mass = [_UNPLANNED * part for part in mass]
        mass[best] += _PLANNED
        _spread(mass, orders, best, ((_PLANNED_SIDE, -1), (_PLANNED_SIDE, 1)))
    return tuple(max(math.floor(part * _GRAIN), 1) / _GRAIN for part in mass)


def best_gaussian_order(epsilon: float, delta: float, orders: tuple[float, ...]) -> int:
    """Position of the order that admits most of a curve c·α, which is what Gaussian mechanisms compose to."""
    return _best(epsilon, math.log(delta), orders, lambda position: orders[position])


def best_planned_order(
    epsilon: float, delta: float, orders: tuple[float, ...], planned_use: PlannedUse, relation: str
) -> int:
    """Position of the order that admits most rounds of the planned use, once it has its weight. By our own kernel: a
    millisecond, and nothing is charged from it."""
    noise = planned_use.noise_multiplier
    # Replacing moves a sum twice as far as removing, so it is charged at half the noise. The sample has a fixed size
    # there, whose curve bends alike; a centre that fits a little less is all that this can cost.
    if relation == REPLACE_ONE:
        noise = max(noise / 2, events.MIN_NOISE_MULTIPLIER)
    cost = estimate(planned_use.sampling_probability, noise, orders)
    return _best(epsilon, math.log(delta * _PLANNED), orders, lambda position: cost[position])


def _best(epsilon: float, log_delta: float, orders: tuple[float, ...], cost: Callable[[int], float]) -> int:
    def admitted(position: int) -> float:
        order = orders[position]
        bound = epsilon - math.log1p(-1 / order) + (log_delta + math.log(order)) / (order - 1)
        return bound / cost(position)

    return max(range(len(orders)), key=admitted)


def _without_plan(epsilon: float, delta: float, orders: tuple[float, ...]) -> list[float]:
    best = best_gaussian_order(epsilon, delta, orders)
    mass = [_EVERYWHERE / len(orders)] * len(orders)
    mass[best] += _BEST
    _spread(mass, orders, best, ((_BELOW, -1), (_ABOVE, 1)))
    return mass


def _spread(mass: list[float], orders: tuple[float, ...], best: int, sides: tuple[tuple[float, int], ...]) -> None:
    """Adds each side's share to the ladder on that side of ``best``."""
    for share, direction in sides:
        rungs = _ladder(orders, best, direction)
        total = sum(rungs.values())
        for position, part in rungs.items():
            mass[position] += share * part / total


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
