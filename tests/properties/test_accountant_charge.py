"""No charge is ever below what dp_accounting composes for the same run, on the whole domain of the gate."""

from __future__ import annotations

import itertools
import math

import dp_accounting
import pytest
from dp_accounting import NeighboringRelation, rdp
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accountant.charge import charge, own_estimate
from accountant.curve import UNITS_PER_NAT
from accountant.errors import InvalidVectorError
from accountant.events import (
    AdaptiveClippingGaussian,
    Event,
    FixedSizeGaussian,
    PoissonGaussian,
    PoissonGaussianStatistics,
    TreeGaussian,
)
from accountant.filter import Vector, add
from accountant.odometer import run_statement
from accountant.relations import ADD_OR_REMOVE_ONE, REPLACE_ONE, REPLACE_SPECIAL
from accountant.tree import backward_squared_sensitivity, forward_squared_sensitivity

ORDERS = (1.1, 1.7, 2.0, 3.3, 8.0, 10.9, 31.0, 108.0, 1024.0)
PROBABILITIES = st.floats(-9.0, 0.0).map(lambda exponent: min(10.0**exponent, 1.0)) | st.floats(1e-9, 1.0)
NOISES = st.floats(-1.0, 4.0).map(lambda exponent: min(max(10.0**exponent, 0.1), 1e4))
ROUNDS = st.floats(0.0, 7.0).map(lambda exponent: round(10.0**exponent))
SAMPLES = st.floats(0.0, 10.0).flatmap(
    lambda size: st.tuples(st.just(round(10.0**size)), st.floats(0.0, size).map(lambda sample: round(10.0**sample)))
)


def composed(event: dp_accounting.DpEvent, relation: NeighboringRelation) -> list[float]:
    accountant = rdp.RdpAccountant(list(ORDERS), relation)
    accountant.compose(event)
    return [float(value) for value in accountant.rdp]


def check(event: Event, relation: str, library: list[float]) -> None:
    """Never below the library, never below our own computation, and a statement that is a number."""
    cost = charge(event, ORDERS, relation)
    charges = event.rounds // cost.rounds_per_charge
    for total, theirs in zip(cost.total, library, strict=True):
        assert total >= theirs * UNITS_PER_NAT * (1 - 1e-15)  # the library multiplies in floats
    assert all(own <= unit for own, unit in zip(own_estimate(event, ORDERS, relation), cost.curve.units, strict=True))
    assert tuple(unit * charges for unit in cost.curve.units) == cost.total
    assert list(cost.total) == sorted(cost.total)
    assert {int} == set(map(type, cost.total))
    assert 0.0 < run_statement(event, 1e-6, ORDERS, relation) < math.inf


@settings(deadline=None, max_examples=40)
@given(q=PROBABILITIES, z=NOISES, rounds=ROUNDS, relation=st.sampled_from([ADD_OR_REMOVE_ONE, REPLACE_SPECIAL]))
@example(q=1e-6, z=8.0, rounds=10**6, relation=ADD_OR_REMOVE_ONE)
@example(q=1.0, z=0.1, rounds=10**7, relation=REPLACE_SPECIAL)
def test_poisson_sampling_is_never_under_reported(q: float, z: float, rounds: int, relation: str) -> None:
    sampled = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(z))
    library = composed(dp_accounting.SelfComposedDpEvent(sampled, rounds), NeighboringRelation.ADD_OR_REMOVE_ONE)

    check(PoissonGaussian(q, z, rounds), relation, library)
    check(AdaptiveClippingGaussian(q, z, 1e6, rounds), relation, library)


@settings(deadline=None, max_examples=25)
@given(q=PROBABILITIES, zs=st.lists(st.floats(0.4, 100.0), min_size=1, max_size=6), rounds=ROUNDS)
def test_statistics_of_one_cohort_are_never_under_reported(q: float, zs: list[float], rounds: int) -> None:
    # The library finds the noise multiplier of the composition under one sampling itself.
    joint = dp_accounting.ComposedDpEvent([dp_accounting.GaussianDpEvent(z) for z in zs])
    sampled = dp_accounting.PoissonSampledDpEvent(q, joint)
    library = composed(dp_accounting.SelfComposedDpEvent(sampled, rounds), NeighboringRelation.ADD_OR_REMOVE_ONE)

    check(PoissonGaussianStatistics(q, tuple(zs), rounds), ADD_OR_REMOVE_ONE, library)


