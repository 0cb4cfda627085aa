"""What an event is under a neighbouring relation, for arithmetic: a mechanism, or ``NotComposableError``.

Throughout, C is the clipping norm and z the event's noise multiplier: noise of standard deviation z·C.

| event                          | ADD_OR_REMOVE_ONE | REPLACE_ONE      | REPLACE_SPECIAL    |
|--------------------------------|-------------------|------------------|--------------------|
| Poisson events, q < 1          | z            (a)  | refused     (d)  | z             (f)  |
| Poisson events, q = 1          | z            (a)  | z/2         (c)  | z             (f)  |
| FixedSizeGaussian              | refused      (b)  | z/2         (c)  | refused       (g)  |
| TreeGaussian                   | refused      (b)  | z/2         (e)  | z             (h)  |

"Poisson events" are ``PoissonGaussian``, and ``PoissonGaussianStatistics`` and ``AdaptiveClippingGaussian`` with the
one noise multiplier that they amount to.

(a) Adding or removing a unit moves the sum of a cohort that holds it by at most C: the sampled Gaussian mechanism of
    Mironov, Talwar and Zhang (2019, arXiv 1908.10530).
(b) One unit more changes the number of slots. Exactly ``sample_size`` of them are drawn, so it pushes another unit out;
    a tree's schedule is laid out over its slots. Neighbours must have the same slots.
(c) Replacing a unit moves the sum by up to 2C, so z·C is z/2 times the sensitivity. dp_accounting does not double it
    (its issue 378): it is given z/2. With q = 1 this is the Gaussian mechanism. Fixed-size sampling is bounded by Wang,
    Balle and Kasiviswanathan (2019, arXiv 1808.00087, theorem 27), whose proof compares cohorts that differ in one
    *real* unit. Adaptive clipping: the unit's entry in the shifted count moves by 1, twice its 1/2. In a
    ``PoissonGaussianStatistics`` every sum moves by twice its own norm. So the vector scaled by the noise moves by at
    most 2/z in each case.
(d) There is no bound in dp_accounting for Poisson sampling when the neighbour is another unit.
(e) A slot's rounds are fixed without looking at data, so both neighbours take part in the same rounds. In every one of
    them the slot's contribution moves by at most 2C, hence a node that holds k of them by at most 2Ck: twice the
    sensitivity of (h), under the same noise.
(f) The neighbour holds a unit that contributes zero to every sum: the update, each statistic, and the shifted count of
    adaptive clipping, where it adds neither +1/2 nor −1/2. The sum over a cohort is the same whether the zero is drawn
    or not, everybody else's coins are independent of it, and nothing but the noised sums is published (who took part,
    and how many, is secret: privacy rule 6). So the outputs are distributed exactly as those without the unit, and
    both directions are those of (a). dp_accounting has this case only as ADD_OR_REMOVE_ONE; the pair of distributions,
    and so the curve, is the same.
(g) Sampling without replacement compares a cohort that holds the unit with one that holds another real unit, which
    moves the sum by up to 2C also if the neighbour is zero: it would be charged exactly as under REPLACE_ONE.
(h) Kairouz, McMahan, Song, Thakkar, Thakurta and Xu (2021, arXiv 2103.00039, appendix D): the unit's contribution
    moves by at most C in each of its rounds, a node that holds k of them by at most Ck. ``tree`` has the rest.

Invariants
- Every pair of event and relation is in the table; what is not allowed there refuses.
- Two events of one population are always resolved under the same relation, so that their costs add up.

This module does not: compute a curve.
"""

from __future__ import annotations

from dataclasses import dataclass

from accountant.errors import InvalidBudgetError, NotComposableError, UnknownEventError
from accountant.events import (
    AdaptiveClippingGaussian,
    Event,
    FixedSizeGaussian,
    PoissonGaussian,
    PoissonGaussianStatistics,
    TreeGaussian,
)
from accountant.relations import ADD_OR_REMOVE_ONE, RELATIONS, REPLACE_ONE, REPLACE_SPECIAL


@dataclass(frozen=True, slots=True)
class SampledGaussian:
    """One round of a Poisson-sampled Gaussian sum; q = 1 is the Gaussian mechanism.

    ``noise_multiplier`` is the standard deviation over the *sensitivity* under the relation; so it is below.
    """

    sampling_probability: float
    noise_multiplier: float


@dataclass(frozen=True, slots=True)
class SampledWithoutReplacementGaussian:
    """One round of a Gaussian sum over a sample of fixed size."""

    population_size: int
    sample_size: int
    noise_multiplier: float

    @property
    def sampling_probability(self) -> float:
        return self.sample_size / self.population_size


@dataclass(frozen=True, slots=True)
class GaussianTrees:
    """A whole run of tree aggregation."""

    noise_multiplier: float
    trees: tuple[int, ...]
    max_participation: int
    min_separation: int


Mechanism = SampledGaussian | SampledWithoutReplacementGaussian | GaussianTrees

_CHOOSE_RELATION = "the relation is fixed when the population is opened"


def resolve(event: Event, relation: str) -> Mechanism:
    """The mechanism that ``event`` is under ``relation``: of one round, or of a whole tree run.

    Raises ``NotComposableError``, ``InvalidBudgetError`` (relation), ``UnknownEventError``.
    """
    if relation not in RELATIONS:
        raise InvalidBudgetError("relation", relation, f"must be one of {', '.join(RELATIONS)}")
    match event:
        case PoissonGaussian() | PoissonGaussianStatistics() | AdaptiveClippingGaussian():
            return _poisson(event, relation)
        case FixedSizeGaussian():
            if relation != REPLACE_ONE:
                raise _fixed_size_refused(relation)
            return SampledWithoutReplacementGaussian(
                event.population_size, event.sample_size, event.noise_multiplier / 2
            )
        case TreeGaussian():
            if relation == ADD_OR_REMOVE_ONE:
                why = "a tree's schedule is laid out over fixed slots, and one unit more would change them"
                do = f"use Poisson sampling, or a population opened with REPLACE_SPECIAL ({_CHOOSE_RELATION})"
                raise NotComposableError("TreeGaussian", relation, why, do)
            z = event.noise_multiplier / 2 if relation == REPLACE_ONE else event.noise_multiplier
            return GaussianTrees(z, event.trees, event.participations, event.min_separation)
    raise UnknownEventError(type(event).__name__, None)


def _poisson(
    event: PoissonGaussian | PoissonGaussianStatistics | AdaptiveClippingGaussian, relation: str
) -> SampledGaussian:
    q, z = event.sampling_probability, event.noise_multiplier
    if relation != REPLACE_ONE:
        return SampledGaussian(q, z)
    if q < 1.0:
        why = "Poisson sampling is accounted for a unit that is there or not, and here it is exchanged for another"
        do = (
            "sample a fixed number of units (sample_size of population_size) or let everybody take part "
            f"(sampling_probability = 1), or use a population opened with ADD_OR_REMOVE_ONE ({_CHOOSE_RELATION})"
        )
        raise NotComposableError(type(event).__name__, relation, why, do)
    return SampledGaussian(1.0, z / 2)


def _fixed_size_refused(relation: str) -> NotComposableError:
    why = {
        ADD_OR_REMOVE_ONE: "one unit more would push another out of the sample",
        REPLACE_SPECIAL: "whoever is drawn instead of a unit contributes too: it protects no better than REPLACE_ONE",
    }[relation]
    do = f"use Poisson sampling, or a population opened with REPLACE_ONE ({_CHOOSE_RELATION})"
    return NotComposableError("FixedSizeGaussian", relation, why, do)
