"""Curves never under-report, on the whole domain of the gate."""

from __future__ import annotations

import dp_accounting
from dp_accounting import rdp
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mpmath import mpf

from accountant.curve import UNITS_PER_NAT, estimate, round_curve
from tests.unit.accountant.oracle import exact_curve

ORDERS = (1.1, 1.7, 2.0, 3.3, 8.0, 10.9, 31.0, 108.0, 1024.0)
PROBABILITIES = st.floats(-7.0, 0.0).map(lambda exponent: min(10.0**exponent, 1.0)) | st.floats(1e-7, 1.0)
NOISES = st.floats(-1.0, 4.0).map(lambda exponent: min(max(10.0**exponent, 0.1), 1e4))


@settings(deadline=None, max_examples=60)
@given(q=PROBABILITIES, z=NOISES)
@example(q=1e-6, z=8.0)
@example(q=0.5, z=20.0)
@example(q=1.0, z=0.1)
def test_the_charge_is_never_below_dp_accounting_and_hardly_above_the_larger_of_both(q: float, z: float) -> None:
    library = rdp.RdpAccountant(list(ORDERS))
    library.compose(dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(z)))
    charged = round_curve(q, z, ORDERS).units
    own = estimate(q, z, ORDERS)

    assert list(charged) == sorted(charged)
    for unit, ours, theirs, order in zip(charged, own, library.rdp, ORDERS, strict=True):
        assert unit >= theirs * UNITS_PER_NAT
        assert unit >= ours >= 1
        assert unit <= ours * (1 + 1e-9) + 2 + 2.2e-12 / (order - 1) * UNITS_PER_NAT


@settings(deadline=None, max_examples=40)
@given(
    q=st.floats(-7.0, -1e-6).map(lambda exponent: 10.0**exponent), z=st.floats(0.3, 1e4), order=st.sampled_from(ORDERS)
)
def test_neither_the_charge_nor_the_estimate_is_below_the_truth(q: float, z: float, order: float) -> None:
    position = ORDERS.index(order)
    exact = exact_curve(q, z, order) * UNITS_PER_NAT

    assert exact <= estimate(q, z, ORDERS)[position] <= exact * (1 + mpf("1.1e-9")) + 4


@settings(deadline=None, max_examples=60)
@given(q=PROBABILITIES, z=NOISES, factor=st.floats(1.0, 10.0))
def test_less_noise_or_more_sampling_never_costs_less(q: float, z: float, factor: float) -> None:
    base = estimate(q, z, ORDERS)
    more_noise = estimate(q, min(z * factor, 1e4), ORDERS)
    more_clients = estimate(min(q * factor, 1.0), z, ORDERS)

    # One unit in a billion of slack: two curves of nearly equal arguments may round in different directions.
    assert all(less <= more + 1 + more // 10**11 for less, more in zip(more_noise, base, strict=True))
    assert all(less <= more + 1 + more // 10**11 for less, more in zip(base, more_clients, strict=True))


@settings(deadline=None, max_examples=60)
@given(z=NOISES, batches=st.lists(st.integers(0, 10**6), min_size=1, max_size=8))
def test_debits_in_any_batches_and_order_equal_their_reservation(z: float, batches: list[int]) -> None:
    curve = round_curve(1.0, z, ORDERS)
    debits = [curve.times(rounds) for rounds in reversed(batches)]

    assert curve.times(sum(batches)) == tuple(map(sum, zip(*debits, strict=True)))
