from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from accountant.calibration import Cap
from accountant.curve import MAX_AMOUNT
from accountant.errors import InvalidVectorError
from accountant.filter import Budget, admits
from governance.audit.remaining import largest_count

ORDERS = (2.0, 4.0, 16.0)
BUDGET = Budget(4.0, 1e-5, ORDERS, (0.25, 0.25, 0.5))
amounts = st.integers(1, 2**45)


@given(st.tuples(amounts, amounts, amounts), st.tuples(amounts, amounts, amounts))
def test_so_many_are_admitted_and_one_more_is_not(amount: tuple[int, int, int], spent: tuple[int, int, int]) -> None:
    count = largest_count(Cap("", BUDGET, spent), amount)

    def admitted(number: int) -> bool:
        return admits(BUDGET, spent, tuple(units * number for units in amount))

    assert not admitted(count + 1)
    assert count == 0 or admitted(count)


def test_no_more_are_promised_than_the_filter_can_add() -> None:
    amount = (1, 1, MAX_AMOUNT // 2)
    assert 2 == largest_count(Cap("", BUDGET, (0, 0, 0)), amount)
    try:
        admits(BUDGET, (0, 0, 0), tuple(units * 3 for units in amount))
    except InvalidVectorError:
        return
    raise AssertionError("the filter added more than 127 bits")
