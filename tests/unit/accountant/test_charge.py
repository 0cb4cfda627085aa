from __future__ import annotations

import math
from typing import Any

import pytest

from accountant.charge import Charge, charge, own_estimate
from accountant.curve import UNITS_PER_NAT, Curve, round_curve
from accountant.errors import InvalidBudgetError, InvalidVectorError, NotComposableError
from accountant.events import (
    AdaptiveClippingGaussian,
    Event,
    FixedSizeGaussian,
    PoissonGaussian,
    PoissonGaussianStatistics,
    TreeGaussian,
)
from accountant.relations import ADD_OR_REMOVE_ONE, REPLACE_ONE, REPLACE_SPECIAL

ORDERS = (1.1, 1.5, 2.0, 4.5, 16.0, 63.0, 300.0)
PER_ROUND: list[tuple[Event, str]] = [
    (PoissonGaussian(0.01, 1.1, 500), ADD_OR_REMOVE_ONE),
    (PoissonGaussian(0.01, 1.1, 500), REPLACE_SPECIAL),
    (PoissonGaussian(1.0, 0.1, 500), REPLACE_ONE),
    (PoissonGaussianStatistics(0.01, (2.0, 3.0), 500), ADD_OR_REMOVE_ONE),
    (AdaptiveClippingGaussian(0.01, 1.1, 20.0, 500), ADD_OR_REMOVE_ONE),
    (FixedSizeGaussian(1000, 10, 1.1, 500), REPLACE_ONE),
]
TREE = TreeGaussian(7.0, 2000, 6, 313)
ALL = [*PER_ROUND, (TREE, REPLACE_SPECIAL), (TREE, REPLACE_ONE)]


@pytest.mark.parametrize(("event", "relation"), PER_ROUND)
def test_a_round_has_a_cost_and_rounds_cost_their_multiple(event: Event, relation: str) -> None:
    cost = charge(event, ORDERS, relation)

    assert (500, 1) == (cost.rounds, cost.rounds_per_charge)
    assert cost.curve.units == cost.amount(1)
    assert tuple(unit * 500 for unit in cost.curve.units) == cost.total == cost.amount(500)
    assert (0,) * len(ORDERS) == cost.amount(0)


def test_a_tree_has_one_cost_for_all_its_rounds_and_none_for_a_part() -> None:
    cost = charge(TREE, ORDERS, REPLACE_SPECIAL)

    assert (2000, 2000) == (cost.rounds, cost.rounds_per_charge)
    assert cost.curve.units == cost.total == cost.amount(2000)
    assert (0,) * len(ORDERS) == cost.amount(0)
    for part in (1, 313, 1999):
        with pytest.raises(InvalidVectorError):
            cost.amount(part)


@pytest.mark.parametrize(("event", "relation"), ALL)
def test_our_own_estimate_is_never_above_the_charge_and_hardly_below(event: Event, relation: str) -> None:
    estimated = own_estimate(event, ORDERS, relation)

    for own, charged in zip(estimated, charge(event, ORDERS, relation).curve.units, strict=True):
        assert charged * (1 - 1e-6) - 20 <= own <= charged


def test_poisson_rounds_are_charged_as_ever() -> None:
    assert round_curve(0.01, 1.1, ORDERS) is charge(PoissonGaussian(0.01, 1.1, 500), ORDERS, ADD_OR_REMOVE_ONE).curve


def test_a_unit_that_contributes_zero_costs_what_a_unit_that_is_not_there_costs() -> None:
    event = PoissonGaussian(0.01, 1.1, 500)

    assert charge(event, ORDERS, ADD_OR_REMOVE_ONE) == charge(event, ORDERS, REPLACE_SPECIAL)


@pytest.mark.parametrize("event", [PoissonGaussian(1.0, 3.0, 5), TREE])
def test_replacing_a_unit_costs_four_times_as_much_as_making_it_zero(event: Event) -> None:
    zero, replaced = (charge(event, ORDERS, relation).curve.units for relation in (REPLACE_SPECIAL, REPLACE_ONE))

    assert all(b == pytest.approx(4 * a, rel=1e-6, abs=10) for a, b in zip(zero, replaced, strict=True))


