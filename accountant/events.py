"""What a mechanism is, for accounting: a closed, versioned vocabulary.

Invariants
- An event that exists is valid: every field was checked before any library could see it, and is bounded, so that no
  event takes unbounded time or memory to account for.
- A stored meaning never changes. A new meaning is a new type or a new version (privacy rule 14).

This module does not: compute a cost, say which events compose under which neighbouring relation (``mechanisms``
does), or read documents (``codec`` does).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from accountant.errors import InvalidEventError

MIN_NOISE_MULTIPLIER = 0.1
MAX_NOISE_MULTIPLIER = 1e4
MAX_ROUNDS = 10**7
MAX_STATISTICS = 256  # of one cohort
MAX_CLIPPED_COUNT_STDDEV = 1e9  # in people
MAX_POPULATION_SIZE = 10**10
# At the worst within these bounds, a tree's dynamic programme takes a few seconds.
MAX_TREE_ROUNDS = 2**20
MAX_TREES = 64
MAX_TREE_PARTICIPATIONS = 128


@dataclass(frozen=True, slots=True)
class PoissonGaussian:
    """``rounds`` rounds of: every privacy unit enters independently with ``sampling_probability``, and the sum of
    clipped contributions gets Gaussian noise of ``noise_multiplier`` times the clipping norm.

    ``sampling_probability`` of 1 is the plain Gaussian mechanism. Raises ``InvalidEventError``.
    """

    sampling_probability: float
    noise_multiplier: float
    rounds: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "sampling_probability", sampling_probability(self.sampling_probability))
        object.__setattr__(self, "noise_multiplier", noise_multiplier(self.noise_multiplier))
        rounds(self.rounds)


@dataclass(frozen=True, slots=True)
class PoissonGaussianStatistics:
    """``rounds`` rounds of several noised sums over one Poisson cohort each: the update and every metric, say.

    They share the cohort's coins, so they are one event (privacy rule 9). Scaled by their noise, the sums are one
    vector of sensitivity (Σ z_i⁻²)^(1/2) under noise of 1: exactly a Gaussian sum of ``noise_multiplier`` =
    (Σ z_i⁻²)^(−1/2) over the same cohort. Raises ``InvalidEventError``.
    """

    sampling_probability: float
    noise_multipliers: tuple[float, ...]
    rounds: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "sampling_probability", sampling_probability(self.sampling_probability))
        multipliers = self.noise_multipliers
        if not isinstance(multipliers, tuple | list) or not 1 <= len(multipliers) <= MAX_STATISTICS:
            why = f"must be a list of 1 to {MAX_STATISTICS} numbers, one for each statistic"
            raise InvalidEventError("noise_multipliers", multipliers, why)
        numbers = tuple(noise_multiplier(value, "noise_multipliers") for value in multipliers)
        object.__setattr__(self, "noise_multipliers", numbers)
        if self.noise_multiplier < MIN_NOISE_MULTIPLIER:
            why = (
                f"together they are a noise multiplier of {self.noise_multiplier:.4g}, which must be at least "
                f"{MIN_NOISE_MULTIPLIER:g}; raise them, or publish fewer statistics"
            )
            raise InvalidEventError("noise_multipliers", list(numbers), why)
        rounds(self.rounds)

    @property
    def noise_multiplier(self) -> float:
        """Of the one Gaussian sum that all statistics together are."""
        return 1 / math.sqrt(math.fsum(value**-2 for value in self.noise_multipliers))


@dataclass(frozen=True, slots=True)
class AdaptiveClippingGaussian:
    """``rounds`` rounds of a noised sum whose clipping norm follows a noised count of the units that were clipped
    (Andrew, Thakkar, McMahan and Ramaswamy, NeurIPS 2021, "Differentially private learning with adaptive clipping",
    theorem 1).

    ``noise_multiplier`` is the total z of value and count noise, as TFF takes it; it is accounted once.
    ``clipped_count_stddev`` σ_b is the standard deviation of the count's noise, in people. A unit adds ±1/2 to the
    shifted count, so count and value are together one Gaussian sum of noise multiplier z exactly if the value's noise
    is ``value_noise_multiplier`` = (z⁻² − (2σ_b)⁻²)^(−1/2), which must exist. Raises ``InvalidEventError``.
    """

    sampling_probability: float
    noise_multiplier: float
    clipped_count_stddev: float
    rounds: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "sampling_probability", sampling_probability(self.sampling_probability))
        object.__setattr__(self, "noise_multiplier", noise_multiplier(self.noise_multiplier))
        stddev = _finite("clipped_count_stddev", self.clipped_count_stddev)
        if not 0.0 < stddev <= MAX_CLIPPED_COUNT_STDDEV:
            why = f"must be above 0 and at most {MAX_CLIPPED_COUNT_STDDEV:g} people"
            raise InvalidEventError("clipped_count_stddev", stddev, why)
        object.__setattr__(self, "clipped_count_stddev", stddev)
        # Written so that a value noise that does not exist, or is beyond the accounted range, refuses.
        if not (self.noise_multiplier < 2 * stddev and self.value_noise_multiplier <= MAX_NOISE_MULTIPLIER):
            why = (
                f"leaves no room for the value's noise: with a total noise multiplier of {self.noise_multiplier:g}, "
                f"twice this must be clearly above it; raise clipped_count_stddev or lower noise_multiplier"
            )
            raise InvalidEventError("clipped_count_stddev", stddev, why)
        rounds(self.rounds)

    @property
    def value_noise_multiplier(self) -> float:
        """Of the clipped updates: more than the total, because the count uses some of the budget."""
        share = self.noise_multiplier / (2 * self.clipped_count_stddev)
        remaining = (1 - share) * (1 + share)  # no cancellation near 1
        return self.noise_multiplier / math.sqrt(remaining) if remaining > 0.0 else math.inf


@dataclass(frozen=True, slots=True)
class FixedSizeGaussian:
    """``rounds`` rounds of: exactly ``sample_size`` of ``population_size`` declared slots, drawn uniformly without
    replacement, and the sum of their clipped contributions (absent people give zero) gets Gaussian noise of
    ``noise_multiplier`` times the clipping norm.

    ``noise_multiplier`` is relative to the clipping norm; that replacing a unit moves a sum by twice the norm is
    accounted for (``mechanisms``). Raises ``InvalidEventError``.
    """

    population_size: int
    sample_size: int
    noise_multiplier: float
    rounds: int

    def __post_init__(self) -> None:
        _count("population_size", self.population_size, 1, MAX_POPULATION_SIZE)
        _count("sample_size", self.sample_size, 1, self.population_size)
        object.__setattr__(self, "noise_multiplier", noise_multiplier(self.noise_multiplier))
        rounds(self.rounds)


@dataclass(frozen=True, slots=True)
class TreeGaussian:
    """A whole DP-FTRL run: noise of ``noise_multiplier`` times the clipping norm on every complete node of binary
    trees over ``rounds`` rounds. Atomic: it has no cost per round.

    A unit takes part in at most ``max_participation`` rounds of the run, with at least ``min_separation`` rounds
    between two of them. ``restart_rounds`` are the lengths of the trees, one after another; empty, there is one. The
    limits hold for the whole run, also across restarts. Raises ``InvalidEventError``.
    """

    noise_multiplier: float
    rounds: int
    max_participation: int
    min_separation: int
    restart_rounds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise_multiplier", noise_multiplier(self.noise_multiplier))
        _count("rounds", self.rounds, 1, MAX_TREE_ROUNDS)
        _count("max_participation", self.max_participation, 1, MAX_TREE_ROUNDS)
        _count("min_separation", self.min_separation, 0, MAX_TREE_ROUNDS)
        if self.participations > MAX_TREE_PARTICIPATIONS:
            why = (
                f"with these rounds and this min_separation a unit could take part {self.participations} times, and at "
                f"most {MAX_TREE_PARTICIPATIONS} are accounted; lower max_participation or raise min_separation"
            )
            raise InvalidEventError("max_participation", self.max_participation, why)
        restarts = self.restart_rounds
        if not isinstance(restarts, tuple | list) or len(restarts) > MAX_TREES:
            raise InvalidEventError("restart_rounds", restarts, f"must be a list of at most {MAX_TREES} lengths")
        for length in restarts:
            _count("restart_rounds", length, 1, self.rounds)
        if restarts and sum(restarts) != self.rounds:
            raise InvalidEventError("restart_rounds", list(restarts), f"must sum to rounds = {self.rounds}")
        object.__setattr__(self, "restart_rounds", tuple(restarts))

    @property
    def participations(self) -> int:
        """How often a unit can take part at most: what the rounds have room for, up to ``max_participation``."""
        return min(self.max_participation, -(-self.rounds // (self.min_separation + 1)))

    @property
    def trees(self) -> tuple[int, ...]:
        """The lengths of the trees, also if there is one."""
        return self.restart_rounds or (self.rounds,)


Event = PoissonGaussian | PoissonGaussianStatistics | AdaptiveClippingGaussian | FixedSizeGaussian | TreeGaussian


def sampling_probability(value: object) -> float:
    """``value`` as a float in (0, 1], or ``InvalidEventError``."""
    number = _finite("sampling_probability", value)
    if not 0.0 < number <= 1.0:
        raise InvalidEventError("sampling_probability", value, "must be above 0 and at most 1")
    return number


def noise_multiplier(value: object, field: str = "noise_multiplier") -> float:
    """``value`` as a float within the accounted range, or ``InvalidEventError``."""
    number = _finite(field, value)
    if not MIN_NOISE_MULTIPLIER <= number <= MAX_NOISE_MULTIPLIER:
        why = f"must be between {MIN_NOISE_MULTIPLIER:g} and {MAX_NOISE_MULTIPLIER:g}"
        raise InvalidEventError(field, value, why)
    return number


def rounds(value: object) -> int:
    """``value`` as an integer between 1 and ``MAX_ROUNDS``, or ``InvalidEventError``."""
    return _count("rounds", value, 1, MAX_ROUNDS)


def _count(field: str, value: object, least: int, most: int) -> int:
    if type(value) is not int:  # bool and numpy integers are not what a document holds
        raise InvalidEventError(field, value, "must be an integer")
    if not least <= value <= most:
        raise InvalidEventError(field, value, f"must be between {least} and {most}")
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
