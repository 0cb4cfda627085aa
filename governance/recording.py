"""Step (7) of admission: writes a decision, and what it reserves, inside the caller's transaction.

Invariants
- One entry for each decision and population; for an approval also the reservations, the queued run and its first event.
- What is reserved is the very curve that the filter admitted, in every population or in none.

This module does not: decide, lock, or commit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from accountant.codec import encode_event
from accountant.curve import ACCOUNTANT
from governance import decision_document
from governance.budget_state import BudgetState
from governance.clamping import Fitted
from governance.ledger import budgets, decisions, run_store
from governance.ledger.budgets import Reservation
from governance.ledger.database import Connection
from governance.ledger.entries import Log
from governance.model import Decision, Population, Run, RunState, new_id
from governance.run_template import grant_template, template_digest
from governance.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Evidence:
    """The exact policy input and the salt of its digest: kept in the side table, which may be erased."""

    policy_input: bytes
    salt: bytes


@dataclass(frozen=True, slots=True)
class Approved:
    """What the filters admitted, and the budgets that it was admitted to, as they are under the locks."""

    fitted: Fitted
    locked: tuple[BudgetState, ...]


def record(
    connection: Connection,
    log: Log,
    snapshot: Snapshot,
    decision: Decision,
    evidence: Evidence,
    approved: Approved | None,
) -> Decision:
    """Records a decision; if approved, reserves its budget and queues its run too. Returns it with its ids."""
    run_id = None if approved is None else new_id("run")
    template = None if approved is None else grant_template(approved.fitted, snapshot)
    facts = _Recorded(snapshot, decision, run_id, approved, template)
    indexes = [_append(log, facts, population) for population in snapshot.populations]
    recorded = replace(decision, run_id=run_id, entry_index=indexes[0])
    if approved is not None and run_id is not None and template is not None:
        _queue(connection, snapshot, recorded, approved.fitted, run_id, template)
        seen = {"state": RunState.RESERVED.value, "rounds": approved.fitted.event.rounds}
        log.event(run_id, recorded.decided_at, "state", seen)
        for state, index in zip(approved.locked, indexes, strict=True):
            held = _reservation(snapshot, approved.fitted, run_id, state.population_id, index)
            budgets.reserve(connection, held, state.balances)
    decisions.insert(
        connection,
        recorded.id,
        snapshot.requester.id,
        snapshot.populations[0].id,
        decision_document.encode(recorded),
        evidence.policy_input,
        evidence.salt,
        recorded.decided_at,
    )
    return recorded


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What the entries of one decision share."""

    snapshot: Snapshot
    decision: Decision
    run_id: str | None
    approved: Approved | None
    template: dict[str, Any] | None


def _append(log: Log, recorded: _Recorded, population: Population) -> int:
    """One entry in each population, so that each population's entries alone give its balances."""
    snapshot, decision = recorded.snapshot, recorded.decision
    sources = [source for source in snapshot.sources if source.population == population]
    versions = [(source.dataset.id, source.dataset.version) for source in sources]
    together = [one.id for one in snapshot.populations]
    facts = decision_document.entry_facts(decision, versions, together, _charged(recorded.approved))
    if recorded.template is not None:
        facts["template_sha256"] = template_digest(recorded.template)
    entry = log.append(
        "decision",
        decision.decided_at,
        facts,
        population_id=population.id,
        project_id=snapshot.project.id,
        researcher_id=snapshot.requester.id,
        dataset_id=versions[0][0],
        run_id=recorded.run_id,
    )
    return entry.index


def _charged(approved: Approved | None) -> dict[str, Any] | None:
    if approved is None:
        return None
    charge = approved.fitted.charge
    facts = {
        "event": encode_event(approved.fitted.event),
        "accountant": ACCOUNTANT,
        "units_per_round": [str(units) for units in charge.curve.units],
    }
    return facts if charge.rounds_per_charge == 1 else facts | {"rounds_per_charge": charge.rounds_per_charge}


def _reservation(snapshot: Snapshot, fitted: Fitted, run_id: str, population_id: str, entry: int) -> Reservation:
    return Reservation(
        run_id=run_id,
        population_id=population_id,
        project_id=snapshot.project.id,
        researcher_id=snapshot.requester.id,
        round_curve=fitted.charge.curve.units,
        rounds_per_charge=fitted.charge.rounds_per_charge,
        rounds=fitted.charge.rounds,
        rounds_debited=0,
        rounds_released=0,
        state="open",
        entry_index=entry,
    )


def _queue(
    connection: Connection,
    snapshot: Snapshot,
    decision: Decision,
    fitted: Fitted,
    run_id: str,
    template: dict[str, Any],
) -> None:
    run = Run(
        id=run_id,
        decision_id=decision.id,
        state=RunState.RESERVED,
        researcher_id=snapshot.requester.id,
        project_id=snapshot.project.id,
        population_id=snapshot.populations[0].id,
        dataset_id=snapshot.sources[0].dataset.id,
        requested=decision.requested,
        effective=decision_document.parameters(fitted.request),
        rounds=fitted.event.rounds,
        rounds_debited=0,
        rounds_done=0,
        created_at=decision.decided_at,
        updated_at=decision.decided_at,
    )
    run_store.insert_run(connection, run, template)
    run_store.insert_datasets(connection, run_id, [source.dataset for source in snapshot.sources])
