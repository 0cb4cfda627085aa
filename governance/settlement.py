"""What happens to a reservation: claimed, debited ahead of the work, closed by a publication, released or quarantined.

Invariants
- Write ahead: a debit is committed before its answer lets the rounds run (privacy rule 11), and its answer permits them
  exactly once. A repeated debit permits nothing.
- A debit is final. Only undebited rounds are released, and only when the decision to stop used nothing private (rule
  12): a cancellation, or a failure before the data was opened. Any other end without a publication is quarantined.
- A grant is worth something only while its fencing token is current and its lease has not ended.
- A result is published once, in the transaction that closes the reservation, after all of its rounds were debited.
- What a watcher sees is a function of the request, round counts and one generic state (rule 10).

Locks are taken in one order: the population's balances, the run, the grant, the log's head.
This module does not: decide about requests, run SQL of its own, or know HTTP.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from accountant.codec import canonical_bytes
from accountant.events import PoissonGaussian
from governance.errors import (
    ConflictError,
    FencingError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    StorageError,
)
from governance.ledger import budgets, catalogue, entries, run_store
from governance.ledger.budgets import Reservation
from governance.ledger.database import Connection, Database
from governance.ledger.entries import Log
from governance.ledger.run_store import GrantRow, ResultRow
from governance.model import Principal, Role, Run, RunState, new_id, utc_now
from governance.results import ResultStore, check_weights
from governance.run_template import LEASE_SECONDS
from governance.statement import privacy_statement
from governance.visibility import sees_run
from runner.port import DebitAnswer, Grant, Heartbeat, RunResult

_METRICS = ("holdout_loss", "holdout_accuracy", "holdout_examples", "holdout_mean_absolute_error")


class Settlement:
    """The service's side of ``runner.port.Governor``; each call names the runner that its credential belongs to."""

    def __init__(self, database: Database, results: ResultStore, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._results = results
        self._clock = clock

    # --- the runner's calls ------------------------------------------------------------------------------------------

    def claim(self, runner: Principal) -> Grant | None:
        """The oldest queued run, under a new fencing token; None if there is none."""
        now = self._clock()
        with self._database.write() as connection:
            queued = run_store.oldest_queued(connection)
            if queued is None:
                return None
            run_id, template = queued
            held = budgets.reservation(connection, run_id)
            log = Log(connection)
            row = GrantRow(
                id=new_id("grt"),
                run_id=run_id,
                runner_id=runner.id,
                fencing_token=log.fencing_token(),
                state="active",
                lease_expires_at=now + timedelta(seconds=LEASE_SECONDS),
            )
            run_store.insert_grant(connection, row)
            self._move_to(connection, log, run_id, RunState.RUNNING, now)
            facts = {"grant": row.id, "fencing_token": row.fencing_token, "runner": runner.id}
            _append(log, "granted", now, facts, held)
            log.store()
        return Grant.from_json(template | {"grant_id": row.id, "run_id": run_id, "fencing_token": row.fencing_token})

    def heartbeat(self, runner: Principal, grant_id: str, fencing_token: int) -> Heartbeat:
        """Extends the lease. A cancelled run answers ``stop``; any other ended grant raises ``FencingError``."""
        now = self._clock()
        with self._database.write() as connection:
            grant = self._grant(connection, runner, grant_id, fencing_token)
            state = run_store.lock_run(connection, grant.run_id)
            if state is RunState.CANCELLED:
                return Heartbeat(stop=True, lease_seconds=0)
            self._require_live(connection, grant, now)
            run_store.extend_lease(connection, grant_id, now + timedelta(seconds=LEASE_SECONDS))
        return Heartbeat(stop=False, lease_seconds=LEASE_SECONDS)

    def debit(self, runner: Principal, grant_id: str, fencing_token: int, first_round: int, rounds: int) -> DebitAnswer:
        """Debits rounds [first_round, first_round + rounds). Raises ``FencingError`` or ``ConflictError``."""
        now = self._clock()
        with self._database.write() as connection:
            grant = self._grant(connection, runner, grant_id, fencing_token)
            held = self._locked(connection, grant.run_id)
            self._require_live(connection, grant, now)
            before = budgets.debited_before(connection, grant.run_id, first_round)
            if before is not None:
                if before != rounds:
                    raise ConflictError(f"rounds from {first_round} on were debited as {before}, not {rounds}")
                return DebitAnswer(permitted=False, debited_rounds=held.rounds_debited)
            if rounds < 1 or first_round != held.rounds_debited or first_round + rounds > held.rounds:
                raise ConflictError(
                    f"the next debit starts at round {held.rounds_debited} and has at most {held.undebited} rounds"
                )
            facts = {
                "grant": grant.id,
                "fencing_token": grant.fencing_token,
                "first_round": first_round,
                "rounds": rounds,
                "rounds_debited": first_round + rounds,
            }
            with entries.locked(connection) as log:
                entry = _append(log, "debit", now, facts, held)
            budgets.debit(connection, held, grant.id, first_round, rounds, entry)
            run_store.extend_lease(connection, grant_id, now + timedelta(seconds=LEASE_SECONDS))
        return DebitAnswer(permitted=True, debited_rounds=first_round + rounds)

    def progress(self, runner: Principal, grant_id: str, fencing_token: int, rounds_done: int) -> None:
        """Counts rounds for the watchers; never beyond what was debited, never backwards."""
        now = self._clock()
        with self._database.write() as connection:
            grant = self._grant(connection, runner, grant_id, fencing_token)
            run_store.lock_run(connection, grant.run_id)
            self._require_live(connection, grant, now)
            held = budgets.reservation(connection, grant.run_id)
            if not run_store.rounds_done(connection, grant.run_id) < rounds_done <= held.rounds_debited:
                return
            run_store.set_rounds_done(connection, grant.run_id, rounds_done, now)
            data = {"rounds": held.rounds, "rounds_done": rounds_done}
            with entries.locked(connection) as log:
                log.event(grant.run_id, now, "progress", data)

    def publish(self, runner: Principal, grant_id: str, fencing_token: int, result: RunResult) -> None:
        """Publishes the result once.

        Raises ``FencingError``, ``ConflictError``, ``InvalidRequestError``, ``StorageError``.
        """
        now = self._clock()
        with self._database.read() as connection:
            grant = self._grant(connection, runner, grant_id, fencing_token)
            self._require_live(connection, grant, now)
            template = run_store.grant_template(connection, grant.run_id)
        _check_metrics(result, has_holdout=template["data"]["holdout_handle"] is not None)
        check_weights(result.weights, template["model"])
        staged = self._results.stage(result.weights)
        try:
            with self._database.write() as connection:
                held = self._locked(connection, grant.run_id)
                self._require_live(connection, grant, self._clock())
                if held.rounds_debited != held.rounds or result.rounds != held.rounds:
                    raise ConflictError(f"a result needs all {held.rounds} rounds debited and run")
                self._publish(connection, grant, held, template, result, now)
                self._results.put(grant.run_id, staged)
        finally:
            staged.unlink(missing_ok=True)

    def fail(self, runner: Principal, grant_id: str, fencing_token: int, *, touched_data: bool) -> None:
        """Ends a run without a result. Released only if nothing was debited and the data was never opened."""
        now = self._clock()
        with self._database.write() as connection:
            grant = self._grant(connection, runner, grant_id, fencing_token)
            held = self._locked(connection, grant.run_id)
            self._require_live(connection, grant, now)
            if touched_data or held.rounds_debited:
                self._quarantine(connection, held, now)
                return
            self._release(connection, held, RunState.FAILED, "failed_before_data", "runner", now)

    # --- people's calls, and time's ----------------------------------------------------------------------------------

    def cancel(self, principal: Principal, run_id: str) -> Run:
        """Stops a run; debited rounds stay spent. Idempotent.

        Undebited rounds are released if the run was still queued, or if its own researcher stops it, who has seen
        nothing private. Otherwise they are held.
        """
        now = self._clock()
        with self._database.write() as connection:
            found = run_store.select_runs(connection, run_id=run_id)
            if not found or not sees_run(connection, principal, found[0]):
                raise NotFoundError(f"there is no run {run_id!r} that you can see")
            if principal.role is Role.AUDITOR:
                raise ForbiddenError("an auditor's account changes nothing")
            held = self._locked(connection, run_id)
            state = run_store.select_runs(connection, run_id=run_id)[0].state
            if state is RunState.RESERVED or (state is RunState.RUNNING and principal.id == found[0].researcher_id):
                self._release(connection, held, RunState.CANCELLED, "cancelled", principal.id, now)
            elif state is RunState.RUNNING:  # an owner or operator may have seen the runner's private logs (rule 12)
                self._quarantine(connection, held, now, RunState.CANCELLED, "cancelled")
            elif state is not RunState.CANCELLED:
                raise ConflictError(f"the run is {state.value}; only a queued or running one can be cancelled")
            return run_store.select_runs(connection, run_id=run_id)[0]

    def expire_leases(self) -> int:
        """Quarantines every run whose lease has ended; returns how many."""
        now = self._clock()
        with self._database.read() as connection:
            candidates = run_store.expired(connection, now)
        ended = 0
        for grant_id, run_id in candidates:
            with self._database.write() as connection:
                held = self._locked(connection, run_id)
                grant = run_store.select_grant(connection, grant_id, lock=True)
                if grant is None or grant.state != "active" or grant.lease_expires_at >= now:
                    continue  # it was extended, or ended, in between
                self._quarantine(connection, held, now)
                ended += 1
        return ended

    # --- steps -------------------------------------------------------------------------------------------------------

    def _grant(self, connection: Connection, runner: Principal, grant_id: str, fencing_token: int) -> GrantRow:
        grant = run_store.select_grant(connection, grant_id)
        if grant is None or grant.runner_id != runner.id:
            raise NotFoundError(f"there is no grant {grant_id!r} of this runner")
        if grant.fencing_token != fencing_token:
            raise FencingError("the fencing token is not this grant's")
        return grant

    def _locked(self, connection: Connection, run_id: str) -> Reservation:
        """Locks the population's balances, then the run; the reservation as it stands under the locks."""
        budgets.lock_balances(connection, budgets.reservation(connection, run_id).population_id)
        run_store.lock_run(connection, run_id)
        return budgets.reservation(connection, run_id)

    def _require_live(self, connection: Connection, grant: GrantRow, now: datetime) -> None:
        current = run_store.select_grant(connection, grant.id, lock=True)
        if current is None or current.state != "active" or current.lease_expires_at < now:
            raise FencingError("the grant was revoked or its lease has ended: stop, and publish nothing")

    def _publish(
        self,
        connection: Connection,
        grant: GrantRow,
        held: Reservation,
        template: dict[str, Any],
        result: RunResult,
        now: datetime,
    ) -> None:
        population = catalogue.population(connection, held.population_id)
        if population is None:  # a foreign key says otherwise
            raise StorageError("the run's population is missing")
        parameters = Grant.from_json(template).parameters
        statement = privacy_statement(
            run_id=held.run_id,
            population_id=held.population_id,
            budget=population.budget,
            event=PoissonGaussian(parameters.sampling_probability, parameters.noise_multiplier, held.rounds_debited),
            parameters=parameters,
            generator=result.generator,
            runner_version=result.runner_version,
            public_metrics=result.public_metrics,
        )
        digest = hashlib.sha256(result.weights).hexdigest()
        row = ResultRow(held.run_id, digest, len(result.weights), dict(result.public_metrics), statement, now)
        run_store.insert_result(connection, row)
        budgets.close(connection, held.run_id)
        run_store.set_rounds_done(connection, held.run_id, held.rounds, now)
        run_store.end_grants(connection, held.run_id)
        facts = {
            "grant": grant.id,
            "fencing_token": grant.fencing_token,
            "rounds": held.rounds,
            "weights_sha256": digest,
            "metrics": sorted(result.public_metrics),
            "statement_sha256": hashlib.sha256(canonical_bytes(statement)).hexdigest(),
            "generator": result.generator,
            "runner_version": result.runner_version,
        }
        with entries.locked(connection) as log:
            self._move_to(connection, log, held.run_id, RunState.PUBLISHED, now)
            _append(log, "publication", now, facts, held)

    def _release(
        self, connection: Connection, held: Reservation, state: RunState, why: str, by: str, now: datetime
    ) -> None:
        facts = {"rounds_released": held.undebited, "rounds_debited": held.rounds_debited, "why": why, "by": by}
        with entries.locked(connection) as log:
            entry = _append(log, "release", now, facts, held)
            self._move_to(connection, log, held.run_id, state, now, why)
        budgets.release_undebited(connection, held, entry)
        run_store.end_grants(connection, held.run_id)

    def _quarantine(
        self,
        connection: Connection,
        held: Reservation,
        now: datetime,
        state: RunState = RunState.QUARANTINED,
        reason: str = "ended_without_result",
    ) -> None:
        """Holds what was not debited, for ever. Why the run ended may be private, so no entry says it (rule 10)."""
        facts = {"rounds_held": held.undebited, "rounds_debited": held.rounds_debited}
        with entries.locked(connection) as log:
            _append(log, "quarantine", now, facts, held)
            self._move_to(connection, log, held.run_id, state, now, reason)
        budgets.quarantine(connection, held.run_id)
        run_store.end_grants(connection, held.run_id)

    def _move_to(
        self,
        connection: Connection,
        log: Log,
        run_id: str,
        state: RunState,
        now: datetime,
        reason: str | None = None,
    ) -> None:
        run_store.set_state(connection, run_id, state, now, reason)
        log.event(run_id, now, "state", {"state": state.value})


def _append(log: Log, kind: str, now: datetime, facts: dict[str, Any], held: Reservation) -> int:
    entry = log.append(
        kind,
        now,
        facts,
        population_id=held.population_id,
        project_id=held.project_id,
        researcher_id=held.researcher_id,
        run_id=held.run_id,
    )
    return entry.index


def _check_metrics(result: RunResult, *, has_holdout: bool) -> None:
    """Only metrics of the public hold-out, by name: a runner cannot publish another statistic by mistake (rule 9)."""
    if result.public_metrics and not has_holdout:
        raise InvalidRequestError("the run has no public hold-out, so it has no metrics to publish")
    for name, value in result.public_metrics.items():
        if name not in _METRICS or not math.isfinite(value):
            raise InvalidRequestError(f"{name!r} is not a finite metric of the public hold-out")
