"""What a node says to those who audit it, as frozen values that show themselves as tables.

Invariants
- As in ``pysytff.models``: unknown fields are ignored, names are those of the REST answers, and a guarantee and an
  odometer reading are never mixed.

This module does not: speak HTTP, or verify what the node says (``pysytff-verify`` does, offline).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import Field

from pysytff.display import Table, Tabular, cell
from pysytff.models import BudgetReading, Reading, Value


class Guarantee(Value):
    epsilon: float
    delta: float


class ScopeReading(Value):
    """Two odometer readings at the answer's δ, and the caps of a quota at the guarantee's."""

    scope: str
    scope_id: str
    spent_epsilon: Reading
    committed_epsilon: Reading
    quota_epsilon: float | None = None
    unlocked_epsilon: float | None = None


class Odometer(Tabular, Value):
    """What was spent in a population as of an entry, read at ``delta``. ``guarantee`` stays at its own δ."""

    population_id: str
    as_of_entry: int
    as_of_time: datetime | None = None
    ledger_size: int
    delta: float
    guarantee: Guarantee
    accountant: str
    conversion: str = ""
    means: Mapping[str, str] = Field(default_factory=dict)
    items: tuple[ScopeReading, ...] = ()

    def table(self) -> Table:
        columns = ("scope", "id", "spent ε", "committed ε", "quota ε", "unlocked ε")
        rows = [
            (one.scope, one.scope_id, one.spent_epsilon, one.committed_epsilon, one.quota_epsilon, one.unlocked_epsilon)
            for one in self.items
        ]
        at = "" if self.as_of_time is None else f" ({self.as_of_time.isoformat(timespec='seconds')})"
        note = (
            f"spent and committed: odometer readings at δ = {self.delta:g}, as of entry {self.as_of_entry}{at} of "
            f"{self.ledger_size}, by {self.accountant}\n"
            f"guarantee: ε = {self.guarantee.epsilon:g} at δ = {self.guarantee.delta:g}, for life; quotas are caps at "
            "that δ"
        )
        return Table(f"Odometer of {self.population_id}", columns, rows, note=note)


class Fits(Value):
    """How many one cap admits by itself."""

    limit: str
    name: str
    count: int


class Remaining(Tabular, Value):
    """How many more runs like ``like_run`` fit under all caps, as they are now."""

    population_id: str
    like_run: str
    rounds: int
    runs: int
    binding: Fits
    caps: tuple[Fits, ...]
    sentence: str

    def table(self) -> Table:
        rows = [(one.limit, one.name, one.count) for one in self.caps]
        columns = ("limit", "what it is", "more runs")
        return Table(f"What remains of {self.population_id}", columns, rows, note=self.sentence)


class Rule(Value):
    code: str
    source: str
    message: str | None = None
    field: str | None = None
    limit: str | None = None

    def __str__(self) -> str:
        return f"{self.message or '(its text was erased)'} ({self.code}, by {self.source})"


class Parameter(Value):
    name: str
    requested: Any = None
    effective: Any = None
    changed_by: tuple[str, ...] = ()
    why: tuple[str, ...] = ()


class WouldFit(Value):
    """The most rounds that every cap would have admitted at the parameters that were asked for."""

    rounds: int
    sampling_probability: float
    noise_multiplier: float
    caps: tuple[Fits, ...] = ()


class OwnEntry(Value):
    index: int
    population_id: str
    leaf_hash: str


class Explanation(Tabular, Value):
    """Why a request was refused, clamped or approved."""

    decision_id: str
    outcome: str
    sentence: str
    decided_at: datetime
    run_id: str | None = None
    erased: bool = False
    rules: tuple[Rule, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    budget_as_of_entry: int
    budget_then: tuple[BudgetReading, ...] = ()
    would_have_fitted: WouldFit | None = None
    why_not_derivable: str | None = None
    accountant: str = ""
    policy_revision: str | None = None
    policy_digests: Mapping[str, str] = Field(default_factory=dict)
    opa_decision_id: str | None = None
    input_digest: str | None = None
    entries: tuple[OwnEntry, ...] = ()

    def table(self) -> Table:
        rows = [
            (one.name, one.requested, one.effective, "; ".join(one.why or one.changed_by)) for one in self.parameters
        ]
        columns = ("parameter", "requested", "effective", "why")
        return Table(f"Decision {self.decision_id}: {self.outcome}", columns, rows, note="\n".join(self._notes()))

    def _notes(self) -> list[str]:
        notes = [self.sentence]
        notes += [f"rule: {rule}" + (f"; limit: {rule.limit}" if rule.limit else "") for rule in self.rules]
        for one in self.budget_then:
            unlocked = "" if one.unlocked_epsilon is None else f", of which {one.unlocked_epsilon:g} unlocked"
            notes.append(
                f"the {one.scope} {one.scope_id} then: committed ε = {one.committed_epsilon:.6g} (a reading) under a "
                f"cap of {one.guarantee_epsilon:g}{unlocked}, at δ = {one.delta:g}"
            )
        notes.append(f"as of entry {self.budget_as_of_entry}, by {self.accountant}")
        if self.would_have_fitted is not None:
            fit = self.would_have_fitted
            tight = min(fit.caps, key=lambda cap: cap.count, default=None)
            by = "" if tight is None else f"; the tightest cap was {tight.name}"
            notes.append(
                f"at sampling probability {cell(fit.sampling_probability)} and noise multiplier "
                f"{cell(fit.noise_multiplier)}, {fit.rounds} rounds would have fitted then{by}"
            )
        elif self.why_not_derivable:
            notes.append(f"what would have fitted cannot be told: {self.why_not_derivable}")
        notes.append(f"policies: revision {self.policy_revision or '–'}, OPA decision {self.opa_decision_id or '–'}")
        notes += [f"  {name} {digest}" for name, digest in sorted(self.policy_digests.items())]
        notes += [f"ledger entry {one.index} of {one.population_id}, leaf hash {one.leaf_hash}" for one in self.entries]
        if self.erased:
            notes.append("the answer itself was erased: this is what the ledger entry still knows")
        return notes


class StatementField(Value):
    """``source``: where the value is from; None: not stated."""

    name: str
    value: str
    source: str | None = None


class LedgerPlace(Value):
    entry_index: int
    population_id: str
    leaf_hash: str
    statement_sha256: str
    matches: bool


class Statement(Tabular, Value):
    """A model's privacy statement with its place in the ledger. ``statement`` is the document as published."""

    run_id: str
    published_at: datetime
    statement: Mapping[str, Any]
    statement_sha256: str
    ledger: tuple[LedgerPlace, ...] = ()
    registry: tuple[StatementField, ...] = ()
    checks: tuple[StatementField, ...] = ()

    @property
    def confirmed(self) -> bool:
        """Whether the ledger has the digest of this very statement, as the node says."""
        return bool(self.ledger) and all(place.matches for place in self.ledger)

    def table(self) -> Table:
        rows = [(one.name, one.value, one.source) for one in (*self.registry, *self.checks)]
        places = ", ".join(f"entry {place.entry_index}" for place in self.ledger) or "no entry"
        said = f"confirmed by {places}" if self.confirmed else "NOT CONFIRMED by the ledger: do not rely on it"
        note = f"{said}; SHA-256 of the statement: {self.statement_sha256}"
        return Table(f"Privacy statement of {self.run_id}", ("field", "value", "source"), rows, note=note)
