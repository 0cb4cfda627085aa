"""From a curve in nats to the integers that are charged.

Invariants
- Never under-reports: per order, ``units ≥ ρ(α) · 2**40`` for the true ρ, if ``curve`` is right to a relative 1e-9
  or an absolute 2e-12 (privacy rule 13).
- Units are positive Python integers and do not decrease with the order.

This module does not: compute a curve.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accountant.errors import InvalidCurveError

Floats = NDArray[np.float64]
Units = tuple[int, ...]

UNITS_PER_NAT = 2**40

# Rule 13: more than the error of either computation, and costs about 1e-9 of epsilon over thousands of runs.
_RELATIVE_PAD = 1e-9
_ABSOLUTE_PAD = 2e-12

_MAX_UNITS = 2.0**100  # the dearest legal event costs 2**82

# Roundoff may make a curve decrease by this much of itself.
RELATIVE_GAP = 1e-10


def checked(mechanism: object, curve: Floats) -> Floats:
    """The same curve, or ``InvalidCurveError`` if it is not finite, positive and non-decreasing."""
    # NaN fails every comparison, so each test is written to pass only when it holds.
    if not (np.isfinite(curve).all() and (curve > 0.0).all()):
        raise InvalidCurveError(mechanism, "not finite and positive")
    if not (curve[1:] >= curve[:-1] * (1 - RELATIVE_GAP)).all():
        raise InvalidCurveError(mechanism, "decreases with the order")
    return curve


def to_units(mechanism: object, curve: Floats) -> Units:
    """The padded curve in units of 2**-40 nats, rounded up. Raises ``InvalidCurveError``."""
    # Multiplying by a power of two is exact, so the only roundoff (2e-16) lies within the relative pad.
    rounded = np.ceil((curve * (1 + _RELATIVE_PAD) + _ABSOLUTE_PAD) * float(UNITS_PER_NAT))
    # A unit's worth of roundoff may break the order; the running maximum only raises.
    rounded = np.maximum.accumulate(rounded)
    if not (rounded[0] >= 1.0 and rounded[-1] < _MAX_UNITS):
        raise InvalidCurveError(mechanism, "outside the range of one charge")
    return tuple([int(value) for value in rounded.tolist()])
