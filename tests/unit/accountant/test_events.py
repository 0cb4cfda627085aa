from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from accountant.errors import AccountantError, InvalidEventError
from accountant.events import (
    AdaptiveClippingGaussian,
    Event,
    FixedSizeGaussian,
    PoissonGaussian,
    PoissonGaussianStatistics,
    TreeGaussian,
)

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


EVERY_EVENT: list[Event] = [
    PoissonGaussian(0.5, 1.0, 1),
    PoissonGaussianStatistics(0.5, (1.0, 2.0), 1),
    AdaptiveClippingGaussian(0.5, 1.0, 20.0, 1),
    FixedSizeGaussian(100, 10, 1.0, 1),
    TreeGaussian(1.0, 8, 2, 3, (5, 3)),
]
COUNTS = [-1, 0, 10**400, 1.0, math.nan, math.inf, np.int64(3), *NOT_NUMBERS]
FIELDS = [
    (event, field.name, value)
    for event in EVERY_EVENT
    for field in dataclasses.fields(event)
    for value in (math.nan, math.inf, -math.inf, -1, True, "1", None, 10**400, 1j)
]


@pytest.mark.parametrize(("event", "field", "value"), FIELDS)
def test_every_field_of_every_event_refuses_nonsense_by_name(event: Event, field: str, value: Any) -> None:
    with pytest.raises(InvalidEventError) as refused:
        dataclasses.replace(event, **{field: value})

    assert field == refused.value.field


@pytest.mark.parametrize("event", EVERY_EVENT)
def test_no_event_can_be_changed(event: Event) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.rounds = 2  # type: ignore[misc]


@pytest.mark.parametrize("event", EVERY_EVENT)
def test_every_event_can_be_remembered_by_what_it_is(event: Event) -> None:
    assert 1 == len({event, dataclasses.replace(event)})


def test_two_equal_statistics_halve_the_squared_noise_multiplier() -> None:
    event = PoissonGaussianStatistics(0.01, (0.5, 0.5), 100)

    assert math.isclose(0.5 / math.sqrt(2), event.noise_multiplier, rel_tol=1e-15)


def test_one_statistic_is_itself() -> None:
    assert 0.7 == pytest.approx(PoissonGaussianStatistics(0.01, (0.7,), 100).noise_multiplier, rel=1e-15)


def test_statistics_may_come_as_a_list_of_whole_numbers() -> None:
    event = PoissonGaussianStatistics(0.01, [1, 2], 100)  # type: ignore[arg-type]

    assert (1.0, 2.0) == event.noise_multipliers
    assert [float, float] == list(map(type, event.noise_multipliers))


@pytest.mark.parametrize(
    "value", [(), [], (1.0,) * 257, (1.0, math.nan), (1.0, 0.05), (0.1, 0.1), ("1",), (True,), 1.0, "12", {1.0: 2.0}]
)
def test_bad_statistics_are_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidEventError) as refused:
        PoissonGaussianStatistics(0.01, value, 100)

    assert "noise_multipliers" == refused.value.field


@pytest.mark.parametrize(("noise", "stddev"), [(1.0, 20.0), (1.0, 0.51), (8.0, 4.1), (0.1, 4e3)])
def test_value_and_count_noise_together_are_the_total(noise: float, stddev: float) -> None:
    event = AdaptiveClippingGaussian(0.01, noise, stddev, 100)

    together = PoissonGaussianStatistics(0.01, (event.value_noise_multiplier, 2 * stddev), 100)
    assert event.value_noise_multiplier >= noise
    assert noise == pytest.approx(together.noise_multiplier, rel=1e-12)


def test_the_values_noise_multiplier_is_that_of_the_paper() -> None:
    event = AdaptiveClippingGaussian(0.01, 1.0, 20.0, 100)

    assert (1.0**-2 - (2 * 20.0) ** -2) ** -0.5 == pytest.approx(event.value_noise_multiplier, rel=1e-12)


@pytest.mark.parametrize("stddev", [0.5, 0.4, 0.0, -1.0, 0.5 + 1e-16, 0.5000000001, 1e10, math.nan])
def test_a_count_noise_that_leaves_nothing_for_the_values_is_refused(stddev: float) -> None:
    with pytest.raises(InvalidEventError) as refused:
        AdaptiveClippingGaussian(0.01, 1.0, stddev, 100)

    assert "clipped_count_stddev" == refused.value.field


@pytest.mark.parametrize("value", [*COUNTS, 10**10 + 1])
def test_a_bad_population_size_is_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidEventError) as refused:
        FixedSizeGaussian(value, 1, 1.0, 1)

    assert "population_size" == refused.value.field


@pytest.mark.parametrize("value", [*COUNTS, 101])
def test_a_sample_is_not_larger_than_its_population(value: Any) -> None:
    with pytest.raises(InvalidEventError) as refused:
        FixedSizeGaussian(100, value, 1.0, 1)

    assert "sample_size" == refused.value.field


def test_everybody_may_be_the_sample() -> None:
    FixedSizeGaussian(100, 100, 1.0, 1)


@pytest.mark.parametrize("value", [(4, 5), (8, 0), (9, -1), (8.0,), (True,) * 8, 8, "8", (1,) * 65, None])
def test_trees_must_make_up_the_run(value: Any) -> None:
    with pytest.raises(InvalidEventError) as refused:
        TreeGaussian(1.0, 8, 2, 3, value)

    assert "restart_rounds" == refused.value.field


def test_without_restarts_there_is_one_tree() -> None:
    assert (8,) == TreeGaussian(1.0, 8, 2, 3).trees
    assert (5, 3) == TreeGaussian(1.0, 8, 2, 3, [5, 3]).trees  # type: ignore[arg-type]


@pytest.mark.parametrize(("most", "separation", "expected"), [(6, 313, 6), (100, 313, 7), (1, 0, 1), (100, 1999, 1)])
def test_a_unit_takes_part_no_more_often_than_the_rounds_have_room_for(
    most: int, separation: int, expected: int
) -> None:
    assert expected == TreeGaussian(1.0, 2000, most, separation).participations


def test_more_participations_than_can_be_accounted_are_refused() -> None:
    TreeGaussian(1.0, 2**20, 128, 0)
    TreeGaussian(1.0, 2**20, 2**20, 2**13 - 1)
    with pytest.raises(InvalidEventError) as refused:
        TreeGaussian(1.0, 2**20, 2**20, 2**13 - 2)

    assert "max_participation" == refused.value.field
    assert "min_separation" in str(refused.value)


def test_longer_trees_than_can_be_accounted_are_refused() -> None:
    with pytest.raises(InvalidEventError) as refused:
        TreeGaussian(1.0, 2**20 + 1, 1, 0)

    assert "rounds" == refused.value.field