@settings(deadline=None, max_examples=25)
@given(sample=SAMPLES, z=NOISES, rounds=ROUNDS)
@example(sample=(10_000, 100), z=1.0, rounds=1000)
@example(sample=(2, 1), z=1e4, rounds=10**7)
def test_fixed_size_sampling_is_never_under_reported(sample: tuple[int, int], z: float, rounds: int) -> None:
    drawn = dp_accounting.SampledWithoutReplacementDpEvent(*sample, dp_accounting.GaussianDpEvent(z / 2))
    library = composed(dp_accounting.SelfComposedDpEvent(drawn, rounds), NeighboringRelation.REPLACE_ONE)

    check(FixedSizeGaussian(*sample, z, rounds), REPLACE_ONE, library)


@settings(deadline=None, max_examples=30)
@given(z=NOISES, rounds=ROUNDS)
def test_full_participation_is_never_under_reported_when_units_are_replaced(z: float, rounds: int) -> None:
    gaussian = dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(z / 2), rounds)

    check(PoissonGaussian(1.0, z, rounds), REPLACE_ONE, composed(gaussian, NeighboringRelation.REPLACE_ONE))


@settings(deadline=None, max_examples=30)
@given(z=NOISES, trees=st.lists(st.integers(1, 10**4), min_size=1, max_size=6))
def test_single_epoch_trees_are_never_under_reported(z: float, trees: list[int]) -> None:
    event = dp_accounting.SingleEpochTreeAggregationDpEvent(z, trees)

    check(
        TreeGaussian(z, sum(trees), 1, 0, tuple(trees)),
        REPLACE_SPECIAL,
        composed(event, NeighboringRelation.REPLACE_SPECIAL),
    )


TREE_RUNS = st.tuples(
    st.lists(st.integers(1, 3000), min_size=1, max_size=8).map(tuple), st.integers(1, 24), st.integers(0, 500)
)


@settings(deadline=None, max_examples=60)
@given(run=TREE_RUNS)
def test_both_programmes_agree_on_every_tree(run: tuple[tuple[int, ...], int, int]) -> None:
    assert forward_squared_sensitivity(*run) == backward_squared_sensitivity(*run)


@settings(deadline=None, max_examples=60)
@given(run=TREE_RUNS, data=st.data())
def test_no_pattern_of_participations_reaches_more(run: tuple[tuple[int, ...], int, int], data: st.DataObject) -> None:
    trees, most, separation = run
    pattern: list[int] = []
    while len(pattern) < most:
        first = pattern[-1] + separation + 1 if pattern else 0
        if first >= sum(trees):
            break
        pattern.append(first + data.draw(st.integers(0, min(64, sum(trees) - 1 - first))))
    reached, start = 0, 0
    for length in trees:
        for size in (2**height for height in range(length.bit_length())):
            held: dict[int, int] = {}
            for position in pattern:
                block = (position - start) // size
                if start <= position < start + length and (block + 1) * size <= length:
                    held[block] = held.get(block, 0) + 1
            reached += sum(count**2 for count in held.values())
        start += length

    assert reached <= forward_squared_sensitivity(*run)


@settings(deadline=None, max_examples=40)
@given(z=NOISES, cuts=st.lists(st.integers(0, 500), max_size=6))
def test_debits_in_any_batches_equal_their_reservation(z: float, cuts: list[int]) -> None:
    cost = charge(FixedSizeGaussian(10, 10, z, 500), ORDERS, REPLACE_ONE)
    edges = [0, *sorted(cuts), 500]
    total: Vector = (0,) * len(ORDERS)
    for earlier, later in itertools.pairwise(edges):
        total = add(total, cost.amount(later - earlier))

    assert cost.total == total


@settings(deadline=None, max_examples=40)
@given(rounds=st.integers(2, 10**5), part=st.integers(1, 10**5))
def test_no_part_of_a_tree_has_a_cost(rounds: int, part: int) -> None:
    cost = charge(TreeGaussian(3.0, rounds, 2, rounds // 3), ORDERS, REPLACE_SPECIAL)

    if part % rounds:
        with pytest.raises(InvalidVectorError):
            cost.amount(part)
    else:
        assert cost.curve.times(part // rounds) == cost.amount(part)
