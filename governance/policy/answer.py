"""One policy's answer, read and checked against the contract. Pure.

Invariants
- Fail closed: what is missing, misspelt, of another type or out of range raises ``PolicyResultError``.
- Every value of an ``Answer`` has the type that it declares, and every text in it is fit to be shown.

This module does not: weigh one policy against another (``merge`` does), or ask OPA.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from governance.errors import PolicyResultError
from governance.model import CLAMPABLE, Reason
from governance.policy.wire import is_plain_text

ORGANISATION = "organisation"
RULES = frozenset({"allow", "deny", "warn", "limits", "clamp_order", "review", "obligations"})
# An undefined `limits` may be one whose own reference was undefined, so it is no empty set of limits. The sets are
# different: OPA always defines a declared set, and the upload check holds that they are declared as sets.
REQUIRED_RULES = frozenset({"allow", "deny", "limits"})
MAX_ELEMENTS = 100
MAX_MESSAGE = 500
_LARGEST = 10**18
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_FIELD = re.compile(r"[a-z][a-z0-9_.]{0,99}")
_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,100}")


@dataclass(frozen=True, slots=True)
class Bound:
    """What a limit bounds: the parameter, and the values that the parameter can have at all."""

    parameter: str
    smallest: float
    largest: float
    whole: bool  # the parameter is an integer


_ROUNDS = Bound("rounds", 1, 10**7, True)
_CLIENTS = Bound("clients_per_round", 1, 2**53, True)
_NOISE = Bound("noise_multiplier", 0.1, 1e4, False)
_POOL = Bound("no_clients", 1, 2**53, True)
BOUNDS: Mapping[str, Bound] = {
    "max_rounds": _ROUNDS,
    "max_clients_per_round": _CLIENTS,
    "min_noise_multiplier": _NOISE,
    "min_no_clients": _POOL,
    "max_clipping_norm": Bound("clipping_norm", 1e-6, 1e6, False),
    "max_local_epochs": Bound("local_epochs", 1, 2**53, True),
    "max_batch_size": Bound("batch_size", 1, 2**53, True),
    "max_model_parameters": Bound("model.parameters", 1, 2**53, True),
    "max_client_learning_rate": Bound("client_learning_rate", 1e-12, 1e6, False),
    "max_server_learning_rate": Bound("server_learning_rate", 1e-12, 1e6, False),
}
CHOICES: Mapping[str, str] = {"allowed_mechanisms": "mechanism", "allowed_losses": "loss"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One policy's answer, checked."""

    source: str
    allow: bool
    deny: tuple[Reason, ...] = ()
    warn: tuple[Reason, ...] = ()
    review: tuple[Reason, ...] = ()
    limits: Mapping[str, float | frozenset[str]] = field(default_factory=dict)
    clamp_order: tuple[str, ...] | None = None
    obligations: tuple[Mapping[str, Any], ...] = ()


def read(raw: object, source: str) -> Answer:
    """One package's answer. Raises ``PolicyResultError``, whose text names the package and the rule."""
    if not isinstance(raw, Mapping):
        raise PolicyResultError(f"The policy of {source} gave no object.", source=source)
    if unknown := set(raw) - RULES:
        raise PolicyResultError(f"The policy of {source} has unknown rules: {_listed(unknown)}.", source=source)
    if missing := REQUIRED_RULES - set(raw):
        raise PolicyResultError(
            f"The policy of {source} left undefined: {_listed(missing)}. "
            "It is not in force, or does not cover this input.",
            source=source,
        )
    if not isinstance(raw["allow"], bool):
        raise PolicyResultError(f"allow in the policy of {source} is not a boolean.", source=source)
    return Answer(
        source=source,
        allow=raw["allow"],
        deny=_reasons(raw, "deny", source, with_field=True),
        warn=_reasons(raw, "warn", source),
        review=_reasons(raw, "review", source),
        limits=_limits(raw["limits"], source),
        clamp_order=_clamp_order(raw["clamp_order"], source) if "clamp_order" in raw else None,
        obligations=_obligations(raw, source),
    )


