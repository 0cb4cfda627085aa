from __future__ import annotations

import math
from typing import Any

import pytest

from accountant import calibration
from accountant.calibration import (
    Cap,
    fits,
    largest_clients_per_round,
    largest_rounds,
    smallest_noise_multiplier,
)
from accountant.curve import Curve, round_curve
from accountant.errors import AccountantError, InvalidEventError, InvalidVectorError
from accountant.filter import Budget, Vector, subtract, zero

ORDERS = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0, 128.0)
WIDE, NARROW = Budget.open(8.0, 1e-6, ORDERS), Budget.open(2.0, 1e-6, ORDERS)
HISTORY = round_curve(0.01, 1.0, ORDERS).times(200)
CAPS = [Cap("population", WIDE, HISTORY), Cap("project", NARROW, zero(ORDERS))]


def charged(q: float, z: float, rounds: int) -> Vector:
    return round_curve(q, z, ORDERS).times(rounds)


def next_readable_below(z: float) -> float:
    return float(f"{z - 10.0 ** (math.floor(math.log10(z * (1 - 1e-12))) - 3):.4g}")


def test_what_fits_under_every_cap_fits() -> None:
    assert fits(CAPS, charged(0.001, 2.0, 10)) is None


def test_the_first_cap_that_refuses_is_named() -> None:
    assert CAPS[1] is fits(CAPS, charged(0.01, 1.0, 2500))
    assert CAPS[0] is fits(CAPS, charged(0.1, 0.3, 100))


@pytest.mark.parametrize(("q", "z"), [(0.001, 1.0), (0.01, 1.0), (0.1, 3.0), (1.0, 40.0), (0.5, 10.0)])
def test_the_largest_rounds_fit_and_one_more_does_not(q: float, z: float) -> None:
    curve = round_curve(q, z, ORDERS)
    rounds = largest_rounds(CAPS, curve, 10**7)

    assert 1 <= rounds < 10**7
    assert fits(CAPS, curve.times(rounds)) is None
    assert fits(CAPS, curve.times(rounds + 1)) is not None


def test_rounds_are_never_more_than_asked_for() -> None:
    assert 7 == largest_rounds(CAPS, round_curve(0.001, 5.0, ORDERS), 7)


def test_no_rounds_where_not_even_one_fits() -> None:
    assert 0 == largest_rounds(CAPS, round_curve(1.0, 0.1, ORDERS), 100)


def test_no_rounds_where_more_is_spent_than_allowed() -> None:
    over = tuple(max(bound, 0) + 1 for bound in WIDE.thresholds())

    assert 0 == largest_rounds([Cap("population", WIDE, over)], round_curve(0.001, 5.0, ORDERS), 100)


def test_rounds_that_fill_a_budget_to_the_last_unit_are_found() -> None:
    curve = round_curve(0.01, 1.0, ORDERS)
    spent = tuple(max(bound - amount, 0) for bound, amount in zip(WIDE.thresholds(), curve.times(321), strict=True))

    assert 321 == largest_rounds([Cap("population", WIDE, spent)], curve, 10**6)


@pytest.mark.parametrize(
    ("q", "rounds"), [(0.001, 10_000), (0.01, 1), (0.01, 1000), (0.1, 100), (0.5, 30), (1.0, 1), (1.0, 500)]
)
def test_the_smallest_noise_fits_and_the_next_smaller_readable_value_does_not(q: float, rounds: int) -> None:
    noise = smallest_noise_multiplier(CAPS, q, rounds, 0.1, 1e4)

    assert noise is not None
    assert noise == float(f"{noise:.4g}")
    assert fits(CAPS, charged(q, noise, rounds)) is None
    assert fits(CAPS, charged(q, next_readable_below(noise), rounds)) is not None


def test_noise_that_fits_already_is_kept_as_it_is() -> None:
    assert 7.123456789 == smallest_noise_multiplier(CAPS, 0.01, 100, 7.123456789, 100.0)


def test_a_request_for_too_little_noise_starts_at_what_can_be_accounted() -> None:
    plenty = [Cap("population", Budget.open(1e5, 1e-6, ORDERS), zero(ORDERS))]

    assert 0.1 == smallest_noise_multiplier(plenty, 0.001, 1, 0.0, 100.0)


def test_the_upper_limit_itself_may_be_the_answer() -> None:
    needed = smallest_noise_multiplier(CAPS, 0.01, 1000, 0.1, 100.0)
    assert needed is not None
    too_little, limit = next_readable_below(needed), needed
    for _ in range(10):  # a limit that fits, with no readable value between it and what does not fit
        middle = (too_little + limit) / 2
        fitting = fits(CAPS, charged(0.01, middle, 1000)) is None
        too_little, limit = (too_little, middle) if fitting else (middle, limit)
    assert limit < needed

    assert limit == smallest_noise_multiplier(CAPS, 0.01, 1000, 0.1, limit)
    assert smallest_noise_multiplier(CAPS, 0.01, 1000, 0.1, too_little) is None


def test_no_noise_where_even_the_most_allowed_is_too_little() -> None:
    assert smallest_noise_multiplier(CAPS, 1.0, 1000, 1.0, 10.0) is None
    assert smallest_noise_multiplier(CAPS, 0.01, 1, 5.0, 4.0) is None


