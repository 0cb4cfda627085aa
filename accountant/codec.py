"""Events to canonical JSON and back, by allow-list.

Invariants
- ``decode_event(encode_event(event)) == event``, also through canonical bytes and any JSON parser.
- A document with an unknown type, version or key is refused. Nothing named by data is ever imported or called
  (``dp_accounting.DpEvent.from_named_tuple`` does that; it is not used on stored or received data: privacy rule 14).
- Equal documents have equal canonical bytes (RFC 8785), whatever the order of their keys.

This module does not: hash, store or sign.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import rfc8785

from accountant.errors import InvalidEventError, NotCanonicalError, UnknownEventError
from accountant.events import Event, PoissonGaussian


def encode_event(event: Event) -> dict[str, Any]:
    """The JSON document of an event, with its type tag and version. Raises ``UnknownEventError``."""
    if type(event) is not PoissonGaussian:
        raise UnknownEventError(type(event).__name__, None)
    return {
        "type": "poisson_gaussian",
        "version": 1,
        "sampling_probability": event.sampling_probability,
        "noise_multiplier": event.noise_multiplier,
        "rounds": event.rounds,
    }


def decode_event(document: object) -> Event:
    """The event of a document. Raises ``UnknownEventError`` or ``InvalidEventError``."""
    if not isinstance(document, Mapping):
        raise InvalidEventError("event", document, "must be an object")
    tag, version = document.get("type"), document.get("version")
    # A bool equals 1 and a list is not hashable: both are foreign here.
    if type(tag) is not str or type(version) is not int:
        raise UnknownEventError(tag, version)
    decode = _DECODERS.get((tag, version))
    if decode is None:
        raise UnknownEventError(tag, version)
    return decode(document)


def canonical_bytes(document: Any) -> bytes:
    """RFC 8785 bytes. Integers beyond 2**53 must come as decimal strings. Raises ``NotCanonicalError``."""
    try:
        return rfc8785.dumps(document)
    except (rfc8785.CanonicalizationError, UnicodeError, RecursionError) as e:
        raise NotCanonicalError(str(e)) from e


def _poisson_gaussian(document: Mapping[str, Any]) -> PoissonGaussian:
    fields = ("sampling_probability", "noise_multiplier", "rounds")
    for name in document:
        if name not in ("type", "version", *fields):
            raise InvalidEventError(str(name), document[name], "is not a field of poisson_gaussian, version 1")
    for name in fields:
        if name not in document:
            raise InvalidEventError(name, None, "is missing")
    return PoissonGaussian(**{name: document[name] for name in fields})


_DECODERS: Mapping[tuple[str, int], Callable[[Mapping[str, Any]], Event]] = {
    ("poisson_gaussian", 1): _poisson_gaussian,
}
