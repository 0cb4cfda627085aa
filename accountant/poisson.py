"""The curve of one round of the Poisson-sampled Gaussian, computed twice.

Invariants
- Our kernel and dp_accounting agree within their known errors, or ``CurveDisagreementError``.

This module does not: pad, round, remember or validate parameters.
"""

from __future__ import annotations

import math

import numpy as np

from accountant.errors import CurveDisagreementError
from accountant.kernel import grid, renyi_curve
from accountant.mechanisms import SampledGaussian
from accountant.units import RELATIVE_GAP, Floats, checked

# How far the two may lie apart.
# Our kernel has a relative error below 1e-11 on the whole domain (tests/unit/accountant/test_kernel.py), however
# small the curve is. dp_accounting computes log A = (α − 1)ρ as a logarithm of a number near 1, so its error there
# is absolute: it stops its series for fractional orders at terms of e^-30 ≈ 1e-13 (measured: up to 5e-13 in log A,
# at q ≈ 0.5), and adds α terms with log-gamma roundoff in the whole orders (measured: below 3e-15 α). At q = 1e-6,
# z = 8 all of ρ ≈ 1e-14 is below that, and it answers 0, or 10 times too much at q = 1e-7: that is roundoff,
# legal, and harmless as the larger is charged and padded. So the same absolute allowance in log A holds in both
# directions, and a relative one for large curves. A gap beyond it is not explained by roundoff: too low or too
# high, one of the two computations is wrong, and nobody can say here which one.
_GAP_IN_LOG_A = 2e-12
_GAP_IN_LOG_A_PER_ORDER = 1e-14

# The curve increases with the sampling probability, so charging a tinier one as this is an upper bound. Below it,
# the terms' squares would leave the range of floats. It is one unit in a trillion.
_LEAST_SAMPLING_PROBABILITY = 1e-12


def own_curve(mechanism: SampledGaussian, orders: tuple[float, ...]) -> Floats:
    """By our kernel: 0.3 to 0.7 ms. Raises ``InvalidCurveError``."""
    return checked(mechanism, renyi_curve(_probability(mechanism), mechanism.noise_multiplier, grid(orders)))


def both_curves(mechanism: SampledGaussian, orders: tuple[float, ...]) -> tuple[Floats, Floats]:
    """By our kernel and by dp_accounting. Raises ``CurveDisagreementError``, ``InvalidCurveError``."""
    own = own_curve(mechanism, orders)
    library = _library(mechanism, orders, own)
    check_agreement(mechanism, orders, own, library)
    return own, library


def _probability(mechanism: SampledGaussian) -> float:
    return max(mechanism.sampling_probability, _LEAST_SAMPLING_PROBABILITY)


def _library(mechanism: SampledGaussian, orders: tuple[float, ...], own: Floats) -> Floats:
    # Imported here, at the first new curve: it takes a second and most of SciPy, which no user of events or
    # filters needs.
    import dp_accounting
    from dp_accounting import rdp

    # The noise multiplier is that of the relation already, and the curve is the same under all of them.
    accountant = rdp.RdpAccountant(list(orders), dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    gaussian = dp_accounting.GaussianDpEvent(mechanism.noise_multiplier)
    try:
        accountant.compose(dp_accounting.PoissonSampledDpEvent(_probability(mechanism), gaussian))
    except (ArithmeticError, ValueError) as e:
        raise CurveDisagreementError(mechanism, math.nan, math.nan, math.nan) from e
    curve: Floats = np.asarray(accountant.rdp, dtype=np.float64)
    if curve.shape != own.shape:
        raise CurveDisagreementError(mechanism, math.nan, math.nan, math.nan)
    return curve


def check_agreement(mechanism: object, orders: tuple[float, ...], own: Floats, library: Floats) -> None:
    """Raise ``CurveDisagreementError`` at the first order where the two differ by more than their known errors."""
    alpha = np.array(orders)
    allowed = RELATIVE_GAP * own + (_GAP_IN_LOG_A + _GAP_IN_LOG_A_PER_ORDER * alpha) / (alpha - 1)
    agrees = np.abs(library - own) <= allowed  # NaN: False
    if not agrees.all():
        worst = int(np.argmin(agrees))
        raise CurveDisagreementError(mechanism, orders[worst], float(own[worst]), float(library[worst]))
