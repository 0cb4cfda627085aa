"""``weights``: rounds that the union bound over orders costs, with and without the owner's planned use.

The baseline knows the use beforehand: the single best order with all of δ. It is no filter that anybody could run,
since use is chosen after results; it is what any choice of weights loses against. A case is a budget and one kind of
round that all of it is spent on; it counts where the baseline admits at least twenty rounds. Nothing is timed: these
are exact counts by the filter's own integers, with curves by our kernel.

``plan as used``: the owner planned the very round that is used. ``plan off``: half or twice the noise multiplier, and
three times or a third of the sampling probability. ``plan of another``: the plan belongs to another case of the same
budget, drawn at random, with a fixed seed.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from rich import box
from rich.console import Console
from rich.table import Table

from accountant.curve import estimate
from accountant.events import MAX_NOISE_MULTIPLIER, MIN_NOISE_MULTIPLIER
from accountant.filter import FINE_BITS, FINE_PER_NAT, Budget, PlannedUse, conversion_offsets
from accountant.orders import DEFAULT_ORDERS
from benchmarks.record import Recorder

_EPSILONS = (0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 10.0)
_DELTAS = (1e-7, 1e-6, 1e-5)
_PROBABILITIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_NOISES = (0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 40.0)
_LEAST_ROUNDS = 20
_OFF = tuple((share, noise) for share in (1 / 3, 3.0) for noise in (0.5, 2.0))


@dataclass(frozen=True, slots=True)
class Case:
    epsilon: float
    delta: float
    use: PlannedUse
    ideal: int  # rounds, with all of δ on the best order for this use


def run(recorder: Recorder) -> None:
    found = cases()
    chance = random.Random(2021)
    losses = {
        "even over all orders": _losses(found, lambda case: [_even(case.epsilon, case.delta)]),
        "no plan": _losses(found, lambda case: [_opened(case.epsilon, case.delta, None)]),
        "plan as used": _losses(found, lambda case: [_opened(case.epsilon, case.delta, case.use)]),
        "plan off": _losses(found, lambda case: [_opened(case.epsilon, case.delta, plan) for plan in _near(case.use)]),
        "plan of another": _losses(
            found, lambda case: [_opened(case.epsilon, case.delta, _another(found, case, chance))]
        ),
    }
    Console(width=120).print(table(losses, len(found)))
    for name, lost in losses.items():
        kept = 100 * (1 - statistics.median(lost))
        aim = {"no plan": ">= 0.9", "plan as used": ">= 0.95"}.get(name)
        best = ("the single best order with all of δ", 100.0)
        recorder.add(f"rounds admitted, {name}, median", kept, "%", baseline=best, aim=aim)


def table(losses: dict[str, list[float]], count: int) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, title=f"rounds lost, {count} cases")
    shown.add_column("weights")
    for heading in ("mean", "median", "75 %", "90 %"):
        shown.add_column(heading, justify="right")
    for name, lost in losses.items():
        ordered = sorted(lost)
        shares = (statistics.fmean(lost), *(ordered[math.ceil(share * len(lost)) - 1] for share in (0.5, 0.75, 0.9)))
        shown.add_row(name, *(f"{100 * share:.1f} %" for share in shares))
    return shown


def cases() -> list[Case]:
    found = []
    for epsilon, delta, q, z in _grid():
        use = PlannedUse(q, z)
        ideal = _rounds(_all_on_each(epsilon, delta), use)
        if ideal >= _LEAST_ROUNDS:
            found.append(Case(epsilon, delta, use, ideal))
    return found


def _grid() -> Iterator[tuple[float, float, float, float]]:
    for epsilon in _EPSILONS:
        for delta in _DELTAS:
            for q in _PROBABILITIES:
                for z in _NOISES:
                    yield epsilon, delta, q, z


def _losses(found: list[Case], thresholds: Callable[[Case], list[tuple[int, ...]]]) -> list[float]:
    return [1 - _rounds(bounds, case.use) / case.ideal for case in found for bounds in thresholds(case)]


def _rounds(bounds: tuple[int, ...], use: PlannedUse) -> int:
    return max(0, *(bound // cost for bound, cost in zip(bounds, _cost(use), strict=True)))


def _near(use: PlannedUse) -> list[PlannedUse]:
    return [
        PlannedUse(
            min(1.0, use.sampling_probability * share),
            min(max(use.noise_multiplier * noise, MIN_NOISE_MULTIPLIER), MAX_NOISE_MULTIPLIER),
        )
        for share, noise in _OFF
    ]


def _another(found: list[Case], case: Case, chance: random.Random) -> PlannedUse:
    return chance.choice([other.use for other in found if (other.epsilon, other.delta) == (case.epsilon, case.delta)])


@cache
def _cost(use: PlannedUse) -> tuple[int, ...]:
    return estimate(use.sampling_probability, use.noise_multiplier, DEFAULT_ORDERS)


@cache
def _opened(epsilon: float, delta: float, plan: PlannedUse | None) -> tuple[int, ...]:
    return Budget.open(epsilon, delta, planned_use=plan).thresholds()


@cache
def _even(epsilon: float, delta: float) -> tuple[int, ...]:
    weight = math.floor(2**20 / len(DEFAULT_ORDERS)) / 2**20
    return Budget(epsilon, delta, DEFAULT_ORDERS, (weight,) * len(DEFAULT_ORDERS)).thresholds()


@cache
def _all_on_each(epsilon: float, delta: float) -> tuple[int, ...]:
    """B(α) as if every order had weight 1, by the filter's own integers. That is a bound to compare with, no filter."""
    ones = (1.0,) * len(DEFAULT_ORDERS)
    cap = math.floor(Fraction(epsilon) * FINE_PER_NAT)
    return tuple((cap - offset) >> FINE_BITS for offset in conversion_offsets(delta, DEFAULT_ORDERS, ones))
