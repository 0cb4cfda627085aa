"""Whatever is asked, in whatever order, no budget is exceeded; what solvers return fits, and is the best that fits."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from accountant.calibration import Cap, fits, largest_clients_per_round, largest_rounds, smallest_noise_multiplier
from accountant.curve import estimate, round_curve
from accountant.filter import Budget, Vector, add, admits, subtract, zero
from accountant.odometer import epsilon_reading

ORDERS = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0, 64.0)
AMOUNTS = st.lists(st.integers(0, 2**110), min_size=len(ORDERS), max_size=len(ORDERS)).map(tuple)
BUDGETS = st.builds(Budget.open, st.floats(0.5, 20.0), st.sampled_from([1e-5, 1e-6, 1e-9]), st.just(ORDERS))
RUNS = st.tuples(st.sampled_from([1e-3, 0.01, 0.1, 0.5, 1.0]), st.sampled_from([0.5, 1.0, 4.0]), st.integers(1, 10**4))
HISTORIES = st.lists(RUNS, max_size=4)


def spend(budget: Budget, runs: list[tuple[float, float, int]]) -> Vector:
    spent = zero(ORDERS)
    for q, z, rounds in runs:
        cost = round_curve(q, z, ORDERS).times(rounds)
        if admits(budget, spent, cost):
            spent = add(spent, cost)
    return spent


@given(a=AMOUNTS, b=AMOUNTS)
def test_adding_and_subtracting_are_exact_inverses(a: Vector, b: Vector) -> None:
    assert add(a, b) == add(b, a)
    assert a == subtract(add(a, b), b)


@given(budget=BUDGETS, spent=AMOUNTS, more=AMOUNTS)
def test_what_does_not_fit_alone_does_not_fit_on_top(budget: Budget, spent: Vector, more: Vector) -> None:
    if admits(budget, spent, more):
        assert admits(budget, zero(ORDERS), more)
        assert epsilon_reading(budget, add(spent, more), budget.delta) <= budget.epsilon


@settings(deadline=None)
@given(budget=BUDGETS, runs=st.lists(RUNS, max_size=12))
def test_after_any_sequence_the_reading_is_at_most_the_cap(
    budget: Budget, runs: list[tuple[float, float, int]]
) -> None:
    assert epsilon_reading(budget, spend(budget, runs), budget.delta) <= budget.epsilon


@settings(deadline=None)
@given(budget=BUDGETS, runs=HISTORIES, run=RUNS, at_most=st.integers(1, 10**7))
def test_rounds_are_the_most_that_fit(
    budget: Budget, runs: list[tuple[float, float, int]], run: tuple[float, float, int], at_most: int
) -> None:
    caps = [Cap("population", budget, spend(budget, runs)), Cap("quota", Budget.open(4.0, 1e-6, ORDERS), zero(ORDERS))]
    curve = round_curve(run[0], run[1], ORDERS)
    rounds = largest_rounds(caps, curve, at_most)

    assert 0 <= rounds <= at_most
    assert rounds == 0 or fits(caps, curve.times(rounds)) is None
    assert rounds == at_most or fits(caps, curve.times(rounds + 1)) is not None


@settings(deadline=None, max_examples=40)
@given(
    budget=BUDGETS,
    runs=HISTORIES,
    q=st.sampled_from([1e-4, 0.003, 0.02, 0.3, 1.0]),
    rounds=st.integers(1, 10**4),
    bounds=st.tuples(st.floats(0.1, 5.0), st.floats(1.0, 1e3)),
)
def test_noise_is_the_least_readable_value_that_fits(
    budget: Budget, runs: list[tuple[float, float, int]], q: float, rounds: int, bounds: tuple[float, float]
) -> None:
    caps = [Cap("population", budget, spend(budget, runs))]
    low, high = bounds
    noise = smallest_noise_multiplier(caps, q, rounds, low, high)

    def fits_by_estimate(z: float) -> bool:
        return fits(caps, tuple(unit * rounds for unit in estimate(q, z, ORDERS))) is None

    if noise is None:
        assert low > high or not fits_by_estimate(high)
        return
    assert low <= noise <= high
    assert fits(caps, round_curve(q, noise, ORDERS).times(rounds)) is None
    assert noise == low or not fits_by_estimate(max(low, noise * (1 - 1.001e-3)))


@settings(deadline=None, max_examples=40)
@given(
    budget=BUDGETS,
    runs=HISTORIES,
    pool=st.integers(1, 10**8),
    z=st.floats(0.5, 50.0),
    rounds=st.integers(1, 10**4),
    at_most=st.integers(1, 10**8),
)
def test_clients_are_the_most_that_fit(
    budget: Budget, runs: list[tuple[float, float, int]], pool: int, z: float, rounds: int, at_most: int
) -> None:
    caps = [Cap("population", budget, spend(budget, runs))]
    clients = largest_clients_per_round(caps, pool, z, rounds, at_most)
    most = min(pool, at_most)

    assert 0 <= clients <= most
    if clients:
        assert fits(caps, round_curve(clients / pool, z, ORDERS).times(rounds)) is None
    if clients < most:
        more = min(max(clients + 1, round(clients * (1 + 1e-9))), most)
        assert fits(caps, tuple(unit * rounds for unit in estimate(more / pool, z, ORDERS))) is not None
