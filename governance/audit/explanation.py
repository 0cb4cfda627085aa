"""Why a request was refused, clamped or approved: from its ledger entry, the answer beside it, and the budget of then.

Invariants
- The ledger entry comes first. What only the side table knew (messages, purpose) is left out where that was erased, and
  the explanation says so.
- "The budget then" is the odometer as of the entry before the decision's own. "What would have fitted" is the greatest
  number of rounds at the parameters that were asked for, by the charged curve and the caps of then; None where the
  request says too little, or where nothing of it could have been charged.
- Only caps of populations that the reader sees count and show.

This module does not: know who asks (``reader.py`` does), or ask the policies again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from accountant.calibration import largest_rounds
from accountant.charge import charge
from accountant.curve import ACCOUNTANT
from accountant.errors import AccountantError
from accountant.events import MAX_ROUNDS, PoissonGaussian
from governance.audit.remaining import Fits
from governance.budget_state import BudgetState
from governance.model import BudgetReading, Decision, LedgerEntry

PARAMETERS = ("rounds", "clients_per_round", "no_clients", "noise_multiplier", "clipping_norm", "mechanism")
_OWN_MECHANISM = "gaussian_fixed_clipping"


@dataclass(frozen=True, slots=True)
class Rule:
    """``message`` is None where the answer's text was erased. ``limit``: which cap was hit, if one was."""

    code: str
    source: str
    message: str | None
    field: str | None
    limit: str | None


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter before and after. ``why``: what changed it, as often as it was changed."""

    name: str
    requested: Any
    effective: Any
    changed_by: tuple[str, ...]
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WouldFit:
    """``rounds``: the most that all caps would have admitted; ``caps``: how many each by itself would have."""

    rounds: int
    sampling_probability: float
    noise_multiplier: float
    caps: tuple[Fits, ...]


@dataclass(frozen=True, slots=True)
class OwnEntry:
    index: int
    population_id: str
    leaf_hash: str


@dataclass(frozen=True, slots=True)
class Explanation:
    decision_id: str
    outcome: str
    sentence: str
    decided_at: datetime
    run_id: str | None
    erased: bool
    rules: tuple[Rule, ...]
    parameters: tuple[Parameter, ...]
    budget_as_of_entry: int  # -1: the decision was the ledger's first entry
    budget_then: tuple[BudgetReading, ...]
    would_have_fitted: WouldFit | None
    why_not_derivable: str | None
    accountant: str
    policy_revision: str | None
    policy_digests: Mapping[str, str]
    opa_decision_id: str | None
    input_digest: str | None
    entries: tuple[OwnEntry, ...]


def explain(
    entries: Sequence[LedgerEntry], decision: Decision | None, states: Sequence[BudgetState], declared_size: int | None
) -> Explanation:
    """``entries``: the decision's, of the populations that the reader sees; ``states``: those populations' budgets just
    before. ``declared_size``: of all populations of the request together, None if some are not seen."""
    first = entries[0]
    facts = json.loads(first.body)["facts"]
    fitted, why_not = _would_have_fitted(facts, states, declared_size)
    rules = _rules(facts, decision)
    parameters = _parameters(facts, decision)
    return Explanation(
        decision_id=facts["decision"],
        outcome=facts["outcome"],
        sentence=_sentence(facts["outcome"], rules, parameters),
        decided_at=first.at,
        run_id=first.run_id,
        erased=decision is None,
        rules=rules,
        parameters=parameters,
        budget_as_of_entry=first.index - 1,
        budget_then=tuple(reading for state in states for reading in state.readings()),
        would_have_fitted=fitted,
        why_not_derivable=why_not,
        accountant=ACCOUNTANT,
        policy_revision=facts["policy_revision"],
        policy_digests=facts["policy_digests"],
        opa_decision_id=facts["opa_decision_id"],
        input_digest=facts["input_digest"],
        entries=tuple(OwnEntry(one.index, str(one.population_id), one.leaf_hash.hex()) for one in entries),
    )


def populations_of(entry: LedgerEntry) -> int:
    """How many populations the decision was about."""
    return len(json.loads(entry.body)["facts"].get("populations", (entry.population_id,)))


def _rules(facts: Mapping[str, Any], decision: Decision | None) -> tuple[Rule, ...]:
    if decision is None:
        return tuple(Rule(one["code"], one["source"], None, None, None) for one in facts["reasons"])
    return tuple(
        Rule(one.code, one.source, one.message, one.field, one.field if one.code == "budget_exhausted" else None)
        for one in decision.reasons
    )


def _parameters(facts: Mapping[str, Any], decision: Decision | None) -> tuple[Parameter, ...]:
    """Of a refusal with clamps, ``effective`` is what they would have led to."""
    reasons = {} if decision is None else {(one.parameter, one.by): one.why for one in decision.clamps}
    effective = facts["effective"] or {}
    found = []
    for name in PARAMETERS:
        clamps = [one for one in facts["clamps"] if one["parameter"] == name]
        became = clamps[-1]["effective"] if clamps else effective.get(name)
        by = tuple(one["by"] for one in clamps)
        why = tuple(reasons[name, source] for source in by if (name, source) in reasons)
        found.append(Parameter(name, facts["requested"].get(name), became, by, why))
    return tuple(found)


def _would_have_fitted(
    facts: Mapping[str, Any], states: Sequence[BudgetState], declared_size: int | None
) -> tuple[WouldFit | None, str | None]:
    requested = facts["requested"]
    if requested.get("mechanism") != _OWN_MECHANISM:
        return None, "the request's mechanism is charged whole, so there is no number of rounds to find"
    pool = requested["no_clients"] or declared_size
    if pool is None:
        return None, "the request is over populations that you do not all see"
    budget = states[0].budget
    try:
        event = PoissonGaussian(
            min(1.0, requested["clients_per_round"] / pool), float(requested["noise_multiplier"]), 1
        )
        one_round = charge(event, budget.orders, budget.relation)
        caps = tuple(
            Fits(cap.limit, cap.name, largest_rounds([cap], one_round.curve, MAX_ROUNDS))
            for state in states
            for cap in state.caps
        )
    except AccountantError as error:
        return None, f"the request's parameters cannot be charged as they stand: {error}"
    return WouldFit(min(cap.count for cap in caps), event.sampling_probability, event.noise_multiplier, caps), None


def _sentence(outcome: str, rules: Sequence[Rule], parameters: Sequence[Parameter]) -> str:
    changed = [one for one in parameters if one.changed_by]
    if outcome == "refused":
        return "refused: " + "; ".join(one.message or f"{one.code} (by {one.source})" for one in rules)
    if outcome == "clamped":
        parts = [
            f"{one.name} from {one.requested} to {one.effective} by {' and '.join(one.changed_by)}" for one in changed
        ]
        return "approved with changes: " + "; ".join(parts)
    return "approved as asked for"
