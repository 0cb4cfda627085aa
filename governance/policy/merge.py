"""Two policies' answers become one. Pure.

Invariants
- Only tightening: ``max_*`` takes the smaller, ``min_*`` the larger, ``allowed_*`` what both allow. An owner's policy
  can never widen the organisation's, whatever it says.
- Fail closed: an answer that is not well-formed raises ``PolicyResultError``; one that can't be honoured (an unknown
  obligation, bounds that leave nothing) refuses with a reason of its own.
- ``allow`` is True, the boolean, in both, or it is a refusal.

This module does not: ask OPA, apply limits to a request, or know budgets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from governance.errors import PolicyResultError
from governance.model import CLAMPABLE, Limits, PolicyDecision, Reason
from governance.policy.answer import BOUNDS, CHOICES, ORGANISATION, Answer, read
from governance.policy.bundles import ActivePolicies

# What this release can do: the type, and whether its params are acceptable.
OBLIGATIONS: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {"publish_weights": lambda params: not params}


def merge(answer: object, *, policy_id: str, active: ActivePolicies, opa_decision_id: str) -> PolicyDecision:
    """``answer`` is the gate's result: ``{"organisation": {…}, "owner": {…}}``. Raises ``PolicyResultError``."""
    if not isinstance(answer, Mapping) or set(answer) != {"organisation", "owner"}:
        raise PolicyResultError("The policy engine's answer does not hold the organisation's and the owner's decision.")
    answers = (read(answer["organisation"], ORGANISATION), read(answer["owner"], f"owner:{policy_id}"))
    limits, limit_reasons = _merge_limits(answers)
    reasons = (
        *(reason for one in answers for reason in _refusals(one)),
        *limit_reasons,
        *(reason for one in answers for reason in _unknown_obligations(one)),
    )
    return PolicyDecision(
        allowed=all(one.allow for one in answers) and not reasons,
        reasons=reasons,
        warnings=tuple(reason for one in answers for reason in one.warn),
        limits=limits,
        clamp_order=_merge_clamp_order(answers),
        review=tuple(reason for one in answers for reason in one.review),
        obligations=_union([one.obligations for one in answers]),
        revision=active.revision,
        digests=active.digests,
        opa_decision_id=opa_decision_id,
    )


def _refusals(answer: Answer) -> Iterator[Reason]:
    yield from answer.deny
    if not answer.allow and not answer.deny:
        yield Reason("not_allowed", f"The policy of {answer.source} does not allow this request.", answer.source)


def _unknown_obligations(answer: Answer) -> Iterator[Reason]:
    for obligation in answer.obligations:
        acceptable = OBLIGATIONS.get(obligation["type"])
        if acceptable is None or not acceptable(obligation["params"]):
            yield Reason(
                "obligation_unknown",
                f"The policy of {answer.source} obliges the service to {obligation['type']}, which it can't do so.",
                answer.source,
            )


def _merge_limits(answers: Sequence[Answer]) -> tuple[Limits, tuple[Reason, ...]]:
    values: dict[str, float | frozenset[str]] = {}
    sources: dict[str, str] = {}
    for answer in answers:
        for name, value in answer.limits.items():
            held = values.get(name)
            tightest = value if held is None else _tighter(name, held, value)
            if tightest != held:
                values[name], sources[name] = tightest, answer.source
    reasons = (*_empty_choices(values, sources), *_conflicts(values, sources))
    return Limits(**dataclasses.asdict(Limits()) | values | {"sources": sources}), reasons


def _tighter(name: str, one: float | frozenset[str], other: float | frozenset[str]) -> float | frozenset[str]:
    if isinstance(one, frozenset) and isinstance(other, frozenset):
        return one & other
    if isinstance(one, frozenset) or isinstance(other, frozenset):  # _limits gives each name one type
        raise PolicyResultError(f"The limit {name} is a set in one policy and a number in the other.")
    return min(one, other) if name.startswith("max_") else max(one, other)


def _empty_choices(values: Mapping[str, object], sources: Mapping[str, str]) -> Iterator[Reason]:
    for name, parameter in CHOICES.items():
        if values.get(name) == frozenset():
            yield Reason(
                "limits_leave_nothing", f"No {parameter} is left that every policy allows.", sources[name], parameter
            )


def _conflicts(values: Mapping[str, float | frozenset[str]], sources: Mapping[str, str]) -> Iterator[Reason]:
    """A bound that no value of its parameter can meet, alone or against the opposite bound."""
    ranges: dict[str, tuple[float, float, str]] = {}
    for name, bound in BOUNDS.items():
        value = values.get(name)
        if value is None or isinstance(value, frozenset):
            continue
        low, high, _ = ranges.get(bound.parameter, (bound.smallest, bound.largest, ""))
        low, high = (low, min(high, value)) if name.startswith("max_") else (max(low, value), high)
        ranges[bound.parameter] = (low, high, sources[name])
    for parameter, (low, high, source) in ranges.items():
        if low > high:
            yield Reason(
                "limits_leave_nothing", f"No value of {parameter} is left that every policy allows.", source, parameter
            )


def _merge_clamp_order(answers: Sequence[Answer]) -> tuple[str, ...]:
    """The owner's order, else the organisation's, of the parameters that neither policy left out."""
    stated = [answer.clamp_order for answer in answers if answer.clamp_order is not None]
    if not stated:
        return CLAMPABLE
    return tuple(name for name in stated[-1] if all(name in order for order in stated))


def _union(sets: Sequence[tuple[Mapping[str, Any], ...]]) -> tuple[Mapping[str, Any], ...]:
    union: list[Mapping[str, Any]] = []
    for element in (element for one in sets for element in one):
        if element not in union:
            union.append(element)
    return tuple(union)
