"""Which event composes under which neighbouring relation, written out once more."""

from __future__ import annotations

from typing import Any

import pytest

from accountant.errors import AccountantError, InvalidBudgetError, NotComposableError, UnknownEventError
from accountant.events import (
    AdaptiveClippingGaussian,
    Event,
    FixedSizeGaussian,
    PoissonGaussian,
    PoissonGaussianStatistics,
    TreeGaussian,
)
from accountant.mechanisms import (
    GaussianTrees,
    Mechanism,
    SampledGaussian,
    SampledWithoutReplacementGaussian,
    resolve,
)
from accountant.relations import ADD_OR_REMOVE_ONE, RELATIONS, REPLACE_ONE, REPLACE_SPECIAL

# None: cannot be composed.
TABLE: list[tuple[Event, Mechanism | None, Mechanism | None, Mechanism | None]] = [
    # event, ADD_OR_REMOVE_ONE, REPLACE_ONE, REPLACE_SPECIAL
    (PoissonGaussian(0.25, 3.0, 7), SampledGaussian(0.25, 3.0), None, SampledGaussian(0.25, 3.0)),
    (
        PoissonGaussian(1.0, 3.0, 7),
        SampledGaussian(1.0, 3.0),
        SampledGaussian(1.0, 1.5),
        SampledGaussian(1.0, 3.0),
    ),
    (
        PoissonGaussianStatistics(0.25, (4.0, 4.0, 4.0, 4.0), 7),
        SampledGaussian(0.25, 2.0),
        None,
        SampledGaussian(0.25, 2.0),
    ),
    (
        PoissonGaussianStatistics(1.0, (4.0, 4.0, 4.0, 4.0), 7),
        SampledGaussian(1.0, 2.0),
        SampledGaussian(1.0, 1.0),
        SampledGaussian(1.0, 2.0),
    ),
    (
        AdaptiveClippingGaussian(0.25, 3.0, 20.0, 7),
        SampledGaussian(0.25, 3.0),
        None,
        SampledGaussian(0.25, 3.0),
    ),
    (
        AdaptiveClippingGaussian(1.0, 3.0, 20.0, 7),
        SampledGaussian(1.0, 3.0),
        SampledGaussian(1.0, 1.5),
        SampledGaussian(1.0, 3.0),
    ),
    (FixedSizeGaussian(100, 10, 3.0, 7), None, SampledWithoutReplacementGaussian(100, 10, 1.5), None),
    (FixedSizeGaussian(100, 100, 3.0, 7), None, SampledWithoutReplacementGaussian(100, 100, 1.5), None),
    (TreeGaussian(3.0, 7, 2, 1), None, GaussianTrees(1.5, (7,), 2, 1), GaussianTrees(3.0, (7,), 2, 1)),
    (
        TreeGaussian(3.0, 7, 9, 1, (3, 4)),
        None,
        GaussianTrees(1.5, (3, 4), 4, 1),
        GaussianTrees(3.0, (3, 4), 4, 1),
    ),
]
CASES = [
    (event, relation, expected)
    for event, *row in TABLE
    for relation, expected in zip((ADD_OR_REMOVE_ONE, REPLACE_ONE, REPLACE_SPECIAL), row, strict=True)
]


def test_the_table_has_a_column_for_every_relation() -> None:
    assert {ADD_OR_REMOVE_ONE, REPLACE_ONE, REPLACE_SPECIAL} == set(RELATIONS)


@pytest.mark.parametrize(("event", "relation", "expected"), [case for case in CASES if case[2] is not None])
def test_what_composes_has_its_noise_over_its_sensitivity(event: Event, relation: str, expected: Mechanism) -> None:
    assert expected == resolve(event, relation)


@pytest.mark.parametrize(("event", "relation"), [case[:2] for case in CASES if case[2] is None])
def test_what_does_not_compose_is_refused_and_told_what_to_do(event: Event, relation: str) -> None:
    with pytest.raises(NotComposableError) as refused:
        resolve(event, relation)

    assert (type(event).__name__, relation) == (refused.value.event, refused.value.relation)
    assert refused.value.why in str(refused.value)
    assert "population opened with" in refused.value.what_to_do
    assert isinstance(refused.value, AccountantError)


@pytest.mark.parametrize("relation", ["", "add_or_remove_one", "REPLACE", None, 1, ["REPLACE_ONE"]])
def test_an_unknown_relation_is_refused(relation: Any) -> None:
    for event in (row[0] for row in TABLE):
        with pytest.raises(InvalidBudgetError):
            resolve(event, relation)


@pytest.mark.parametrize("event", [None, "poisson_gaussian", 1, SampledGaussian(0.5, 1.0)])
def test_what_is_no_event_is_refused(event: Any) -> None:
    with pytest.raises(UnknownEventError):
        resolve(event, ADD_OR_REMOVE_ONE)
