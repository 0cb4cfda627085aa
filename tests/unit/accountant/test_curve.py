from __future__ import annotations

import math
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from mpmath import mpf

from accountant import curve as curve_module
from accountant import poisson
from accountant.curve import UNITS_PER_NAT, Curve, curve_of, estimate, own_units, round_curve
from accountant.errors import CurveDisagreementError, InvalidCurveError, InvalidEventError, InvalidVectorError
from accountant.kernel import Floats, Grid, renyi_curve
from accountant.mechanisms import GaussianTrees, Mechanism, SampledGaussian, SampledWithoutReplacementGaussian
from tests.unit.accountant.oracle import exact_curve

ORDERS = (1.1, 1.5, 2.0, 4.5, 10.9, 16.0, 63.0, 256.0)


@pytest.fixture(autouse=True)
def _empty_memo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve_module, "_memo", OrderedDict())


@pytest.mark.parametrize(
    ("q", "z"), [(1e-7, 8.0), (1e-6, 8.0), (1e-4, 0.5), (0.01, 1.1), (0.5, 2.0), (0.9, 100.0), (1.0, 0.7)]
)
def test_the_charged_curve_never_under_reports_and_costs_no_more_than_its_padding(q: float, z: float) -> None:
    for order, unit in zip(ORDERS, round_curve(q, z, ORDERS).units, strict=True):
        exact = mpf(order) / (2 * mpf(z) ** 2) if q == 1.0 else exact_curve(q, z, order)
        assert unit >= exact * UNITS_PER_NAT
        assert unit <= (exact * (1 + 2e-9) + 2.1e-11) * UNITS_PER_NAT + 1


def test_the_library_is_wrong_at_a_tiny_probability_and_the_charge_is_not() -> None:
    # dp_accounting gives 0 at many orders here.
    units = round_curve(1e-6, 8.0, ORDERS).units

    assert all(unit >= exact_curve(1e-6, 8.0, order) * UNITS_PER_NAT for order, unit in zip(ORDERS, units, strict=True))
    assert units[0] >= 2e-12 * UNITS_PER_NAT


@pytest.mark.parametrize("q", [1e-7, 1e-5, 1e-3, 0.05, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("z", [0.1, 0.7, 3.0, 50.0, 1e4])
def test_the_two_computations_agree_on_the_whole_domain(q: float, z: float) -> None:
    curve = round_curve(q, z, ORDERS)

    assert all(own <= charged for own, charged in zip(estimate(q, z, ORDERS), curve.units, strict=True))


@pytest.mark.parametrize(("q", "z"), [(0.5, 30.0), (0.4999, 100.0)])
def test_the_librarys_slowest_series_still_agrees(q: float, z: float) -> None:
    round_curve(q, z, (1.1, 2.0))


def test_a_probability_below_one_in_a_trillion_is_charged_as_one_in_a_trillion() -> None:
    assert round_curve(1e-12, 0.1, ORDERS).units == round_curve(1e-300, 0.1, ORDERS).units


def test_curves_rise_with_the_order_the_probability_and_fall_with_the_noise() -> None:
    units = round_curve(0.01, 1.0, ORDERS).units

    assert units == tuple(sorted(units))
    assert all(less < more for less, more in zip(units, round_curve(0.011, 1.0, ORDERS).units, strict=True))
    assert all(less < more for less, more in zip(round_curve(0.01, 1.1, ORDERS).units, units, strict=True))


def test_a_curve_is_computed_once() -> None:
    assert round_curve(0.01, 1.0, ORDERS) is round_curve(0.01, 1.0, tuple(ORDERS))


def test_a_curve_is_computed_once_by_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[tuple[float, float]] = []

    def counting(q: float, z: float, grid: Grid) -> Floats:
        computed.append((q, z))
        return renyi_curve(q, z, grid)

    monkeypatch.setattr(poisson, "renyi_curve", counting)
    with ThreadPoolExecutor(8) as pool:
        curves = list(pool.map(lambda _: round_curve(0.02, 1.3, ORDERS), range(32)))

    assert [(0.02, 1.3)] == computed
    assert all(curve is curves[0] for curve in curves)


def test_the_memo_is_bounded_and_forgets_what_was_not_asked_for_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve_module, "_MEMO_SIZE", 2)
    for noise_multiplier in (1.0, 2.0, 1.0, 3.0):
        round_curve(1.0, noise_multiplier, ORDERS)

    assert [1.0, 3.0] == [mechanism.noise_multiplier for mechanism, _ in curve_module._memo]


def test_a_remembered_curve_does_not_wait_for_one_that_is_being_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    known = round_curve(1.0, 1.0, ORDERS)
    computing, finish = threading.Event(), threading.Event()

    def slow(q: float, z: float, grid: Grid) -> Floats:
        computing.set()
        assert finish.wait(60)
        return renyi_curve(q, z, grid)

    monkeypatch.setattr(poisson, "renyi_curve", slow)
    with ThreadPoolExecutor(3) as pool:
        try:
            cold = [pool.submit(round_curve, 1.0, z, ORDERS) for z in (2.0, 3.0)]
            assert computing.wait(60)
            assert known is pool.submit(round_curve, 1.0, 1.0, ORDERS).result(timeout=60)
            assert [False, False] == [one.done() for one in cold]
        finally:
            finish.set()


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0, "1", None])
def test_bad_parameters_are_refused_before_any_library_sees_them(value: Any) -> None:
    for compute in (round_curve, estimate):
        with pytest.raises(InvalidEventError):
            compute(0.1, value, ORDERS)
        with pytest.raises(InvalidEventError):
            compute(value, 1.0, ORDERS)


