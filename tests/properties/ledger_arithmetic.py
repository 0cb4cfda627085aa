"""The filter's arithmetic, computed a second time by other means: mpmath for thresholds, dp_accounting for curves.

This module does not: use ``accountant.filter``.
"""

from __future__ import annotations

from functools import lru_cache

import mpmath
import numpy as np
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant

from accountant.curve import round_curve
from accountant.orders import DEFAULT_ORDERS
from tests.properties.ledger_site import Site

Vector = tuple[int, ...]
UNITS = 2**40


@lru_cache(maxsize=256)
def thresholds(epsilon: float, delta: float, orders: Vector, weights: Vector) -> Vector:
    """floor(2^40 (ε − log(1 − 1/α) + log(δ w α)/(α − 1))), with 60 digits."""
    with mpmath.workdps(60):
        found = []
        for order, weight in zip(map(mpmath.mpf, orders), map(mpmath.mpf, weights), strict=True):
            bound = epsilon - mpmath.log(1 - 1 / order) + mpmath.log(delta * weight * order) / (order - 1)
            found.append(int(mpmath.floor(bound * UNITS)))
        return tuple(found)


def _thresholds(epsilon: float, delta: float, site: Site) -> Vector:
    budget = site.populations[0].budget  # all of them were opened alike
    return thresholds(epsilon, delta, budget.orders, budget.weights)


def fits(epsilon: float, delta: float, site: Site, spent: Vector) -> bool:
    return any(amount <= bound for amount, bound in zip(spent, _thresholds(epsilon, delta, site), strict=True))


def most_rounds(epsilon: float, delta: float, site: Site, spent: Vector, units: Vector) -> int:
    rows = zip(_thresholds(epsilon, delta, site), spent, units, strict=True)
    return max(0, max((bound - amount) // unit for bound, amount, unit in rows))


@lru_cache(maxsize=16)
def unit_cost(sampling_probability: float, noise_multiplier: float) -> Vector:
    """What a round must cost: no less than dp_accounting says, and hardly more."""
    event = PoissonSampledDpEvent(sampling_probability, GaussianDpEvent(noise_multiplier))
    least = RdpAccountant(DEFAULT_ORDERS).compose(event)._rdp * UNITS
    charged = round_curve(sampling_probability, noise_multiplier, DEFAULT_ORDERS).units
    if not (np.array(charged, dtype=float) >= least).all():
        raise AssertionError("a round is charged less than it costs")
    if not (np.array(charged, dtype=float) <= least * (1 + 1e-6) + 100).all():
        raise AssertionError("a round is charged far more than it costs")
    return charged