def test_no_noise_helps_an_exhausted_budget() -> None:
    full = tuple(max(bound, 0) for bound in NARROW.thresholds())
    caps = [Cap("project", NARROW, full)]

    assert smallest_noise_multiplier(caps, 1e-6, 1, 0.1, 1e4) is None
    assert 0 == largest_clients_per_round(caps, 10**6, 1e4, 1, 10)
    assert 0 == largest_rounds(caps, round_curve(1e-6, 1e4, ORDERS), 10)


@pytest.mark.parametrize(("pool", "noise", "rounds"), [(100, 2.0, 100), (10_000, 1.0, 500), (10**9, 1.0, 3000)])
def test_the_largest_number_of_clients_fits_and_one_more_does_not(pool: int, noise: float, rounds: int) -> None:
    clients = largest_clients_per_round(CAPS, pool, noise, rounds, pool)

    assert 1 <= clients < pool
    assert fits(CAPS, charged(clients / pool, noise, rounds)) is None
    assert fits(CAPS, charged((clients + 1) / pool, noise, rounds)) is not None


def test_clients_are_never_more_than_asked_for_or_than_the_pool() -> None:
    assert 7 == largest_clients_per_round(CAPS, 10_000, 10.0, 10, 7)
    assert 20 == largest_clients_per_round(CAPS, 20, 100.0, 10, 1000)


def test_no_clients_where_not_even_one_fits() -> None:
    assert 0 == largest_clients_per_round(CAPS, 2, 0.3, 1000, 2)


def test_every_solver_answers_for_the_tightest_of_its_caps() -> None:
    curve = round_curve(0.01, 1.0, ORDERS)
    alone = [largest_rounds([cap], curve, 10**7) for cap in CAPS]
    noises = [smallest_noise_multiplier([cap], 0.01, 500, 0.1, 100.0) for cap in CAPS]
    clients = [largest_clients_per_round([cap], 10_000, 1.0, 500, 10_000) for cap in CAPS]

    assert min(alone) == largest_rounds(CAPS, curve, 10**7)
    assert max(noise for noise in noises if noise) == smallest_noise_multiplier(CAPS, 0.01, 500, 0.1, 100.0)
    assert min(clients) == largest_clients_per_round(CAPS, 10_000, 1.0, 500, 10_000)


def test_the_answer_moves_to_the_safe_side_where_the_charged_curve_is_dearer(monkeypatch: pytest.MonkeyPatch) -> None:
    def dearer(q: float, z: float, orders: tuple[float, ...]) -> Curve:
        units = round_curve(q, z, orders).units
        return Curve(orders, tuple(unit + unit // 100 for unit in units))

    noise = smallest_noise_multiplier(CAPS, 0.01, 1000, 0.1, 100.0)
    clients = largest_clients_per_round(CAPS, 10**6, 1.0, 1000, 10**6)
    monkeypatch.setattr(calibration, "round_curve", dearer)
    safer_noise = smallest_noise_multiplier(CAPS, 0.01, 1000, 0.1, 100.0)
    fewer_clients = largest_clients_per_round(CAPS, 10**6, 1.0, 1000, 10**6)

    assert noise is not None
    assert safer_noise is not None
    assert noise < safer_noise < noise * 1.03
    assert clients * 0.95 < fewer_clients < clients
    assert fits(CAPS, dearer(0.01, safer_noise, ORDERS).times(1000)) is None
    assert fits(CAPS, dearer(fewer_clients / 10**6, 1.0, ORDERS).times(1000)) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, "1", None, True])
def test_bad_noise_limits_are_refused(bad: Any) -> None:
    with pytest.raises(InvalidEventError):
        smallest_noise_multiplier(CAPS, 0.01, 10, bad, 100.0)
    with pytest.raises(InvalidEventError):
        smallest_noise_multiplier(CAPS, 0.01, 10, 1.0, bad)


@pytest.mark.parametrize("bad", [math.nan, 0, -1, 1.5, None, True])
def test_bad_counts_are_refused(bad: Any) -> None:
    for solve in (
        lambda: largest_rounds(CAPS, round_curve(0.01, 1.0, ORDERS), bad),
        lambda: smallest_noise_multiplier(CAPS, 0.01, bad, 1.0, 100.0),
        lambda: largest_clients_per_round(CAPS, bad, 1.0, 10, 5),
        lambda: largest_clients_per_round(CAPS, 100, 1.0, bad, 5),
        lambda: largest_clients_per_round(CAPS, 100, 1.0, 10, bad),
    ):
        with pytest.raises(AccountantError):
            solve()


def test_caps_and_curves_of_different_orders_are_refused() -> None:
    other = Cap("other", Budget.open(8.0, 1e-6, (2.0, 4.0)), (0, 0))
    with pytest.raises(InvalidVectorError):
        largest_rounds([*CAPS, other], round_curve(0.01, 1.0, ORDERS), 10)
    with pytest.raises(InvalidVectorError):
        largest_rounds(CAPS, round_curve(0.01, 1.0, (2.0, 4.0)), 10)
    with pytest.raises(InvalidVectorError):
        largest_rounds([], round_curve(0.01, 1.0, ORDERS), 10)
    with pytest.raises(InvalidVectorError):
        Cap("other", WIDE, (0, 0))


def test_rounds_released_from_a_cap_are_available_again() -> None:
    curve = round_curve(0.01, 1.0, ORDERS)
    cap = CAPS[0]
    released = Cap(cap.name, cap.budget, subtract(cap.spent, curve.times(50)))

    assert largest_rounds([cap], curve, 10**7) + 50 == largest_rounds([released], curve, 10**7)
