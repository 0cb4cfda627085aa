from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from api.schemas import AssetIn, PopulationIn, TrainRequestIn, UserIn
from governance.model import OnExceed, TrainRequest

MINIMAL: dict[str, Any] = {
    "rounds": 10,
    "clients_per_round": 2,
    "noise_multiplier": 0.05,
    "train_data_id": "ast_1",
    "label_data_id": "ast_2",
    "model": {},
}


def places(**changes: Any) -> list[str]:
    """Where a request with these changes is refused."""
    try:
        TrainRequestIn.model_validate(MINIMAL | changes)
    except ValidationError as error:
        return [".".join(str(part) for part in one["loc"]) for one in error.errors()]
    return []


def test_the_defaults_are_those_of_the_domain() -> None:
    request = TrainRequestIn.model_validate(MINIMAL).to_domain()
    assert TrainRequest(**MINIMAL) == request


@pytest.mark.parametrize(
    ("field", "low", "high"),
    [
        ("rounds", 1, 10**7),
        ("clients_per_round", 1, 10**10),
        ("noise_multiplier", 1e-300, 100.0),
        ("max_noise_multiplier", 0.1, 1e4),
        ("clipping_norm", 1e-6, 1e6),
        ("local_epochs", 1, 100),
        ("batch_size", 1, 4096),
        ("client_learning_rate", 1e-300, 1e6),
        ("server_learning_rate", 1e-300, 1e6),
        ("client_momentum", 0.0, math.nextafter(1, 0)),
        ("server_momentum", 0.0, math.nextafter(1, 0)),
    ],
)
def test_a_range_includes_its_ends_and_nothing_beyond(field: str, low: float, high: float) -> None:
    assert [[], []] == [places(**{field: low}), places(**{field: high})]
    below = low - 1 if isinstance(low, int) else math.nextafter(low, -1) if low >= 1e-6 else -1e-9
    above = high + 1 if isinstance(high, int) else math.nextafter(high, math.inf)
    assert [field] == places(**{field: below})
    if field != "noise_multiplier":
        assert [field] == places(**{field: above})


@pytest.mark.parametrize("field", ["noise_multiplier", "clipping_norm", "client_learning_rate", "server_momentum"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, "1", True, None, [], {}, 10**400])
def test_no_real_parameter_takes_what_is_not_a_finite_number(field: str, value: object) -> None:
    assert [field] == places(**{field: value})


@pytest.mark.parametrize("field", ["rounds", "clients_per_round", "batch_size"])
@pytest.mark.parametrize("value", [0, -1, 1.0, 1.5, "1", True, None, math.nan, 10**30])
def test_no_count_takes_what_is_not_a_positive_integer(field: str, value: object) -> None:
    assert [field] == places(**{field: value})


def test_an_integer_stands_for_a_float_with_the_same_digest() -> None:
    whole = TrainRequestIn.model_validate(MINIMAL | {"noise_multiplier": 1, "clipping_norm": 1})
    real = TrainRequestIn.model_validate(MINIMAL | {"noise_multiplier": 1.0})
    assert whole.digest() == real.digest()


def test_another_request_has_another_digest() -> None:
    digests = {
        TrainRequestIn.model_validate(MINIMAL | changes).digest()
        for changes in ({}, {"rounds": 11}, {"purpose": "x"}, {"model": {"a": 1}}, {"no_clients": 3})
    }
    assert 5 == len(digests)


def test_a_pool_smaller_than_a_round_is_refused() -> None:
    assert [""] == places(no_clients=1)


def test_a_noise_limit_below_the_noise_is_refused() -> None:
    assert [""] == places(noise_multiplier=101.0)
    assert [] == places(noise_multiplier=101.0, max_noise_multiplier=101.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("loss", "hinge"),
        ("mechanism", "none"),
        ("client_optimizer", "adam"),
        ("server_optimizer", "lamb"),
        ("on_exceed", "ignore"),
        ("on_exceed", OnExceed.CLAMP.name),
        ("purpose", ""),
        ("purpose", "a\nb"),
        ("purpose", "a\u202eb"),
        ("purpose", "x" * 1001),
        ("train_data_id", "../etc"),
        ("train_data_id", ""),
        ("model", []),
        ("model", "{}"),
        ("sigma", 1.0),
    ],
)
def test_what_is_outside_the_vocabulary_is_refused(field: str, value: object) -> None:
    assert [field] == places(**{field: value})


@pytest.mark.parametrize(
    "changes",
    [
        {"declared_size": 1},
        {"declared_size": 1e3},
        {"epsilon": 0},
        {"epsilon": math.inf},
        {"delta": 0},
        {"delta": 1},
        {"delta": "1e-5"},
        {"name": " "},
        {"spent": 1},
    ],
)
def test_an_unfit_population_is_refused(changes: dict[str, Any]) -> None:
    fit = {"name": "writers", "declared_size": 300, "epsilon": 8, "delta": 1e-5}
    assert 300 == PopulationIn.model_validate(fit).declared_size
    with pytest.raises(ValidationError):
        PopulationIn.model_validate(fit | changes)


@pytest.mark.parametrize("shape", [[0], [-1], [1.0], [True], "1", [1] * 5, [10**7]])
def test_an_unfit_shape_is_refused(shape: object) -> None:
    with pytest.raises(ValidationError):
        AssetIn.model_validate({"name": "x", "dtype": "float32", "shape": shape})


@pytest.mark.parametrize("email", ["", "sam", "@x", "sam@", "a b@c", "a@b\nc", "a@b@c"])
def test_an_unfit_address_is_refused(email: str) -> None:
    with pytest.raises(ValidationError):
        UserIn.model_validate({"email": email, "role": "owner", "display_name": "S"})
