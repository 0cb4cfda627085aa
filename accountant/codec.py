"""Events to canonical JSON and back, by allow-list.

Invariants
- ``decode_event(encode_event(event)) == event``, also through canonical bytes and any JSON parser.
- A document with an unknown type, version or key, or without a key of its type, is refused. Nothing named by data is
  ever imported or called (``dp_accounting.DpEvent.from_named_tuple`` does that; it is not used on stored or received
  data: privacy rule 14).
- Equal documents have equal canonical bytes (RFC 8785), whatever the order of their keys.

This module does not: hash, store or sign.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import rfc8785

from accountant.errors import InvalidEventError, NotCanonicalError, UnknownEventError
from accountant.events import (
    AdaptiveClippingGaussian,
    Event,
    FixedSizeGaussian,
    PoissonGaussian,
    PoissonGaussianStatistics,
    TreeGaussian,
)

# Written out, not taken from the classes: a stored document's meaning does not follow a renamed field.
_FORMS: Mapping[tuple[str, int], tuple[type[Event], tuple[str, ...]]] = {
    ("poisson_gaussian", 1): (PoissonGaussian, ("sampling_probability", "noise_multiplier", "rounds")),
    ("poisson_gaussian_statistics", 1): (
        PoissonGaussianStatistics,
        ("sampling_probability", "noise_multipliers", "rounds"),
    ),
    ("adaptive_clipping_gaussian", 1): (
        AdaptiveClippingGaussian,
        ("sampling_probability", "noise_multiplier", "clipped_count_stddev", "rounds"),
    ),
    ("fixed_size_gaussian", 1): (
        FixedSizeGaussian,
        ("population_size", "sample_size", "noise_multiplier", "rounds"),
    ),
    ("tree_gaussian", 1): (
        TreeGaussian,
        ("noise_multiplier", "rounds", "max_participation", "min_separation", "restart_rounds"),
    ),
}
_TAGS = {event_type: tag for tag, (event_type, _) in _FORMS.items()}  # each type's newest version


def encode_event(event: Event) -> dict[str, Any]:
    """The JSON document of an event, with its type tag and version. Raises ``UnknownEventError``."""
    tag = _TAGS.get(type(event))
    if tag is None:
        raise UnknownEventError(type(event).__name__, None)
    document: dict[str, Any] = {"type": tag[0], "version": tag[1]}
    for name in _FORMS[tag][1]:
        value = getattr(event, name)
        document[name] = list(value) if isinstance(value, tuple) else value
    return document


def decode_event(document: object) -> Event:
    """The event of a document. Raises ``UnknownEventError`` or ``InvalidEventError``."""
    if not isinstance(document, Mapping):
        raise InvalidEventError("event", document, "must be an object")
    tag, version = document.get("type"), document.get("version")
    # A bool equals 1 and a list is not hashable: both are foreign here.
    if type(tag) is not str or type(version) is not int:
        raise UnknownEventError(tag, version)
    form = _FORMS.get((tag, version))
    if form is None:
        raise UnknownEventError(tag, version)
    event_type, fields = form
    for name in document:
        if name not in ("type", "version", *fields):
            raise InvalidEventError(str(name), document[name], f"is not a field of {tag}, version {version}")
    for name in fields:
        if name not in document:
            raise InvalidEventError(name, None, "is missing")
    return event_type(**{name: document[name] for name in fields})


def canonical_bytes(document: Any) -> bytes:
    """RFC 8785 bytes. Integers beyond 2**53 must come as decimal strings. Raises ``NotCanonicalError``."""
    try:
        return rfc8785.dumps(document)
    except (rfc8785.CanonicalizationError, UnicodeError, RecursionError) as e:
        raise NotCanonicalError(str(e)) from e
