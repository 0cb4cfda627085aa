"""The clamp solvers: the least change that makes a request fit under several caps at once (a population and its
quotas).

Invariants
- What a solver returns fits under every cap with the charged curve, not with an estimate.
- Rounds are exact: one round more would not fit (or was not asked for).
- Noise is the least value of four significant digits that fits, and clients the greatest number, by our kernel;
  should the charged curve differ, the answer moves on to the safe side until it fits.
- More noise, fewer clients and fewer rounds never cost more, at any order: that is why bisection is right.

This module does not: decide which parameter is clamped first (the caller does), or know policies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from accountant import events
from accountant.curve import Curve, estimate, round_curve
from accountant.errors import InvalidEventError, InvalidVectorError
from accountant.events import MAX_NOISE_MULTIPLIER, MIN_NOISE_MULTIPLIER
from accountant.filter import Budget, Vector, add, admits, zero

_MANTISSAS = 9000  # 1.000 to 9.999
_SLACK = 1e-12


@dataclass(frozen=True)
class Cap:
    """A budget with what is spent of it: debited, reserved and quarantined together."""

    name: str
    budget: Budget
    spent: Vector

    def __post_init__(self) -> None:
        add(self.spent, zero(self.budget.orders))  # checks the vector against the grid


def fits(caps: Sequence[Cap], candidate: Vector) -> Cap | None:
    """The first cap that refuses the candidate; None if it fits under all of them."""
    for cap in caps:
        if not admits(cap.budget, cap.spent, candidate):
            return cap
    return None


def largest_rounds(caps: Sequence[Cap], curve: Curve, at_most: int) -> int:
    """The greatest number of rounds up to ``at_most`` that fits under all caps; 0 if not even one does. Closed
    form."""
    if curve.orders != _orders(caps):
        raise InvalidVectorError("the curve belongs to another grid of orders than the caps")
    rounds = events.rounds(at_most)
    for cap in caps:
        room = zip(cap.budget.thresholds(), cap.spent, curve.units, strict=True)
        rounds = min(rounds, max([(bound - spent) // unit for bound, spent, unit in room]))
    return max(rounds, 0)


def smallest_noise_multiplier(
    caps: Sequence[Cap], sampling_probability: float, rounds: int, at_least: float, at_most: float
) -> float | None:
    """The least noise multiplier between ``at_least`` and ``at_most`` that fits: ``at_least`` itself, or a value
    of four significant digits, or ``at_most``. None if none fits."""
    low, high = _bounds(at_least, at_most)
    if low > high:
        return None
    request = _Request(caps, events.rounds(rounds))
    q = events.sampling_probability(sampling_probability)
    if request.margin(q, high) < 0.0:
        return None
    if request.margin(q, low) >= 0.0 and request.fits(q, low):
        return low
    # The lattice's ends lie just outside the bounds: there, the bounds count.
    first, last = _readable_at(math.log(low)) - 1, _readable_at(math.log(high)) + 2
    found = _first_true(
        _Lattice(lambda index: math.log(_readable(index)), _readable_at),
        lambda index: request.margin(q, min(max(_readable(index), low), high)),
        first,
        last,
    )
    step = 1
    while found < last:
        candidate = _readable(found)
        if low < candidate < high and request.fits(q, candidate):
            return candidate
        found, step = found + step, step * 2
    return high if request.fits(q, high) else None


def largest_clients_per_round(
    caps: Sequence[Cap], pool_size: int, noise_multiplier: float, rounds: int, at_most: int
) -> int:
    """The greatest number of expected clients per round, up to ``at_most`` and the pool, that fits; 0 if none
    does."""
    for field, value in (("pool_size", pool_size), ("clients_per_round", at_most)):
        if type(value) is not int or value < 1:
            raise InvalidEventError(field, value, "must be a positive integer")
    request = _Request(caps, events.rounds(rounds))
    z = events.noise_multiplier(noise_multiplier)
    most = min(at_most, pool_size)

    def margin(clients: int) -> float:
        return request.margin(clients / pool_size, z)

    if margin(1) < 0.0:
        return 0
    if margin(most) >= 0.0:
        clients = most
    else:
        # Numbered backwards: fewer clients, as more noise, are a greater index.
        lattice = _Lattice(lambda index: -math.log(-index), lambda position: -round(math.exp(-position)))
        clients = -_first_true(lattice, lambda index: margin(-index), -most, -1)
    step = 1
    while clients >= 1:
        if request.fits(clients / pool_size, z):
            return clients
        clients, step = clients - step, step * 2
    return 0


class _Request:
    """Caps and rounds of one solver call: how much room there is at each order."""

    def __init__(self, caps: Sequence[Cap], rounds: int) -> None:
        self.caps = caps
        self.rounds = rounds
        self.orders = _orders(caps)
        rooms = [[b - s for b, s in zip(cap.budget.thresholds(), cap.spent, strict=True)] for cap in caps]
        self._room = np.array(rooms, dtype=np.float64) / rounds
        self._margins: dict[tuple[float, float], float] = {}

    def margin(self, q: float, z: float) -> float:
        """log(room / cost) at the best order of the tightest cap, by the fast kernel. Negative: does not fit.

        Otherwise it may fit: the slack is far more than the roundoff here, and the charged curve decides.
        """
        known = self._margins.get((q, z))
        if known is None:
            cost = np.array(estimate(q, z, self.orders), dtype=np.float64)
            ratio = float((self._room / cost).max(axis=1).min())
            known = self._margins[q, z] = math.log(ratio) + _SLACK if ratio > 0.0 else -math.inf
        return known

    def fits(self, q: float, z: float) -> bool:
        """The truth: exact integers of the charged curve."""
        return fits(self.caps, round_curve(q, z, self.orders).times(self.rounds)) is None


@dataclass(frozen=True, slots=True)
class _Lattice:
    """The allowed values, numbered; ``position`` is where margins are almost a straight line, and ``at`` goes
    back."""

    position: Callable[[int], float]
    at: Callable[[float], int]


def _first_true(lattice: _Lattice, margin: Callable[[int], float], low: int, high: int) -> int:
    """The least index in [low, high] with a margin that is not negative, given that ``high`` has one and margins
    increase.

    Regula falsi, aimed a little beyond the root so that the bracket closes from both sides, with a halving step
    after any that shrank it badly: about six evaluations, and never more than twice as many as plain bisection.
    """
    at_low, at_high = margin(low), margin(high)
    if at_low >= 0.0:
        return low
    interpolate = True
    while high - low > 1:
        width = high - low
        if interpolate:
            share = at_low / (at_low - at_high)
            guess = lattice.at(lattice.position(low) + share * (lattice.position(high) - lattice.position(low)))
            beyond = max(width // 256, 1)
            guess += beyond if guess - low < high - guess else -beyond
            middle = min(max(guess, low + 1), high - 1)
        else:
            middle = low + width // 2
        at_middle = margin(middle)
        if at_middle >= 0.0:
            high, at_high = middle, at_middle
        else:
            low, at_low = middle, at_middle
        interpolate = not interpolate or (high - low) * 4 <= width
    return high


def _orders(caps: Sequence[Cap]) -> tuple[float, ...]:
    if not caps:
        raise InvalidVectorError("there must be at least one cap")
    orders = caps[0].budget.orders
    if any(cap.budget.orders != orders for cap in caps):
        raise InvalidVectorError("all caps must have the same orders")
    return orders


def _bounds(at_least: float, at_most: float) -> tuple[float, float]:
    for field, value in (("at_least", at_least), ("at_most", at_most)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InvalidEventError(field, value, "must be a finite number")
    return max(float(at_least), MIN_NOISE_MULTIPLIER), min(float(at_most), MAX_NOISE_MULTIPLIER)


def _readable(index: int) -> float:
    """Value number ``index`` of the numbers with four significant digits; number 0 is 1.000. Exactly what the text
    reads as."""
    decade, mantissa = divmod(index, _MANTISSAS)
    return float(f"{1000 + mantissa}e{decade - 3}")


def _readable_at(log_value: float) -> int:
    """The index of the readable value at or just below exp(log_value), give or take one in the last digit."""
    decade = math.floor(log_value / math.log(10))
    mantissa = math.floor(math.exp(log_value) / 10.0**decade * 1000)
    return decade * _MANTISSAS + mantissa - 1000
