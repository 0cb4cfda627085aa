"""Fitting a request into budgets, without a database."""

from __future__ import annotations

from dataclasses import replace

import pytest

from accountant.calibration import Cap, fits
from accountant.curve import round_curve
from accountant.filter import Budget, add, zero
from governance.clamping import Fitted, event_of, fit
from governance.model import CLAMPABLE, TrainRequest

BUDGET = Budget.open(8.0, 1e-5)
POOL = 300
REQUEST = TrainRequest(
    rounds=100,
    clients_per_round=30,
    noise_multiplier=2.0,
    train_data_id="ast_1",
    label_data_id="ast_2",
    model={},
)


def cap(budget: Budget = BUDGET, name: str = "the population's budget", spent_rounds: int = 0) -> Cap:
    spent = zero(budget.orders)
    if spent_rounds:
        spent = add(spent, round_curve(0.2, 2.0, budget.orders).times(spent_rounds))
    return Cap(name, budget, spent)


def fitted(request: TrainRequest, *caps: Cap, order: tuple[str, ...] = CLAMPABLE) -> Fitted:
    answer = fit(request, caps or (cap(),), order, pool_size=POOL)
    assert isinstance(answer, Fitted)
    assert fits(caps or (cap(),), answer.charge.curve.times(answer.event.rounds)) is None
    return answer


def test_a_request_that_fits_is_not_touched() -> None:
    answer = fitted(REQUEST)
    assert (REQUEST, ()) == (answer.request, answer.clamps)
    assert event_of(REQUEST, POOL) == answer.event


def test_noise_is_raised_first_and_only_as_far_as_needed() -> None:
    hungry = replace(REQUEST, clients_per_round=200, noise_multiplier=0.5)
    answer = fitted(hungry)
    assert ["noise_multiplier"] == [clamp.parameter for clamp in answer.clamps]
    less = replace(answer.request, noise_multiplier=answer.request.noise_multiplier * 0.995)
    curve = round_curve(less.clients_per_round / POOL, less.noise_multiplier, BUDGET.orders)
    assert fits((cap(),), curve.times(less.rounds)) is not None


def test_clients_give_way_where_noise_has_reached_its_maximum() -> None:
    answer = fitted(replace(REQUEST, clients_per_round=200, noise_multiplier=1.0, max_noise_multiplier=1.5))
    assert ["noise_multiplier", "clients_per_round"] == [clamp.parameter for clamp in answer.clamps]
    assert 1.5 == answer.request.noise_multiplier


def test_the_policys_order_is_kept() -> None:
    answer = fitted(replace(REQUEST, clients_per_round=200, noise_multiplier=1.0), order=("rounds",))
    assert ["rounds"] == [clamp.parameter for clamp in answer.clamps]
    assert answer.request.rounds < 100
    one_more = answer.charge.curve.times(answer.request.rounds + 1)
    assert fits((cap(),), one_more) is not None


def test_nothing_may_be_clamped_where_the_order_is_empty() -> None:
    answer = fit(replace(REQUEST, clients_per_round=200, noise_multiplier=0.5), (cap(),), (), pool_size=POOL)
    assert cap().name == getattr(answer, "name", None)


def test_clamping_only_tightens() -> None:
    asked = replace(REQUEST, clients_per_round=250, noise_multiplier=0.3, rounds=5000, max_noise_multiplier=4.0)
    answer = fitted(asked).request
    assert answer.noise_multiplier >= asked.noise_multiplier
    assert answer.clients_per_round <= asked.clients_per_round
    assert answer.rounds <= asked.rounds


def test_a_quota_that_binds_first_is_named() -> None:
    quota = cap(replace(BUDGET, epsilon=1.5), "the project's quota")
    answer = fitted(replace(REQUEST, clients_per_round=60), cap(), quota)
    assert all("the project's quota" in clamp.why for clamp in answer.clamps)
    assert answer.clamps


def test_the_limit_that_decides_is_named_where_others_do_not_admit_the_request_either() -> None:
    asked = replace(REQUEST, clients_per_round=250, noise_multiplier=0.5)
    quota = cap(replace(BUDGET, epsilon=1.5), "the project's quota")
    exhausted = Cap("the researcher's", BUDGET, tuple(max(0, bound) for bound in BUDGET.thresholds()))

    clamped = fitted(asked, cap(), quota)
    refused = fit(replace(asked, max_noise_multiplier=2.0), (cap(), quota, exhausted), CLAMPABLE, pool_size=POOL)

    assert {f"what remains of {quota.name} does not allow more"} == {clamp.why for clamp in clamped.clamps}
    assert exhausted is refused


@pytest.mark.parametrize("order", [CLAMPABLE, tuple(reversed(CLAMPABLE))])
def test_a_budget_without_room_refuses_by_name(order: tuple[str, ...]) -> None:
    full = Cap("the population's budget", BUDGET, tuple(max(0, bound) + 1 for bound in BUDGET.thresholds()))
    answer = fit(REQUEST, (full,), order, pool_size=POOL)
    assert full is answer
