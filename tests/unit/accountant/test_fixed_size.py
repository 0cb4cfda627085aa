"""The fixed-size kernel against many digits, and the library's roundoff, over the gate's whole domain."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting.rdp import rdp_privacy_accountant
from mpmath import mpf

from accountant import fixed_size
from accountant.errors import CurveDisagreementError, InvalidCurveError
from accountant.fixed_size import both_curves, own_curve
from accountant.mechanisms import SampledWithoutReplacementGaussian
from accountant.orders import DEFAULT_ORDERS
from accountant.units import Floats
from tests.unit.accountant.fixed_size_oracle import exact_log_power

TOLERANCE = 1e-11
SAMPLES = [(10_000, 100), (10, 5), (10**9, 1), (10, 9)]


def worst_relative_error(population: int, sample: int, z: float, orders: tuple[int, ...]) -> float:
    mechanism = SampledWithoutReplacementGaussian(population, sample, z)
    worst = 0.0
    for order in orders:  # each alone: a grid's running maximum would hide what is too low
        found = float(own_curve(mechanism, (float(order),))[0]) * (order - 1)
        worst = max(worst, float(abs(mpf(found) / exact_log_power(population, sample, z, order) - 1)))
    return worst


@pytest.mark.parametrize("z", [0.05, 0.3, 0.5, 0.7, 1.0, 1.3, 2.0, 5.0, 30.0, 5000.0])
def test_whole_orders_agree_with_many_digits(z: float) -> None:
    for population, sample in SAMPLES:
        assert worst_relative_error(population, sample, z, (2, 3, 5, 17, 40, 280)) < TOLERANCE


@pytest.mark.parametrize("z", [0.5, 1.5, 16.0])
def test_the_highest_differences_agree_with_many_digits(z: float) -> None:
    assert worst_relative_error(10, 7, z, (128, 255, 256)) < TOLERANCE


def test_fractional_orders_interpolate_the_logarithm_of_the_power() -> None:
    curve = own_curve(SampledWithoutReplacementGaussian(1000, 20, 0.8), (1.3, 2.0, 2.25, 3.0))
    second, third = (exact_log_power(1000, 20, 0.8, order) for order in (2, 3))

    assert float(second) == pytest.approx(curve[0], rel=TOLERANCE)  # 0.3 of it, over 0.3
    assert float((second * 3 + third) / 4 / mpf("1.25")) == pytest.approx(curve[2], rel=TOLERANCE)


@pytest.mark.parametrize(("population", "sample"), SAMPLES)
@pytest.mark.parametrize("z", [0.05, 0.5, 1.7, 40.0, 5000.0])
def test_the_two_computations_agree_within_the_librarys_roundoff(population: int, sample: int, z: float) -> None:
    orders = (1.1, 2.0, 3.3, 8.0, 10.9, 31.0, 63.0, 128.0, 1024.0)
    own, library = both_curves(SampledWithoutReplacementGaussian(population, sample, z), orders)

    low = np.array(orders) <= 11  # where little cancels
    np.testing.assert_allclose(own[low], library[low], rtol=1e-4)


def test_the_librarys_curve_is_taken_as_it_is() -> None:
    mechanism = SampledWithoutReplacementGaussian(10_000, 100, 0.5)

    expected = rdp_privacy_accountant._compute_rdp_sample_wor_gaussian(0.01, 0.5, (2.0, 3.5, 32.0))
    np.testing.assert_allclose(both_curves(mechanism, (2.0, 3.5, 32.0))[1], expected, rtol=1e-13)


def test_all_of_the_population_is_the_gaussian_mechanism() -> None:
    for curve in both_curves(SampledWithoutReplacementGaussian(7, 7, 3.0), DEFAULT_ORDERS):
        np.testing.assert_allclose(curve, np.array(DEFAULT_ORDERS) / 18, rtol=1e-14)


def test_curves_rise_with_the_order_and_the_sample_and_fall_with_the_noise() -> None:
    base = own_curve(SampledWithoutReplacementGaussian(1000, 20, 1.0), DEFAULT_ORDERS)

    assert (np.diff(base) >= 0).all()
    assert (own_curve(SampledWithoutReplacementGaussian(1000, 21, 1.0), DEFAULT_ORDERS) > base).all()
    assert (own_curve(SampledWithoutReplacementGaussian(1000, 20, 1.1), DEFAULT_ORDERS) < base).all()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("factor", [1 - 1e-6, 1 + 1e-6, 0.0, 2.0, math.nan, math.inf])
def test_a_kernel_that_is_off_by_a_millionth_refuses(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    right = fixed_size._log_a

    def wrong(*arguments: object) -> Floats:
        return right(*arguments) * factor  # type: ignore[arg-type]

    monkeypatch.setattr(fixed_size, "_log_a", wrong)

    with pytest.raises((CurveDisagreementError, InvalidCurveError)):
        both_curves(SampledWithoutReplacementGaussian(1000, 20, 1.0), (2.0, 3.0, 4.5, 8.0))


@pytest.mark.parametrize("library", [0.0, 0.9e-5, 1.1e-5, math.nan, math.inf, -1e-5])
def test_what_roundoff_does_not_explain_refuses(library: float) -> None:
    one = np.array([1e-5])

    with pytest.raises(CurveDisagreementError):
        fixed_size.check_agreement("it", (2.0,), one * 0.99, one * 1.01, np.array([library]))


def test_forgetting_to_double_the_sensitivity_is_far_too_little() -> None:
    # dp_accounting's issue 378: what it reports for z is what holds for 2z.
    reported, right = (own_curve(SampledWithoutReplacementGaussian(10_000, 100, z), (4.0,))[0] for z in (1.0, 0.5))

    assert right > 4 * reported
