"""Step (7) of admission: writes a decision, and what it reserves, inside the caller's transaction.

Invariants
- One entry for each decision; for an approval also the reservation, the queued run and its first event.
- What is reserved is the very curve that the filter admitted.

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
from governance.model import Decision, Run, RunState, new_id
from governance.model_check import columns
from governance.run_template import grant_template
from governance.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Evidence:
    """The exact policy input and the salt of its digest: kept in the side table, which may be erased."""

    policy_input: bytes
    salt: bytes


@dataclass(frozen=True, slots=True)
class Approved:
    """What the filter admitted, and the budgets that it was admitted to, as they are under the locks."""

    fitted: Fitted
    locked: BudgetState


def record(
    connection: Connection,
    log: Log,
    snapshot: Snapshot,
    decision: Decision,
    evidence: Evidence,
    approved: Approved | None,
) -> Decision:
    """Records a decision; if approved, reserves its budget and queues its run too. Returns it with its ids."""
    fitted = None if approved is None else approved.fitted
    run_id = None if fitted is None else new_id("run")
    entry = log.append(
        "decision",
        decision.decided_at,
        decision_document.entry_facts(decision, snapshot.dataset.version, _charge(fitted)),
        population_id=snapshot.population.id,
        project_id=snapshot.project.id,
        researcher_id=snapshot.requester.id,
        dataset_id=snapshot.dataset.id,
        run_id=run_id,
    )
    recorded = replace(decision, run_id=run_id, entry_index=entry.index)
    if approved is not None and fitted is not None and run_id is not None:
        _queue(connection, snapshot, recorded, fitted, run_id)
        seen = {"state": RunState.RESERVED.value, "rounds": fitted.event.rounds}
        log.event(run_id, recorded.decided_at, "state", seen)
        budgets.reserve(connection, _reservation(snapshot, fitted, run_id), entry.index, approved.locked.balances)
    decisions.insert(
        connection,
        recorded.id,
        snapshot.requester.id,
        snapshot.population.id,
        decision_document.encode(recorded),
        evidence.policy_input,
        evidence.salt,
        recorded.decided_at,
    )
    return recorded


def _charge(fitted: Fitted | None) -> dict[str, Any] | None:
    if fitted is None:
        return None
    return {
        "event": encode_event(fitted.event),
        "accountant": ACCOUNTANT,
        "units_per_round": [str(units) for units in fitted.curve.units],
    }


def _reservation(snapshot: Snapshot, fitted: Fitted, run_id: str) -> Reservation:
    return Reservation(
        run_id=run_id,
        population_id=snapshot.population.id,
        project_id=snapshot.project.id,
        researcher_id=snapshot.requester.id,
        round_curve=fitted.curve.units,
        rounds=fitted.event.rounds,
        rounds_debited=0,
        rounds_released=0,
        state="open",
    )


def _queue(connection: Connection, snapshot: Snapshot, decision: Decision, fitted: Fitted, run_id: str) -> None:
    run = Run(
        id=run_id,
        decision_id=decision.id,
        state=RunState.RESERVED,
        researcher_id=snapshot.requester.id,
        project_id=snapshot.project.id,
        population_id=snapshot.population.id,
        dataset_id=snapshot.dataset.id,
        requested=decision.requested,
        effective=decision_document.parameters(fitted.request),
        rounds=fitted.event.rounds,
        rounds_debited=0,
        rounds_done=0,
        created_at=decision.decided_at,
        updated_at=decision.decided_at,
    )
    features, labels = columns(fitted.request, snapshot.dataset)
    template = grant_template(
        fitted, snapshot.spec, snapshot.dataset, snapshot.population, features=features, labels=labels
    )
    run_store.insert_run(connection, run, template)