def test_a_sample_of_everybody_costs_what_everybody_costs() -> None:
    sample = charge(FixedSizeGaussian(50, 50, 3.0, 5), ORDERS, REPLACE_ONE)

    assert charge(PoissonGaussian(1.0, 3.0, 5), ORDERS, REPLACE_ONE).total == sample.total


def test_joint_statistics_cost_more_than_each_alone_and_more_than_both_as_separate_cohorts() -> None:
    alone = [charge(PoissonGaussian(0.01, z, 100), ORDERS, ADD_OR_REMOVE_ONE).total for z in (0.5, 0.5)]
    joint = charge(PoissonGaussianStatistics(0.01, (0.5, 0.5), 100), ORDERS, ADD_OR_REMOVE_ONE).total

    assert all(together > sum(separate) for together, *separate in zip(joint, *alone, strict=True))


def test_adaptive_clipping_costs_its_total_noise_once() -> None:
    adaptive = charge(AdaptiveClippingGaussian(0.01, 1.1, 20.0, 500), ORDERS, ADD_OR_REMOVE_ONE)

    assert charge(PoissonGaussian(0.01, 1.1, 500), ORDERS, ADD_OR_REMOVE_ONE) == adaptive


def test_the_dearest_legal_tree_is_far_from_127_bits() -> None:
    dearest = charge(TreeGaussian(0.1, 2**20, 128, 0), (2.0, 4096.0), REPLACE_ONE)

    assert dearest.total[-1] > 2**63  # 64 bits would wrap
    assert dearest.total[-1] * 10**9 < 2**127


def test_what_does_not_compose_is_neither_charged_nor_estimated() -> None:
    for compute in (charge, own_estimate):
        with pytest.raises(NotComposableError):
            compute(PoissonGaussian(0.01, 1.0, 1), ORDERS, REPLACE_ONE)


@pytest.mark.parametrize("orders", [(), (2.0,), (3.0, 2.0), (2.0, math.nan), "23", None, {2.0, 3.0}, (2, 3)])
def test_bad_orders_are_refused(orders: Any) -> None:
    for compute in (charge, own_estimate):
        with pytest.raises(InvalidBudgetError):
            compute(PoissonGaussian(0.01, 1.0, 1), orders, ADD_OR_REMOVE_ONE)


def test_orders_may_come_as_a_list() -> None:
    assert charge(TREE, list(ORDERS), REPLACE_SPECIAL) == charge(TREE, ORDERS, REPLACE_SPECIAL)


@pytest.mark.parametrize("rounds", [-1, 1.0, True, None, math.nan, "1"])
def test_only_whole_rounds_have_an_amount(rounds: Any) -> None:
    with pytest.raises(InvalidVectorError):
        charge(PoissonGaussian(0.5, 1.0, 5), ORDERS, ADD_OR_REMOVE_ONE).amount(rounds)


@pytest.mark.parametrize(
    ("rounds", "per_charge"), [(0, 1), (5, 0), (5, 2), (-1, 1), (5, -5), (True, 1), (5, True), (5.0, 1)]
)
def test_a_stored_charge_that_is_damaged_is_refused(rounds: Any, per_charge: Any) -> None:
    with pytest.raises(InvalidVectorError):
        Charge(Curve((2.0, 3.0), (1, 2)), rounds, per_charge)


def test_the_cost_of_a_tree_is_its_squared_sensitivity_over_twice_its_squared_noise() -> None:
    for order, unit in zip(ORDERS, charge(TREE, ORDERS, REPLACE_SPECIAL).curve.units, strict=True):
        exact = 79 * order / (2 * 7.0**2) * UNITS_PER_NAT

        assert exact < unit < exact * (1 + 2e-9) + 5
