from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from accountant.errors import AccountantError, InvalidEventError
from accountant.events import PoissonGaussian

NOT_NUMBERS: list[Any] = [None, "1", True, [], 1j, np.float32(0.5)]


def test_an_event_within_range_keeps_its_fields() -> None:
    event = PoissonGaussian(0.01, 1.1, 100)

    assert (0.01, 1.1, 100) == (event.sampling_probability, event.noise_multiplier, event.rounds)


def test_the_ends_of_the_ranges_are_allowed() -> None:
    PoissonGaussian(1.0, 0.1, 1)
    PoissonGaussian(5e-324, 1e4, 10**7)


def test_whole_numbers_become_floats() -> None:
    event = PoissonGaussian(1, 2, 3)

    assert [float, float, int] == [type(value) for value in dataclasses.astuple(event)]


@pytest.mark.parametrize("value", [0.0, -0.1, 1.0000001, math.nan, math.inf, -math.inf, 10**400, *NOT_NUMBERS])
def test_a_bad_sampling_probability_is_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidEventError) as refused:
        PoissonGaussian(value, 1.0, 1)

    assert "sampling_probability" == refused.value.field


@pytest.mark.parametrize("value", [0.0, 0.0999, -1.0, 1.00001e4, math.nan, math.inf, -math.inf, 10**400, *NOT_NUMBERS])
def test_a_bad_noise_multiplier_is_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidEventError) as refused:
        PoissonGaussian(0.5, value, 1)

    assert "noise_multiplier" == refused.value.field


@pytest.mark.parametrize("value", [0, -1, 10**7 + 1, 1.0, math.nan, math.inf, np.int64(3), *NOT_NUMBERS])
def test_bad_rounds_are_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidEventError) as refused:
        PoissonGaussian(0.5, 1.0, value)

    assert "rounds" == refused.value.field
    assert isinstance(refused.value, AccountantError)


def test_an_event_cannot_be_changed() -> None:
    event = PoissonGaussian(0.5, 1.0, 1)

    with pytest.raises(dataclasses.FrozenInstanceError):
        event.rounds = 2  # type: ignore[misc]
