"""The curve that is charged: computed twice, padded, rounded up to integers, remembered.

Invariants
- Never under-reports: per charge and order, ``units ≥ ρ(α) · 2**40`` for the true ρ (privacy rule 13).
- A curve is charged only if both computations agree within their known errors. The larger is charged.
- Integers: ``units × rounds`` and sums of it are exact, independent of order, and reversible.
- Curves are finite, positive and do not decrease with the order.
- The memo may be read and filled by any number of threads; equal arguments give the identical curve. Who asks for a
  remembered curve never waits for one that is being computed. The least recently used is forgotten first.

This module does not: hold budgets, know what was spent, or say which event is which mechanism.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from accountant import events, fixed_size, poisson, tree
from accountant.errors import InvalidVectorError
from accountant.mechanisms import GaussianTrees, Mechanism, SampledGaussian, SampledWithoutReplacementGaussian
from accountant.orders import DEFAULT_ORDERS, check_orders
from accountant.units import UNITS_PER_NAT, Floats, Units, to_units

__all__ = [
    "ACCOUNTANT",
    "DEFAULT_ORDERS",
    "UNITS_PER_NAT",
    "Curve",
    "curve_of",
    "estimate",
    "own_units",
    "round_curve",
]

ACCOUNTANT = "rdp/1 (dp_accounting 0.4.3 + own kernel)"  # stored in entries; a change of arithmetic is a new version
MAX_AMOUNT = 2**127 - 1

_MEMO_SIZE = 2048  # curves of the default grid take about 8 kB


@dataclass(frozen=True, slots=True)
class Curve:
    """Cost of one round, or of one atomic run, at each order, in integer units of 2**-40 nats. Raises
    ``InvalidVectorError``."""

    orders: tuple[float, ...]
    units: Units

    def __post_init__(self) -> None:
        # Curves come back from stored entries too.
        if len(self.units) != len(self.orders) or set(map(type, self.units)) != {int}:
            raise InvalidVectorError("a curve must have one integer for each order")
        if self.units[0] < 1 or any(later < earlier for earlier, later in pairwise(self.units)):
            raise InvalidVectorError("a curve must be positive and must not decrease")

    def times(self, rounds: int) -> Units:
        """Cost of ``rounds`` rounds, exact. Raises ``InvalidVectorError`` beyond 127 bits."""
        if type(rounds) is not int or rounds < 0:
            raise InvalidVectorError(f"rounds = {rounds!r}: must be an integer, not negative")
        amounts = tuple([unit * rounds for unit in self.units])
        if amounts[-1] > MAX_AMOUNT:  # the largest: curves do not decrease
            raise InvalidVectorError(f"the cost of {rounds} rounds leaves 127 bits")
        return amounts


_Key = tuple[Mechanism, tuple[float, ...]]
_memo: OrderedDict[_Key, Curve] = OrderedDict()
_looking = threading.Lock()  # held for one access to the memo
_filling = threading.Lock()  # held while a curve is computed


def curve_of(mechanism: Mechanism, orders: tuple[float, ...]) -> Curve:
    """The curve that is charged for one round of a mechanism, or for a whole tree run.

    The first call for new arguments takes 50 ms to 2 s, in dp_accounting; later ones a few microseconds. Raises
    ``InvalidBudgetError`` (orders), ``CurveDisagreementError``, ``InvalidCurveError``.
    """
    key = (mechanism, check_orders(orders))
    known = _remembered(key)
    if known is not None:
        return known
    with _filling:  # one at a time: the work is pure Python, so two threads would not be faster, only do it twice
        known = _remembered(key)
        if known is None:
            known = Curve(orders, to_units(mechanism, np.maximum(*_both(mechanism, orders))))
            with _looking:
                _memo[key] = known
                while len(_memo) > _MEMO_SIZE:
                    _memo.popitem(last=False)
    return known


def own_units(mechanism: Mechanism, orders: tuple[float, ...]) -> Units:
    """The same by our own computation alone, padded and rounded alike: fast. Never charged, never above the
    charged."""
    orders = check_orders(orders)
    match mechanism:
        case SampledGaussian():
            own = poisson.own_curve(mechanism, orders)
        case SampledWithoutReplacementGaussian():
            own = fixed_size.own_curve(mechanism, orders)
        case GaussianTrees():
            own = tree.own_curve(mechanism, orders)
    return to_units(mechanism, own)


def round_curve(sampling_probability: float, noise_multiplier: float, orders: tuple[float, ...]) -> Curve:
    """``curve_of`` one round of Poisson sampling under ``ADD_OR_REMOVE_ONE``. Raises ``InvalidEventError`` too."""
    return curve_of(_sampled(sampling_probability, noise_multiplier), orders)


def estimate(sampling_probability: float, noise_multiplier: float, orders: tuple[float, ...]) -> Units:
    """``own_units`` of one round of Poisson sampling under ``ADD_OR_REMOVE_ONE``: for solvers."""
    return own_units(_sampled(sampling_probability, noise_multiplier), orders)


def _sampled(q: object, z: object) -> SampledGaussian:
    return SampledGaussian(events.sampling_probability(q), events.noise_multiplier(z))


def _both(mechanism: Mechanism, orders: tuple[float, ...]) -> tuple[Floats, Floats]:
    match mechanism:
        case SampledGaussian():
            return poisson.both_curves(mechanism, orders)
        case SampledWithoutReplacementGaussian():
            return fixed_size.both_curves(mechanism, orders)
        case GaussianTrees():
            return tree.both_curves(mechanism, orders)


def _remembered(key: _Key) -> Curve | None:
    with _looking:
        known = _memo.get(key)
        if known is not None:
            _memo.move_to_end(key)
    return known