@pytest.mark.parametrize("factor", [1 - 1e-6, 1 + 1e-6, 0.0, 2.0, math.nan, math.inf])
def test_a_kernel_that_is_off_by_a_millionth_refuses(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    def wrong(q: float, z: float, grid: Grid) -> Floats:
        curve = renyi_curve(q, z, grid)
        curve[5] *= factor
        return curve

    monkeypatch.setattr(poisson, "renyi_curve", wrong)

    with pytest.raises((CurveDisagreementError, InvalidCurveError)):
        round_curve(0.01, 1.0, ORDERS)
    assert [] == list(curve_module._memo)


@pytest.mark.parametrize("library", [0.0, 0.5e-5, 1.00001e-5, 1.0, math.nan, math.inf, -1e-5])
def test_a_gap_that_roundoff_does_not_explain_refuses_whichever_is_larger(library: float) -> None:
    with pytest.raises(CurveDisagreementError) as refused:
        poisson.check_agreement(
            SampledGaussian(0.01, 2.0), (2.0, 3.0), np.array([1e-5, 2e-5]), np.array([library, 2e-5])
        )

    assert (SampledGaussian(0.01, 2.0), 2.0, 1e-5) == (refused.value.mechanism, refused.value.order, refused.value.own)


@pytest.mark.parametrize("library", [0.0, 1e-15, 1e-12, -1e-13])
def test_roundoff_near_zero_is_no_disagreement(library: float) -> None:
    poisson.check_agreement(
        SampledGaussian(1e-6, 8.0), (2.0, 3.0), np.array([1e-14, 1.5e-14]), np.array([library, library])
    )


def test_a_decreasing_curve_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poisson, "renyi_curve", lambda q, z, grid: renyi_curve(q, z, grid)[::-1])

    with pytest.raises(InvalidCurveError):
        estimate(0.01, 1.0, ORDERS)


def test_amounts_are_exact_multiples() -> None:
    curve = round_curve(0.01, 1.0, ORDERS)

    assert tuple(unit * 12345 for unit in curve.units) == curve.times(12345)
    assert (0,) * len(ORDERS) == curve.times(0)


def test_two_legal_runs_that_would_wrap_64_bits_stay_positive() -> None:
    amounts = round_curve(1e-4, 0.5, (2.0, 512.0, 1024.0)).times(3000)

    assert amounts[-1] * 2 > 2**63 - 1
    assert all(amount > 0 for amount in amounts)


def test_the_dearest_legal_run_is_far_from_127_bits() -> None:
    assert round_curve(1.0, 0.1, (2.0, 1024.0)).times(10**7)[-1] * 10**9 < 2**127


def test_more_than_127_bits_are_refused() -> None:
    with pytest.raises(InvalidVectorError):
        Curve((2.0, 3.0), (1, 2**126)).times(3)


@pytest.mark.parametrize("rounds", [-1, 1.0, True, None, math.nan])
def test_only_whole_rounds_are_charged(rounds: Any) -> None:
    with pytest.raises(InvalidVectorError):
        Curve((2.0, 3.0), (1, 2)).times(rounds)


@pytest.mark.parametrize("units", [(1,), (1, 2, 3), (0, 1), (-1, 1), (2, 1), (1.0, 2.0), (True, 2)])
def test_a_stored_curve_that_is_damaged_is_refused(units: Any) -> None:
    with pytest.raises(InvalidVectorError):
        Curve((2.0, 3.0), units)


ONE_OF_EACH: list[Mechanism] = [
    SampledGaussian(0.02, 1.3),
    SampledWithoutReplacementGaussian(1000, 20, 1.3),
    GaussianTrees(1.3, (100, 60), 4, 17),
]


@pytest.mark.parametrize("mechanism", ONE_OF_EACH)
def test_every_kind_of_mechanism_is_computed_once_for_equal_arguments(mechanism: Mechanism) -> None:
    curve = curve_of(mechanism, ORDERS)

    assert curve is curve_of(mechanism, tuple(ORDERS))
    assert ORDERS == curve.orders
    assert all(own <= charged for own, charged in zip(own_units(mechanism, ORDERS), curve.units, strict=True))


@pytest.mark.parametrize("mechanism", ONE_OF_EACH)
def test_units_are_plain_integers_that_do_not_decrease(mechanism: Mechanism) -> None:
    for units in (curve_of(mechanism, ORDERS).units, own_units(mechanism, ORDERS)):
        assert {int} == set(map(type, units))
        assert units == tuple(sorted(units))
        assert units[0] >= 1
