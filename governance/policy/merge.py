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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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


def combine(decisions: Sequence[PolicyDecision]) -> PolicyDecision:
    """Of a request over several datasets: every dataset's policies must allow it, and the tightest limit counts."""
    if len(decisions) == 1:
        return decisions[0]
    limits, limit_reasons = _tightest(
        (name, value, decision.limits.sources[name])
        for decision in decisions
        for name, value in dataclasses.asdict(decision.limits).items()
        if name != "sources" and value is not None
    )
    orders = [decision.clamp_order for decision in decisions]
    return PolicyDecision(
        allowed=all(decision.allowed for decision in decisions) and not limit_reasons,
        reasons=(*_distinct([decision.reasons for decision in decisions]), *limit_reasons),
        warnings=_distinct([decision.warnings for decision in decisions]),
        limits=limits,
        clamp_order=tuple(name for name in orders[0] if all(name in order for order in orders)),
        review=_distinct([decision.review for decision in decisions]),
        obligations=_union([decision.obligations for decision in decisions]),
        revision=decisions[0].revision,
        digests=decisions[0].digests,
        opa_decision_id=" ".join(decision.opa_decision_id for decision in decisions),
    )


def _distinct(sets: Sequence[tuple[Reason, ...]]) -> tuple[Reason, ...]:
    return tuple(dict.fromkeys(reason for one in sets for reason in one))


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
    return _tightest((name, value, answer.source) for answer in answers for name, value in answer.limits.items())


def _tightest(stated: Iterable[tuple[str, float | frozenset[str], str]]) -> tuple[Limits, tuple[Reason, ...]]:
    """Of (limit, value, source) as stated, the tightest of each limit; and reasons where nothing is left."""
    values: dict[str, float | frozenset[str]] = {}
    sources: dict[str, str] = {}
    for name, value, source in stated:
        held = values.get(name)
        tightest = value if held is None else _tighter(name, held, value)
        if tightest != held:
            values[name], sources[name] = tightest, source
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
