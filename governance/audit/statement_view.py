"""A model's privacy statement with its place in the ledger, laid out as an ε registry and as a list of checks. Pure.

Invariants
- The statement itself is shown as it was published; its digest is computed here, over its canonical bytes, and compared
  with the one in the ledger.
- A field has a value and where it is from, or says honestly that it is not stated. Nothing is filled in by guessing.

The registry follows Dwork, Kohli and Mulligan (2019), "Differential Privacy in Practice: Expose your Epsilons!",
the checks follow the parts of NIST SP 800-226 (2025) that bear on one release.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from accountant.codec import canonical_bytes
from governance.model import Decision, LedgerEntry, Run

NOT_STATED = "not stated"
_STATEMENT = "statement"
_DECISION = "decision"
_SERVICE = "this service"


@dataclass(frozen=True, slots=True)
class Field:
    """``source``: statement, decision, ledger or this service; None where nothing is stated."""

    name: str
    value: str
    source: str | None


@dataclass(frozen=True, slots=True)
class LedgerPlace:
    """A publication's entry. ``matches``: the digest in it is that of the statement."""

    entry_index: int
    population_id: str
    leaf_hash: str
    statement_sha256: str
    matches: bool


@dataclass(frozen=True, slots=True)
class StatementView:
    run_id: str
    published_at: datetime
    statement: Mapping[str, Any]
    statement_sha256: str
    ledger: tuple[LedgerPlace, ...]
    registry: tuple[Field, ...]
    checks: tuple[Field, ...]


def view(
    run: Run,
    statement: Mapping[str, Any],
    published_at: datetime,
    publications: Sequence[LedgerEntry],
    decision: Decision | None,
) -> StatementView:
    """``publications``: the run's, of the populations that the reader sees. ``decision``: None if it was erased."""
    digest = hashlib.sha256(canonical_bytes(dict(statement))).hexdigest()
    places = tuple(_place(entry, digest) for entry in publications)
    return StatementView(
        run_id=run.id,
        published_at=published_at,
        statement=statement,
        statement_sha256=digest,
        ledger=places,
        registry=_registry(statement, run, published_at, decision),
        checks=_checks(statement, places),
    )


def _place(entry: LedgerEntry, digest: str) -> LedgerPlace:
    told = json.loads(entry.body)["facts"]["statement_sha256"]
    return LedgerPlace(entry.index, str(entry.population_id), entry.leaf_hash.hex(), told, told == digest)


def _registry(
    statement: Mapping[str, Any], run: Run, published_at: datetime, decision: Decision | None
) -> tuple[Field, ...]:
    purpose = None if decision is None else decision.requested.get("purpose")
    policies = None if decision is None else ", ".join(f"{name} {it}" for name, it in decision.policy_digests.items())
    return (
        _stated(statement, "what is protected", "privacy_unit"),
        _stated(statement, "population", "population"),
        Field("dataset", run.dataset_id, "ledger"),
        _stated(statement, "neighbouring relation", "neighbouring_relation"),
        _stated(statement, "ε of this run", "this_run", "epsilon"),
        _stated(statement, "ε of this run by PLD, for reports only", "this_run_by_pld", "epsilon"),
        _stated(statement, "δ", "this_run", "delta"),
        _stated(statement, "mechanism", "mechanism", "name"),
        _stated(statement, "parameters of the mechanism", "mechanism", "event"),
        _stated(statement, "accountant", "this_run", "accountant"),
        _stated(statement, "lifetime budget ε", "population_guarantee", "epsilon"),
        _stated(statement, "lifetime budget δ", "population_guarantee", "delta"),
        _stated(statement, "what the lifetime budget means", "population_guarantee", "means"),
        Field("when the budget is used up", "requests are refused; a budget is for life and never refilled", _SERVICE),
        Field("who decided", "the policies in force, then the population's privacy filter and its quotas", _SERVICE),
        _told("policies in force", policies, _DECISION),
        _told("policy revision", None if decision is None else decision.policy_revision, _DECISION),
        _told("decision", run.decision_id, "ledger"),
        _told("intended use", None if purpose == "unspecified" else purpose, _DECISION),
        _told("why this ε was chosen", None, None),
        _stated(statement, "what is covered", "covers"),
        _stated(statement, "what costs nothing, and why", "costs_nothing"),
        _stated(statement, "what is assumed", "assumes"),
        Field("who asked", run.researcher_id, "ledger"),
        Field("published", published_at.isoformat(timespec="seconds"), "ledger"),
    )


def _checks(statement: Mapping[str, Any], places: Sequence[LedgerPlace]) -> tuple[Field, ...]:
    in_ledger = [place for place in places if place.matches]
    verified = "; ".join(f"entry {place.entry_index} has this statement's digest" for place in in_ledger)
    mismatch = "the ledger has another digest than this statement's: do not rely on it"
    return (
        _stated(statement, "privacy parameters: ε", "this_run", "epsilon"),
        _stated(statement, "privacy parameters: δ", "this_run", "delta"),
        _stated(statement, "unit of privacy", "privacy_unit"),
        _stated(statement, "neighbouring datasets", "neighbouring_relation"),
        _stated(statement, "sensitivity: bound on one unit's contribution", "mechanism", "clipping_norm"),
        _stated(statement, "mechanism", "mechanism", "name"),
        _stated(statement, "parameters, with sampling", "mechanism", "event"),
        _stated(statement, "part of the population that may be sampled", "mechanism", "pool_probability"),
        _stated(statement, "composition over everything published", "population_guarantee", "means"),
        _stated(statement, "composition: the cap's ε", "population_guarantee", "epsilon"),
        _stated(statement, "accounting and its version", "this_run", "accountant"),
        _stated(statement, "conversion to (ε, δ)", "this_run", "conversion"),
        _stated(statement, "trust model", "trust_model"),
        _stated(statement, "randomness", "mechanism", "noise_generator"),
        _stated(statement, "implementation", "mechanism", "runner_version"),
        _stated(statement, "floating point and other assumptions", "assumes"),
        _stated(statement, "side channels", "side_channels"),
        _stated(statement, "public data that was used", "costs_nothing"),
        _stated(statement, "what is not covered", "does_not_cover"),
        _told("utility, and bias against small groups", None, None),
        _told("security and access control of the data", None, None),
        _told("exposure when the data were collected", None, None),
        Field("evidence", (verified or mismatch) if places else NOT_STATED, "ledger" if places else None),
    )


def _stated(statement: Mapping[str, Any], name: str, *path: str) -> Field:
    value: Any = statement
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return _told(name, value, _STATEMENT)


def _told(name: str, value: Any, source: str | None) -> Field:
    if value is None or value == "" or value == [] or value == {}:
        return Field(name, NOT_STATED, None)
    return Field(name, _words(value), source)


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_words(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(map(_words, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
