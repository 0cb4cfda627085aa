"""Policy limits applied to a request, without policies or a budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from governance.limits import apply_limits, breaches
from governance.model import Limits, TrainRequest

REQUEST = TrainRequest(
    rounds=100,
    clients_per_round=50,
    noise_multiplier=1.0,
    train_data_id="ast_1",
    label_data_id="ast_2",
    model={},
)


def applied(limits: Limits, **changes: Any) -> Any:
    return apply_limits(replace(REQUEST, **changes), limits, pool_size=300, parameters=1000)


def test_without_limits_a_request_stays_as_it_is() -> None:
    assert (REQUEST, (), ()) == applied(Limits())


@pytest.mark.parametrize(
    ("limit", "bound", "parameter", "requested"),
    [
        ("max_rounds", 40, "rounds", 100),
        ("max_clients_per_round", 20, "clients_per_round", 50),
        ("min_noise_multiplier", 2.5, "noise_multiplier", 1.0),
    ],
)
def test_three_limits_clamp_and_name_the_policy(limit: str, bound: float, parameter: str, requested: float) -> None:
    limits = Limits(**{limit: bound, "sources": {limit: "owner:digits"}})  # type: ignore[arg-type]
    within, clamps, refusals = applied(limits)
    assert bound == getattr(within, parameter)
    assert [(parameter, requested, bound, "owner:digits")] == [
        (clamp.parameter, clamp.requested, clamp.effective, clamp.by) for clamp in clamps
    ]
    assert () == refusals
    assert () == breaches(within, limits, pool_size=300, parameters=1000)


@pytest.mark.parametrize(
    "limits",
    [
        Limits(min_no_clients=301),
        Limits(max_clipping_norm=0.5),
        Limits(max_local_epochs=0),
        Limits(max_batch_size=4),
        Limits(max_model_parameters=999),
        Limits(max_client_learning_rate=0.01),
        Limits(max_server_learning_rate=0.5),
        Limits(allowed_mechanisms=frozenset({"tree"})),
        Limits(allowed_losses=frozenset()),
    ],
)
def test_a_breach_of_any_other_limit_refuses_and_changes_nothing(limits: Limits) -> None:
    within, clamps, refusals = applied(limits)
    assert (REQUEST, ()) == (within, clamps)
    assert 1 == len(refusals)
    assert refusals[0].field is not None


def test_noise_below_what_can_be_accounted_is_raised_to_it() -> None:
    within, clamps, refusals = applied(Limits(), noise_multiplier=0.05)
    assert (0.1, "system", ()) == (within.noise_multiplier, clamps[0].by, refusals)


def test_a_policys_noise_above_the_requests_own_maximum_refuses() -> None:
    _, _, refusals = applied(Limits(min_noise_multiplier=3.0), max_noise_multiplier=2.0)
    assert ["max_noise_multiplier"] == [reason.code for reason in refusals]


def test_a_limit_that_is_not_reached_does_nothing() -> None:
    limits = Limits(max_rounds=100, max_clients_per_round=50, min_noise_multiplier=1.0)
    assert (REQUEST, (), ()) == applied(limits)
