"""The curve of one round of the Gaussian over a sample of fixed size, drawn without replacement, computed twice.

Wang, Balle and Kasiviswanathan (2019, arXiv 1808.00087, theorem 27), for q = m/n and a Gaussian of noise multiplier z
(standard deviation over the sensitivity under "replace one"): for whole orders α ≥ 2,

    A(α) ≤ 1 + Σ_{j=2}^{α} C(α, j) q^j · min(4 (B(j₋) B(j₊))^(1/2), 2 e^{j(j−1)/2z²}),
    B(l) = E[(L − 1)^l],  L = dN(1, z²)/dN(0, z²) under N(0, z²),  j₋ and j₊ the even numbers around j,

where the term j = 2 is min(4 B(2), 2 e^{1/z²}). The curve is log(A) / (α − 1). Between whole orders log(A) is
interpolated (corollary 10 there: it is convex). Above α = 256 the simpler 2 e^{j(j−1)/2z²} stands for the minimum from
j = 3 on, as in dp_accounting; it is an upper bound too.

Our kernel takes B(l) from quadrature of a nowhere negative integrand. dp_accounting takes it from the l-th forward
difference of e^{i(i−1)/2z²} in floats, which cancels: its roundoff is about 2^l e^{l(l−1)/2z²} / 10^16, so for much
noise and high orders it is nothing but roundoff, mostly far above the truth. That costs (the larger is charged), and
it is known how much: a library's value is accepted if it lies between our sum with B(l) lowered and raised by that
roundoff.

Invariants
- Our kernel has a relative error below 1e-10 (tests compare with 60-digit arithmetic).
- Pure functions of their arguments; safe in any number of threads.

This module does not: double the sensitivity (``mechanisms`` does), pad, round or remember curves.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from accountant.errors import CurveDisagreementError
from accountant.kernel import Grid, grid
from accountant.mechanisms import SampledWithoutReplacementGaussian
from accountant.units import RELATIVE_GAP, Floats, checked

_EXACT_UP_TO = 256  # the highest order with differences, as in dp_accounting
_REACH = 12.0  # standard deviations beyond the integrand's outermost peaks: the rest is below 1e-25
_STEP = 0.1  # the trapezoidal rule's error is below 1e-14 there for every l ≤ 256 (measured against 60 digits)

# Roundoff of dp_accounting's differences, as a share of 2^l e^{l(l−1)/2z²}: l subtractions of logarithms, each of
# which is off by some 2^-53 of its size.
_ROUNDOFF = 1e-15
# B(2) it computes from 1 − e^{−1/z²}, as a subtraction: an error of this much of 1.
_SUBTRACTION = 4e-16


def own_curve(mechanism: SampledWithoutReplacementGaussian, orders: tuple[float, ...]) -> Floats:
    """By our kernel: about a millisecond; a few more for a noise multiplier that is new. Raises
    ``InvalidCurveError``."""
    z = mechanism.noise_multiplier
    if mechanism.sample_size == mechanism.population_size:
        return np.array(orders) / (2 * z * z)  # everybody, always: the Gaussian mechanism
    return checked(mechanism, np.maximum.accumulate(_interpolated(mechanism, orders, _terms(z))))


def both_curves(mechanism: SampledWithoutReplacementGaussian, orders: tuple[float, ...]) -> tuple[Floats, Floats]:
    """By our kernel and by dp_accounting (0.3 to 1 s). Raises ``CurveDisagreementError``, ``InvalidCurveError``."""
    own = own_curve(mechanism, orders)
    library = _library(mechanism, orders, own)
    low = high = own
    if mechanism.sample_size < mechanism.population_size:
        low, high = (_interpolated(mechanism, orders, _terms(mechanism.noise_multiplier, side)) for side in (-1, 1))
    check_agreement(mechanism, orders, low, high, library)
    return own, library


def check_agreement(mechanism: object, orders: tuple[float, ...], low: Floats, high: Floats, library: Floats) -> None:
    """Raise ``CurveDisagreementError`` at the first order where the library's curve is not between ``low`` and
    ``high``."""
    agrees = (library >= low * (1 - RELATIVE_GAP)) & (library <= high * (1 + RELATIVE_GAP))  # NaN: False
    if not agrees.all():
        worst = int(np.argmin(agrees))
        raise CurveDisagreementError(mechanism, orders[worst], float(high[worst]), float(library[worst]))


def _library(mechanism: SampledWithoutReplacementGaussian, orders: tuple[float, ...], own: Floats) -> Floats:
    import dp_accounting  # here, at the first new curve: it takes a second and most of SciPy
    from dp_accounting import rdp

    accountant = rdp.RdpAccountant(list(orders), dp_accounting.NeighboringRelation.REPLACE_ONE)
    event = dp_accounting.SampledWithoutReplacementDpEvent(
        mechanism.population_size, mechanism.sample_size, dp_accounting.GaussianDpEvent(mechanism.noise_multiplier)
    )
    try:
        with np.errstate(all="ignore"):  # logarithms of differences that are roundoff: checked afterwards
            accountant.compose(event)
    except (ArithmeticError, ValueError) as e:
        raise CurveDisagreementError(mechanism, math.nan, math.nan, math.nan) from e
    curve: Floats = np.asarray(accountant.rdp, dtype=np.float64)
    if curve.shape != own.shape:
        raise CurveDisagreementError(mechanism, math.nan, math.nan, math.nan)
    return curve


def _interpolated(mechanism: SampledWithoutReplacementGaussian, orders: tuple[float, ...], terms: Floats) -> Floats:
    """The curve at every order, from ``terms`` (of ``_terms``)."""
    whole = _whole_orders(orders)
    log_a = np.concatenate([[0.0], _log_a(mechanism, grid(whole), terms)])  # log A(1) = 0
    places = {1.0: 0} | {order: place + 1 for place, order in enumerate(whole)}
    alpha = np.array(orders)
    below = log_a[[places[math.floor(order)] for order in orders]]
    above = log_a[[places[math.ceil(order)] for order in orders]]
    share = alpha - np.floor(alpha)
    curve: Floats = ((1 - share) * below + share * above) / (alpha - 1)
    return curve


@lru_cache(maxsize=64)
def _whole_orders(orders: tuple[float, ...]) -> tuple[float, ...]:
    around = {float(edge(order)) for order in orders for edge in (math.floor, math.ceil)}
    return tuple(sorted(around - {1.0}))


def _log_a(mechanism: SampledWithoutReplacementGaussian, whole: Grid, terms: Floats) -> Floats:
    """log A at each whole order: every term is positive, summed in log space."""
    z, log_q = mechanism.noise_multiplier, math.log(mechanism.sampling_probability)
    top = int(whole.whole_orders[-1])
    j = np.arange(2, top + 1, dtype=np.float64)
    simple = math.log(2) + j * (j - 1) / (2 * z * z)
    simple[0] = terms[0]
    exact = simple.copy()
    count = min(len(terms), len(exact))
    exact[:count] = np.minimum(simple[:count], terms[:count])
    high = whole.whole_orders > _EXACT_UP_TO
    per_term = np.where(np.repeat(high, whole.lengths), simple[whole.k - 2], exact[whole.k - 2])
    logs = whole.log_binomial + whole.k * log_q + per_term
    largest = np.maximum.reduceat(logs, whole.starts)
    sums = np.add.reduceat(np.exp(logs - np.repeat(largest, whole.lengths)), whole.starts)
    result: Floats = np.logaddexp(0.0, largest + np.log(sums))
    return result


@lru_cache(maxsize=128)
def _terms(z: float, side: int = 0) -> Floats:
    """log of 4 (B(j₋) B(j₊))^(1/2) for j = 2, 3, …, 256; j = 2 is complete with its minimum.

    ``side``: −1 and 1 lower and raise every B by the library's roundoff.
    """
    even = np.arange(2, _EXACT_UP_TO + 1, 2, dtype=np.float64)
    log_b = _log_moments(z, even)
    if side:
        noise = even * math.log(2) + even * (even - 1) / (2 * z * z) + np.log(even * _ROUNDOFF)
        noise += np.log1p(even * even / (2 * z * z))  # a logarithm's error grows with its size
        if side > 0:
            log_b = np.logaddexp(log_b, noise)
        else:
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                log_b = np.where(noise < log_b, log_b + np.log(-np.expm1(noise - log_b)), -np.inf)
    terms = np.empty(_EXACT_UP_TO - 1)
    terms[0::2] = math.log(4) + log_b
    terms[1::2] = math.log(4) + 0.5 * (log_b[:-1] + log_b[1:])
    gaussian = 1 / (z * z)
    share = -math.expm1(-gaussian)
    squared = gaussian + math.log(share) + side * _SUBTRACTION / share  # log B(2), in closed form
    terms[0] = min(math.log(4) + squared, math.log(2) + gaussian)
    terms.setflags(write=False)  # it is shared
    return terms


def _log_moments(z: float, even: Floats) -> Floats:
    """log E[(L − 1)^l] for even l, or any value that leaves the minimum what it is.

    The tangent of y^l gives (L − 1)^l ≥ L^l − l L^{l−1}, so B(l) ≥ (1 − l e^{−(l−1)/z²}) e^{l(l−1)/2z²}: at least 7/8
    of the second factor once (l − 1)/z² ≥ log(8 l). From there the minimum takes the simpler branch, as it does with
    that factor in place of B(l). Where only one of j₋ and j₊ is there already, both are computed.
    """
    bound = even * (even - 1) / (2 * z * z)
    needed = (even - 1) <= z * z * np.log(8 * even)
    needed[1:] |= needed[:-1]
    result: Floats = bound.copy()
    if needed.any():
        powers = even[needed]
        t = np.arange(
            -_REACH - math.sqrt(powers[-1]), float((powers / z).max()) + math.sqrt(powers[-1]) + _REACH, _STEP
        )
        log_ratio = t / z - 0.5 / (z * z)
        with np.errstate(divide="ignore"):  # L = 1 contributes zero
            size = np.where(log_ratio > 0, log_ratio, 0.0) + np.log(-np.expm1(-np.abs(log_ratio)))
        logs = np.multiply.outer(powers, size) - 0.5 * t * t
        largest = logs.max(axis=1)
        sums = np.exp(logs - largest[:, np.newaxis]).sum(axis=1)
        result[needed] = largest + np.log(sums) + math.log(_STEP / math.sqrt(2 * math.pi))
    return result
