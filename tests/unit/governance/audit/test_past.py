"""Amounts of many runs at a time: the same integers as one after the other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accountant.events import MAX_ROUNDS
from governance.audit.past import _amounts
from governance.errors import StorageError
from governance.ledger import vectors
from governance.ledger.past_budgets import Counted

units = st.integers(0, 2**127 - 1)
curves = st.lists(st.lists(units, min_size=3, max_size=3), min_size=1, max_size=20)


@given(curves)
def test_amounts_of_many_runs_are_their_exact_sums(found: list[list[int]]) -> None:
    rounds = [(MAX_ROUNDS - place, MAX_ROUNDS // (place + 1)) for place, _ in enumerate(found)]
    rows = [
        Counted(vectors.encode(curve), 1, "p", "r", committed, debited)
        for curve, (committed, debited) in zip(found, rounds, strict=True)
    ]
    expected = tuple(
        tuple(sum(curve[order] * many[which] for curve, many in zip(found, rounds, strict=True)) for order in range(3))
        for which in (0, 1)
    )
    assert expected == _amounts(rows)


def test_the_most_rounds_of_the_largest_curve_a_thousand_times_do_not_wrap() -> None:
    row = Counted(vectors.encode([2**127 - 1]), 1, "p", "r", MAX_ROUNDS, 0)
    assert (((2**127 - 1) * MAX_ROUNDS * 1000,), (0,)) == _amounts([row] * 1000)


def test_an_event_that_is_charged_whole_counts_by_its_charges() -> None:
    row = Counted(vectors.encode([5]), 40, "p", "r", 40, 0)
    assert ((5,), (0,)) == _amounts([row])


@pytest.mark.parametrize(("rounds", "per_charge"), [(41, 40), (-1, 1), (MAX_ROUNDS + 1, 1)])
def test_numbers_of_rounds_that_cannot_be_are_refused(rounds: int, per_charge: int) -> None:
    with pytest.raises(StorageError):
        _amounts([Counted(vectors.encode([5]), per_charge, "p", "r", rounds, 0)])
