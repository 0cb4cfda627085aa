"""The steps that settlement and reconciliation share: lock a run's reservations, append to each population, end them.

Invariants
- What is done to one reservation of a run is done to all, in one transaction, with one entry in each population.
- Locks: the populations' balances in the order of their ids, then the run. The log's head comes last.

This module does not: decide when a step is due, or commit.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from governance.ledger import budgets, entries, run_store
from governance.ledger.budgets import Reservation
from governance.ledger.database import Connection
from governance.ledger.entries import Log
from governance.model import RunState

Held = tuple[Reservation, ...]  # one for each population of the run, in the populations' order


def locked(connection: Connection, run_id: str) -> Held:
    """Locks the populations' balances in their order, then the run; the reservations as they stand under the
    locks."""
    for one in budgets.reservations_of(connection, run_id):
        budgets.lock_balances(connection, one.population_id)
    run_store.lock_run(connection, run_id)
    return budgets.reservations_of(connection, run_id)


def release(connection: Connection, held: Held, state: RunState, why: str, by: str, now: datetime) -> None:
    facts = {"rounds_released": held[0].undebited, "rounds_debited": held[0].rounds_debited, "why": why, "by": by}
    with entries.locked(connection) as log:
        appended = append(log, "release", now, facts, held)
        move_to(connection, log, held[0].run_id, state, now, why)
    for one, entry in zip(held, appended, strict=True):
        budgets.release_undebited(connection, one, entry)
    run_store.end_grants(connection, held[0].run_id)


def quarantine(
    connection: Connection,
    held: Held,
    now: datetime,
    state: RunState = RunState.QUARANTINED,
    reason: str = "ended_without_result",
) -> None:
    """Holds what was not debited until evidence resolves it. Why the run ended may be private, so no entry says it
    (rule 10)."""
    facts = {"rounds_held": held[0].undebited, "rounds_debited": held[0].rounds_debited}
    with entries.locked(connection) as log:
        append(log, "quarantine", now, facts, held)
        move_to(connection, log, held[0].run_id, state, now, reason)
    for one in held:
        budgets.quarantine(connection, one)
    run_store.end_grants(connection, held[0].run_id)


def move_to(
    connection: Connection,
    log: Log,
    run_id: str,
    state: RunState,
    now: datetime,
    reason: str | None = None,
) -> None:
    run_store.set_state(connection, run_id, state, now, reason)
    log.event(run_id, now, "state", {"state": state.value})


def append(log: Log, kind: str, now: datetime, facts: dict[str, Any], held: Held) -> list[int]:
    """One entry in each population; their indexes."""
    return [
        log.append(
            kind,
            now,
            facts,
            population_id=one.population_id,
            project_id=one.project_id,
            researcher_id=one.researcher_id,
            run_id=one.run_id,
        ).index
        for one in held
    ]
