"""What auditors' routes answer: each field named here, nothing else leaves."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from api.answers import Answer, BudgetReadingOut
from governance.audit.explanation import Explanation
from governance.audit.odometer import CONVERSION, MEANS, OdometerReading
from governance.audit.remaining import Remaining
from governance.audit.statement_view import StatementView

# --- odometer ---


class GuaranteeOut(Answer):
    epsilon: float
    delta: float


class ScopeReadingOut(Answer):
    """The two readings are at the answer's ``delta``; the two caps of a quota are at the guarantee's."""

    scope: str
    scope_id: str
    spent_epsilon: float
    committed_epsilon: float
    quota_epsilon: float | None
    unlocked_epsilon: float | None


class OdometerOut(Answer):
    """``means`` says which number is which (a guarantee, or a reading)."""

    population_id: str
    as_of_entry: int
    as_of_time: datetime | None
    ledger_size: int
    delta: float
    guarantee: GuaranteeOut
    accountant: str
    conversion: str
    means: dict[str, str]
    items: list[ScopeReadingOut]

    @classmethod
    def of(cls, found: OdometerReading) -> Self:
        return cls(
            population_id=found.population_id,
            as_of_entry=found.as_of_entry,
            as_of_time=found.as_of_time,
            ledger_size=found.ledger_size,
            delta=found.delta,
            guarantee=GuaranteeOut(epsilon=found.guarantee_epsilon, delta=found.guarantee_delta),
            accountant=found.accountant,
            conversion=CONVERSION,
            means=MEANS,
            items=[ScopeReadingOut.model_validate(one) for one in found.items],
        )


# --- why ---


class RuleOut(Answer):
    """``message``: null where the answer's text was erased. ``limit``: which cap was hit, if one was."""

    code: str
    source: str
    message: str | None
    field: str | None
    limit: str | None


class ParameterOut(Answer):
    name: str
    requested: Any
    effective: Any
    changed_by: list[str]
    why: list[str]


class FitsOut(Answer):
    """``count``: how many this cap admits by itself. ``limit``: population_budget, population_window, …"""

    limit: str
    name: str
    count: int


class WouldFitOut(Answer):
    """The most rounds that every cap would have admitted then, at these parameters."""

    rounds: int
    sampling_probability: float
    noise_multiplier: float
    caps: list[FitsOut]


class OwnEntryOut(Answer):
    index: int
    population_id: str
    leaf_hash: str


class ExplanationOut(Answer):
    """``budget_then``: the odometer as of the entry before the decision's own, -1 if there was none."""

    decision_id: str
    outcome: str
    sentence: str
    decided_at: datetime
    run_id: str | None
    erased: bool
    rules: list[RuleOut]
    parameters: list[ParameterOut]
    budget_as_of_entry: int
    budget_then: list[BudgetReadingOut]
    would_have_fitted: WouldFitOut | None
    why_not_derivable: str | None
    accountant: str
    policy_revision: str | None
    policy_digests: dict[str, str]
    opa_decision_id: str | None
    input_digest: str | None
    entries: list[OwnEntryOut]

    @classmethod
    def of(cls, found: Explanation) -> Self:
        return cls.model_validate(found)


# --- what remains ---


class RemainingOut(Answer):
    """``runs``: under all caps together, as they are now. Runs of another kind fit in other numbers."""

    population_id: str
    like_run: str
    rounds: int
    runs: int
    binding: FitsOut
    caps: list[FitsOut]
    sentence: str

    @classmethod
    def of(cls, found: Remaining) -> Self:
        return cls.model_validate(found)


# --- statements ---


class FieldOut(Answer):
    """``source``: statement, decision, ledger or this service; null where nothing is stated."""

    name: str
    value: str
    source: str | None


class LedgerPlaceOut(Answer):
    entry_index: int
    population_id: str
    leaf_hash: str
    statement_sha256: str
    matches: bool


class StatementOut(Answer):
    """``statement_sha256``: over the statement's canonical bytes (RFC 8785), computed now; ``ledger``: what was
    published. ``registry`` and ``checks`` lay the same out for people."""

    run_id: str
    published_at: datetime
    statement: dict[str, Any]
    statement_sha256: str
    ledger: list[LedgerPlaceOut]
    registry: list[FieldOut]
    checks: list[FieldOut]

    @classmethod
    def of(cls, found: StatementView) -> Self:
        return cls.model_validate(found)
