"""The curve that is charged: computed twice, padded, rounded up to integers, remembered.

Invariants
- Never under-reports: per round and order, ``units ≥ ρ(α) · 2**40`` for the true ρ (privacy rule 13).
- A curve is charged only if both computations agree within their known errors. The larger is charged.
- Integers: ``units × rounds`` and sums of it are exact, independent of order, and reversible.
- Curves are finite, positive and do not decrease with the order.
- The memo may be read and filled by any number of threads; equal arguments give the identical curve. Who asks for a
  remembered curve never waits for one that is being computed. The least recently used is forgotten first.

This module does not: hold budgets, or know what was spent.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from accountant import events
from accountant.errors import CurveDisagreementError, InvalidCurveError, InvalidVectorError
from accountant.kernel import Floats, grid, renyi_curve
from accountant.orders import DEFAULT_ORDERS, check_orders

__all__ = ["ACCOUNTANT", "DEFAULT_ORDERS", "UNITS_PER_NAT", "Curve", "estimate", "round_curve"]

ACCOUNTANT = "rdp/1 (dp_accounting 0.4.3 + own kernel)"  # stored in entries; a change of arithmetic is a new version
UNITS_PER_NAT = 2**40
MAX_AMOUNT = 2**127 - 1

# Rule 13: more than the error of either computation, and costs about 1e-9 of epsilon over thousands of runs.
_RELATIVE_PAD = 1e-9
_ABSOLUTE_PAD = 2e-12

# How far the two may lie apart.
# Our kernel has a relative error below 1e-11 on the whole domain (tests/unit/accountant/test_kernel.py), however
# small the curve is. dp_accounting computes log A = (α − 1)ρ as a logarithm of a number near 1, so its error there
# is absolute: it stops its series for fractional orders at terms of e^-30 ≈ 1e-13 (measured: up to 5e-13 in log A,
# at q ≈ 0.5), and adds α terms with log-gamma roundoff in the whole orders (measured: below 3e-15 α). At q = 1e-6,
# z = 8 all of ρ ≈ 1e-14 is below that, and it answers 0, or 10 times too much at q = 1e-7: that is roundoff,
# legal, and harmless as the larger is charged and padded. So the same absolute allowance in log A holds in both
# directions, and a relative one for large curves. A gap beyond it is not explained by roundoff: too low or too
# high, one of the two computations is wrong, and nobody can say here which one.
_RELATIVE_GAP = 1e-10
_GAP_IN_LOG_A = 2e-12
_GAP_IN_LOG_A_PER_ORDER = 1e-14

# The curve increases with the sampling probability, so charging a tinier one as this is an upper bound. Below it,
# the terms' squares would leave the range of floats. It is one unit in a trillion.
_LEAST_SAMPLING_PROBABILITY = 1e-12

_MEMO_SIZE = 2048  # curves of the default grid take about 8 kB


@dataclass(frozen=True, slots=True)
class Curve:
    """Cost of one round at each order, in integer units of 2**-40 nats. Raises ``InvalidVectorError``."""

    orders: tuple[float, ...]
    units: tuple[int, ...]

    def __post_init__(self) -> None:
        # Curves come back from stored entries too.
        if len(self.units) != len(self.orders) or set(map(type, self.units)) != {int}:
            raise InvalidVectorError("a curve must have one integer for each order")
        if self.units[0] < 1 or any(later < earlier for earlier, later in pairwise(self.units)):
            raise InvalidVectorError("a curve must be positive and must not decrease")

    def times(self, rounds: int) -> tuple[int, ...]:
        """Cost of ``rounds`` rounds, exact. Raises ``InvalidVectorError`` beyond 127 bits."""
        if type(rounds) is not int or rounds < 0:
            raise InvalidVectorError(f"rounds = {rounds!r}: must be an integer, not negative")
        amounts = tuple([unit * rounds for unit in self.units])
        if amounts[-1] > MAX_AMOUNT:  # the largest: curves do not decrease
            raise InvalidVectorError(f"the cost of {rounds} rounds leaves 127 bits")
        return amounts


_Key = tuple[float, float, tuple[float, ...]]
_memo: OrderedDict[_Key, Curve] = OrderedDict()
_looking = threading.Lock()  # held for one access to the memo
_filling = threading.Lock()  # held while a curve is computed


def round_curve(sampling_probability: float, noise_multiplier: float, orders: tuple[float, ...]) -> Curve:
    """The curve of one round that is charged.

    The first call for new arguments takes 50 ms to 2 s, in dp_accounting; later ones a few microseconds. Raises
    ``InvalidEventError``, ``InvalidBudgetError`` (orders), ``CurveDisagreementError``, ``InvalidCurveError``.
    """
    q, z, orders = _checked(sampling_probability, noise_multiplier, orders)
    key = (q, z, orders)
    known = _remembered(key)
    if known is not None:
        return known
    with _filling:  # one at a time: the work is pure Python, so two threads would not be faster, only do it twice
        known = _remembered(key)
        if known is None:
            known = _charged(q, z, orders)
            with _looking:
                _memo[key] = known
                while len(_memo) > _MEMO_SIZE:
                    _memo.popitem(last=False)
    return known


def _remembered(key: _Key) -> Curve | None:
    with _looking:
        known = _memo.get(key)
        if known is not None:
            _memo.move_to_end(key)
    return known


def estimate(sampling_probability: float, noise_multiplier: float, orders: tuple[float, ...]) -> tuple[int, ...]:
    """Units of one round by our kernel alone, padded and rounded alike: fast, for solvers. Never charged, never
    above the charged."""
    q, z, orders = _checked(sampling_probability, noise_multiplier, orders)
    return _units(q, z, _own(q, z, orders))


def _checked(q: object, z: object, orders: tuple[float, ...]) -> tuple[float, float, tuple[float, ...]]:
    checked_q = max(events.sampling_probability(q), _LEAST_SAMPLING_PROBABILITY)
    return checked_q, events.noise_multiplier(z), check_orders(orders)


def _charged(q: float, z: float, orders: tuple[float, ...]) -> Curve:
    own = _own(q, z, orders)
    library = _library(q, z, orders, own)
    check_agreement(q, z, orders, own, library)
    return Curve(orders, _units(q, z, np.maximum(own, library)))


def _own(q: float, z: float, orders: tuple[float, ...]) -> Floats:
    curve = renyi_curve(q, z, grid(orders))
    # NaN fails every comparison, so each test is written to pass only when it holds.
    if not (np.isfinite(curve).all() and (curve > 0.0).all()):
        raise InvalidCurveError(q, z, "not finite and positive")
    if not (curve[1:] >= curve[:-1] * (1 - _RELATIVE_GAP)).all():
        raise InvalidCurveError(q, z, "decreases with the order")
    return curve


def _library(q: float, z: float, orders: tuple[float, ...], own: Floats) -> Floats:
    # Imported here, at the first new curve: it takes a second and most of SciPy, which no user of events or
    # filters needs.
    import dp_accounting
    from dp_accounting import rdp

    accountant = rdp.RdpAccountant(list(orders), dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    try:
        accountant.compose(dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(z)))
    except (ArithmeticError, ValueError) as e:
        raise CurveDisagreementError(q, z, math.nan, math.nan, math.nan) from e
    curve: Floats = np.asarray(accountant.rdp, dtype=np.float64)
    if curve.shape != own.shape:
        raise CurveDisagreementError(q, z, math.nan, math.nan, math.nan)
    return curve


def check_agreement(q: float, z: float, orders: tuple[float, ...], own: Floats, library: Floats) -> None:
    """Raise ``CurveDisagreementError`` at the first order where the two differ by more than their known errors."""
    alpha = np.array(orders)
    allowed = _RELATIVE_GAP * own + (_GAP_IN_LOG_A + _GAP_IN_LOG_A_PER_ORDER * alpha) / (alpha - 1)
    agrees = np.abs(library - own) <= allowed  # NaN: False
    if not agrees.all():
        worst = int(np.argmin(agrees))
        raise CurveDisagreementError(q, z, orders[worst], float(own[worst]), float(library[worst]))


def _units(q: float, z: float, curve: Floats) -> tuple[int, ...]:
    # Multiplying by a power of two is exact, so the only roundoff (2e-16) lies within the relative pad.
    rounded = np.ceil((curve * (1 + _RELATIVE_PAD) + _ABSOLUTE_PAD) * float(UNITS_PER_NAT))
    # A unit's worth of roundoff may break the order; the running maximum only raises.
    rounded = np.maximum.accumulate(rounded)
    if not (rounded[0] >= 1.0 and rounded[-1] < 2.0**62):
        raise InvalidCurveError(q, z, "outside the range of one round")
    return tuple(rounded.astype(np.int64).tolist())
