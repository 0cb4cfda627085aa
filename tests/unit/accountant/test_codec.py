from __future__ import annotations

import json
import math
from typing import Any

import pytest

from accountant.codec import canonical_bytes, decode_event, encode_event
from accountant.errors import AccountantError, InvalidEventError, NotCanonicalError, UnknownEventError
from accountant.events import (
    AdaptiveClippingGaussian,
    Event,
    FixedSizeGaussian,
    PoissonGaussian,
    PoissonGaussianStatistics,
    TreeGaussian,
)

DOCUMENT = {
    "type": "poisson_gaussian",
    "version": 1,
    "sampling_probability": 0.01,
    "noise_multiplier": 1.5,
    "rounds": 7,
}


def test_the_stored_form_of_version_1_never_changes() -> None:
    expected = b'{"noise_multiplier":1.5,"rounds":7,"sampling_probability":0.01,"type":"poisson_gaussian","version":1}'

    assert expected == canonical_bytes(encode_event(PoissonGaussian(0.01, 1.5, 7)))


def test_a_document_decodes_to_its_event() -> None:
    assert PoissonGaussian(0.01, 1.5, 7) == decode_event(DOCUMENT)


def test_whole_numbers_survive_canonical_json() -> None:
    event = PoissonGaussian(1.0, 2.0, 7)

    assert event == decode_event(json.loads(canonical_bytes(encode_event(event))))


@pytest.mark.parametrize(
    "change",
    [
        {"type": "gaussian"},
        {"type": None},
        {"type": ["poisson_gaussian"]},
        {"version": 2},
        {"version": 0},
        {"version": True},
        {"version": 1.0},
        {"version": "1"},
        {"module_name": "os", "class_name": "system"},
    ],
)
def test_unknown_types_versions_and_keys_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises((UnknownEventError, InvalidEventError)):
        decode_event(DOCUMENT | change)


def test_a_named_tuple_of_dp_accounting_is_foreign() -> None:
    with pytest.raises(UnknownEventError):
        decode_event(
            {"module_name": "dp_accounting.dp_event", "class_name": "GaussianDpEvent", "noise_multiplier": 1.0}
        )


@pytest.mark.parametrize("name", ["sampling_probability", "noise_multiplier", "rounds"])
def test_a_missing_field_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidEventError) as refused:
        decode_event({key: value for key, value in DOCUMENT.items() if key != name})

    assert name == refused.value.field


@pytest.mark.parametrize("document", [None, [], "poisson_gaussian", 1, b"{}"])
def test_what_is_no_object_is_refused(document: object) -> None:
    with pytest.raises(InvalidEventError):
        decode_event(document)


@pytest.mark.parametrize("value", [math.nan, math.inf, "1", None, True])
def test_a_decoded_event_is_validated(value: object) -> None:
    with pytest.raises(InvalidEventError):
        decode_event(DOCUMENT | {"noise_multiplier": value})


def test_rounds_as_a_float_are_refused() -> None:
    with pytest.raises(InvalidEventError):
        decode_event(DOCUMENT | {"rounds": 7.0})


def test_only_events_of_ours_are_encoded() -> None:
    with pytest.raises(UnknownEventError):
        encode_event("poisson_gaussian")  # type: ignore[arg-type]


def test_the_order_of_keys_does_not_matter() -> None:
    assert canonical_bytes(DOCUMENT) == canonical_bytes(dict(reversed(DOCUMENT.items())))


@pytest.mark.parametrize("document", [math.nan, math.inf, {"n": 2**53}, {1: 2}, {"x": object()}, "\ud800"])
def test_what_has_no_canonical_form_is_refused(document: object) -> None:
    with pytest.raises(NotCanonicalError) as refused:
        canonical_bytes(document)

    assert isinstance(refused.value, AccountantError)


STORED: list[tuple[Event, bytes]] = [
    (
        PoissonGaussianStatistics(0.01, (1.5, 2.0), 7),
        b'{"noise_multipliers":[1.5,2],"rounds":7,"sampling_probability":0.01,'
        b'"type":"poisson_gaussian_statistics","version":1}',
    ),
    (
        AdaptiveClippingGaussian(0.01, 1.5, 20.0, 7),
        b'{"clipped_count_stddev":20,"noise_multiplier":1.5,"rounds":7,"sampling_probability":0.01,'
        b'"type":"adaptive_clipping_gaussian","version":1}',
    ),
    (
        FixedSizeGaussian(10_000, 100, 1.5, 7),
        b'{"noise_multiplier":1.5,"population_size":10000,"rounds":7,"sample_size":100,'
        b'"type":"fixed_size_gaussian","version":1}',
    ),
    (
        TreeGaussian(7.0, 2000, 6, 313),
        b'{"max_participation":6,"min_separation":313,"noise_multiplier":7,"restart_rounds":[],"rounds":2000,'
        b'"type":"tree_gaussian","version":1}',
    ),
    (
        TreeGaussian(7.0, 2000, 6, 313, (1200, 800)),
        b'{"max_participation":6,"min_separation":313,"noise_multiplier":7,"restart_rounds":[1200,800],"rounds":2000,'
        b'"type":"tree_gaussian","version":1}',
    ),
]


@pytest.mark.parametrize(("event", "stored"), STORED)
def test_no_stored_form_ever_changes(event: Event, stored: bytes) -> None:
    assert stored == canonical_bytes(encode_event(event))
    assert event == decode_event(json.loads(stored))


@pytest.mark.parametrize(("event", "stored"), STORED)
def test_every_type_refuses_a_missing_a_foreign_and_a_later_key(event: Event, stored: bytes) -> None:
    document = json.loads(stored)
    for name in set(document) - {"type", "version"}:
        with pytest.raises(InvalidEventError):
            decode_event({key: value for key, value in document.items() if key != name})
    with pytest.raises(InvalidEventError):
        decode_event(document | {"class_name": "GaussianDpEvent"})
    with pytest.raises(UnknownEventError):
        decode_event(document | {"version": 2})