def _elements(raw: Mapping[str, Any], rule: str, source: str) -> Sequence[Mapping[str, Any]]:
    """A Rego set of objects, which JSON shows as an array."""
    elements = raw.get(rule, [])
    if not isinstance(elements, list) or not all(isinstance(element, Mapping) for element in elements):
        raise PolicyResultError(f"{rule} in the policy of {source} is not a set of objects.", source=source)
    if len(elements) > MAX_ELEMENTS:
        raise PolicyResultError(f"{rule} in the policy of {source} has over {MAX_ELEMENTS} elements.", source=source)
    if any(element in elements[:index] for index, element in enumerate(elements)):
        raise PolicyResultError(f"{rule} in the policy of {source} has duplicates, so it is no set.", source=source)
    return elements


def _reasons(raw: Mapping[str, Any], rule: str, source: str, *, with_field: bool = False) -> tuple[Reason, ...]:
    return tuple(_reason(element, rule, source, with_field) for element in _elements(raw, rule, source))


def _reason(element: Mapping[str, Any], rule: str, source: str, with_field: bool) -> Reason:
    permitted = {"code", "message", "field"} if with_field else {"code", "message"}
    code, message, named = element.get("code"), element.get("message"), element.get("field")
    if not set(element) <= permitted:
        raise PolicyResultError(
            f"{rule} in the policy of {source} has keys beside {_listed(permitted)}.", source=source
        )
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        raise PolicyResultError(
            f"{rule} in the policy of {source} has an element without a proper code.", source=source
        )
    if not isinstance(message, str) or not 0 < len(message) <= MAX_MESSAGE or not is_plain_text(message):
        raise PolicyResultError(f"{rule} ({code}) in the policy of {source} has no proper message.", source=source)
    if "field" in element and (not isinstance(named, str) or not _FIELD.fullmatch(named)):
        raise PolicyResultError(f"{rule} ({code}) in the policy of {source} has no proper field.", source=source)
    return Reason(code=code, message=message, source=source, field=named)


def _limits(raw: object, source: str) -> Mapping[str, float | frozenset[str]]:
    if not isinstance(raw, Mapping):
        raise PolicyResultError(f"limits in the policy of {source} is not an object.", source=source)
    if unknown := set(raw) - set(BOUNDS) - set(CHOICES):
        raise PolicyResultError(f"The policy of {source} has unknown limits: {_listed(unknown)}.", source=source)
    return {
        name: _number(name, value, source) if name in BOUNDS else _choices(name, value, source)
        for name, value in raw.items()
    }


def _number(name: str, value: object, source: str) -> float:
    """The bound; for a parameter that is an integer, the integer that says the same (at most 33.5 is at most 33)."""
    # bool is an int to Python, and `true` is no bound.
    # The comparison is False for NaN and the infinities, and holds for integers that no float can hold.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        raise PolicyResultError(f"The limit {name} in the policy of {source} is not a finite number.", source=source)
    if BOUNDS[name].whole:
        return math.floor(value) if name.startswith("max_") else math.ceil(value)
    return float(value)


def _choices(name: str, value: object, source: str) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) and _NAME.fullmatch(one) for one in value):
        raise PolicyResultError(f"The limit {name} in the policy of {source} is not a set of names.", source=source)
    if len(set(value)) != len(value) or len(value) > MAX_ELEMENTS:
        raise PolicyResultError(f"The limit {name} in the policy of {source} is not a small set.", source=source)
    return frozenset(value)


def _clamp_order(value: object, source: str) -> tuple[str, ...]:
    if (
        not isinstance(value, list)
        or not all(isinstance(name, str) and name in CLAMPABLE for name in value)
        or len(set(value)) != len(value)
    ):
        raise PolicyResultError(
            f"clamp_order in the policy of {source} is not an array of distinct names out of {_listed(CLAMPABLE)}.",
            source=source,
        )
    return tuple(value)


def _obligations(raw: Mapping[str, Any], source: str) -> tuple[Mapping[str, Any], ...]:
    elements = _elements(raw, "obligations", source)
    for element in elements:
        kind, params = element.get("type"), element.get("params")
        if set(element) != {"type", "params"} or not isinstance(kind, str) or not _CODE.fullmatch(kind):
            raise PolicyResultError(f"An obligation in the policy of {source} is not {{type, params}}.", source=source)
        if not isinstance(params, Mapping):
            raise PolicyResultError(f"params of the obligation {kind} of {source} is not an object.", source=source)
    return tuple(elements)


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(name[:40] for name in names))
