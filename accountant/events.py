"""What a mechanism is, for accounting: a closed, versioned vocabulary.

Invariants
- An event that exists is valid: every field was checked before any library could see it.
- A stored meaning never changes. A new meaning is a new type or a new version (privacy rule 14).

This module does not: compute anything, or read documents (``codec`` does).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from accountant.errors import InvalidEventError

MIN_NOISE_MULTIPLIER = 0.1
MAX_NOISE_MULTIPLIER = 1e4
MAX_ROUNDS = 10**7


@dataclass(frozen=True, slots=True)
class PoissonGaussian:
    """``rounds`` rounds of: every privacy unit enters independently with ``sampling_probability``, and the sum of
    clipped contributions gets Gaussian noise of ``noise_multiplier`` times the clipping norm. Neighbours:
    ``ADD_OR_REMOVE_ONE``.

    ``sampling_probability`` of 1 is the plain Gaussian mechanism. Raises ``InvalidEventError``.
    """

    sampling_probability: float
    noise_multiplier: float
    rounds: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "sampling_probability", sampling_probability(self.sampling_probability))
        object.__setattr__(self, "noise_multiplier", noise_multiplier(self.noise_multiplier))
        rounds(self.rounds)


Event = PoissonGaussian  # a union once there is a second member


def sampling_probability(value: object) -> float:
    """``value`` as a float in (0, 1], or ``InvalidEventError``."""
    number = _finite("sampling_probability", value)
    if not 0.0 < number <= 1.0:
        raise InvalidEventError("sampling_probability", value, "must be above 0 and at most 1")
    return number


def noise_multiplier(value: object) -> float:
    """``value`` as a float within the accounted range, or ``InvalidEventError``."""
    number = _finite("noise_multiplier", value)
    if not MIN_NOISE_MULTIPLIER <= number <= MAX_NOISE_MULTIPLIER:
        why = f"must be between {MIN_NOISE_MULTIPLIER:g} and {MAX_NOISE_MULTIPLIER:g}"
        raise InvalidEventError("noise_multiplier", value, why)
    return number


def rounds(value: object) -> int:
    """``value`` as an integer between 1 and ``MAX_ROUNDS``, or ``InvalidEventError``."""
    if type(value) is not int:  # bool and numpy integers are not what a document holds
        raise InvalidEventError("rounds", value, "must be an integer")
    if not 1 <= value <= MAX_ROUNDS:
        raise InvalidEventError("rounds", value, f"must be between 1 and {MAX_ROUNDS}")
    return value


def _finite(field: str, value: object) -> float:
    # JSON writes 1.0 as 1, so an int is welcome; a bool is an int to Python but never a probability.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidEventError(field, value, "must be a number")
    try:
        number = float(value)
    except OverflowError as e:
        raise InvalidEventError(field, value, "must be finite") from e
    if not math.isfinite(number):
        raise InvalidEventError(field, value, "must be finite")
    return number
