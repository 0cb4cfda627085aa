"""Events and budgets survive their stored form; what is foreign is refused, whatever it is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accountant.codec import canonical_bytes, decode_event, encode_event
from accountant.errors import AccountantError, NotCanonicalError
from accountant.events import (
    AdaptiveClippingGaussian,
    Event,
    FixedSizeGaussian,
    PoissonGaussian,
    PoissonGaussianStatistics,
    TreeGaussian,
)
from accountant.filter import Budget
from accountant.odometer import epsilon_reading

PROBABILITIES = st.floats(0.0, 1.0, exclude_min=True)
NOISES = st.floats(0.1, 1e4)
ROUNDS = st.integers(1, 10**7)
TREES = st.lists(st.integers(1, 5000), max_size=5).flatmap(
    lambda trees: st.builds(
        TreeGaussian,
        NOISES,
        st.just(sum(trees)) if trees else st.integers(1, 10**6),
        st.integers(1, 128),
        st.integers(0, 10**6),
        st.just(tuple(trees)),
    )
)
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(PoissonGaussian, PROBABILITIES, NOISES, ROUNDS),
    st.builds(
        PoissonGaussianStatistics,
        PROBABILITIES,
        st.lists(st.floats(0.3, 1e4), min_size=1, max_size=8).map(tuple),
        ROUNDS,
    ),
    st.builds(AdaptiveClippingGaussian, PROBABILITIES, st.floats(0.1, 1e3), st.floats(1e3, 1e9), ROUNDS),
    st.integers(1, 10**10).flatmap(
        lambda size: st.builds(FixedSizeGaussian, st.just(size), st.integers(1, size), NOISES, ROUNDS)
    ),
    TREES,
)
# A whole float from 2**53 to 1e21 is written without a point, and Python reads that back as an int, which is refused.
FLOATS = st.floats().filter(lambda value: not 2.0**53 <= abs(value) < 1e21)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(EVENTS)
def test_an_event_survives_its_stored_form(event: Event) -> None:
    stored = canonical_bytes(encode_event(event))

    assert event == decode_event(json.loads(stored))
    assert stored == canonical_bytes(json.loads(stored))


@given(JSON)
def test_foreign_documents_are_refused(document: object) -> None:
    with pytest.raises(AccountantError):
        decode_event(document)


@given(EVENTS, st.data(), JSON)
def test_a_damaged_document_is_refused_or_still_a_valid_event(event: Event, data: st.DataObject, value: object) -> None:
    document = encode_event(event)
    document |= {data.draw(st.sampled_from(sorted(document))): value}
    try:
        decoded = decode_event(document)
    except AccountantError:
        return
    assert document == encode_event(decoded)


@given(JSON)
def test_a_document_has_one_canonical_form_or_none(document: object) -> None:
    try:
        stored = canonical_bytes(document)
    except NotCanonicalError:
        return
    assert stored == canonical_bytes(json.loads(stored))


@given(st.floats(0.2, 50.0), st.floats(-12.0, -2.0).map(lambda exponent: 10.0**exponent))
def test_a_budget_survives_its_stored_form(epsilon: float, delta: float) -> None:
    budget = Budget.open(epsilon, delta, (1.5, 2.0, 4.0, 8.0, 32.0, 256.0))
    restored = Budget.from_document(json.loads(canonical_bytes(budget.to_document())))

    assert budget == restored
    assert budget.thresholds() == restored.thresholds()
    full = tuple(max(bound, 0) for bound in budget.thresholds())
    assert epsilon_reading(restored, full, delta) <= epsilon
