"""What happens to a reservation: claimed, debited ahead of the work, closed by a publication, released or quarantined.

Invariants
- Write ahead: a debit is committed before its answer lets the rounds run (privacy rule 11), and its answer permits them
  exactly once. A repeated debit permits nothing.
- A debit is final. Only undebited rounds are released, and only when the decision to stop used nothing private (rule
  12): a cancellation, or a failure before the data was opened. Any other end without a publication is quarantined.
- A grant is worth something only while its fencing token is current and its lease has not ended.
- A quarantine ends only by a person's or a runner's evidence, and gives back undebited rounds only (rule 12).
- A result is published once, in the transaction that closes the reservation, after all of its rounds were debited.
- A run over several populations has a reservation in each; every step does the same to all of them, in one
  transaction, with one entry in each.
- What a watcher sees is a function of the request, round counts and one generic state (rule 10).

Locks are taken in one order: the populations' balances by id, the run, the grant, the log's head.
This module does not: decide about requests, run SQL of its own, or know HTTP.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from accountant.codec import canonical_bytes
from accountant.events import Event, PoissonGaussian
from accountant.filter import admits
from accountant.pld import PldStatement, pld_epsilon
from governance import settlement_steps as steps
from governance.errors import (
    ConflictError,
    FencingError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    StorageError,
)
from governance.evidence import Evidence
from governance.ledger import budgets, catalogue, entries, run_store
from governance.ledger.budgets import Reservation
from governance.ledger.database import Connection, Database
from governance.ledger.entries import Log
from governance.ledger.run_store import GrantRow, ResultRow
from governance.model import Principal, Role, Run, RunState, new_id, utc_now
from governance.results import ResultStore, check_weights
from governance.run_template import LEASE_SECONDS, template_digest
from governance.statement import privacy_statement
from governance.visibility import sees_run
from runner.port import DebitAnswer, Grant, GrantReport, Heartbeat, RunResult

_METRICS = ("holdout_loss", "holdout_accuracy", "holdout_examples", "holdout_mean_absolute_error")


class Settlement:
    """The service's side of ``runner.port.Governor``; each call names the runner that its credential belongs to."""

    def __init__(
        self,
        database: Database,
        results: ResultStore,
        *,
        clock: Callable[[], datetime] = utc_now,
        pld: Callable[[Event, float, str], PldStatement] = pld_epsilon,
    ) -> None:
        self._database = database
        self._results = results
        self._clock = clock
        self._pld = pld

    # --- the runner's calls ------------------------------------------------------------------------------------------

    def claim(self, runner: Principal) -> Grant | None:
        """The oldest queued run, under a new fencing token; None if there is none.

        A closed ledger raises ``LedgerClosedError`` also where nothing is queued: it is what makes a runner report.
        """
        now = self._clock()
        with self._database.write() as connection:
            queued = run_store.oldest_queued(connection)
            if queued is None:
                entries.require_open(entries.head(connection))
                return None
            run_id, template = queued
            held = budgets.reservations_of(connection, run_id)
            if not _is_as_decided(connection, held, template):
                steps.quarantine(connection, held, now)
                return None
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
            steps.move_to(connection, log, run_id, RunState.RUNNING, now)
            facts = {"grant": row.id, "fencing_token": row.fencing_token, "runner": runner.id}
            steps.append(log, "granted", now, facts, held)
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
            held = steps.locked(connection, grant.run_id)
            self._require_live(connection, grant, now)
            before = budgets.debited_before(connection, grant.run_id, first_round)
            if before is not None:
                if before != rounds:
                    raise ConflictError(f"rounds from {first_round} on were debited as {before}, not {rounds}")
                return DebitAnswer(permitted=False, debited_rounds=held[0].rounds_debited)
            _check_debit(held[0], first_round, rounds)
            for one in held:
                _require_room(connection, one, rounds)
            facts = {
                "grant": grant.id,
                "fencing_token": grant.fencing_token,
                "first_round": first_round,
                "rounds": rounds,
                "rounds_debited": first_round + rounds,
            }
            with entries.locked(connection) as log:
                appended = steps.append(log, "debit", now, facts, held)
            for one, entry in zip(held, appended, strict=True):
                budgets.debit(connection, one, grant.id, first_round, rounds, entry)
            run_store.extend_lease(connection, grant_id, now + timedelta(seconds=LEASE_SECONDS))
        return DebitAnswer(permitted=True, debited_rounds=first_round + rounds)

    def progress(self, runner: Principal, grant_id: str, fencing_token: int, rounds_done: int) -> None:
        """Counts rounds for the watchers; never beyond what was debited, never backwards."""
        now = self._clock()
        with self._database.write() as connection:
            grant = self._grant(connection, runner, grant_id, fencing_token)
            run_store.lock_run(connection, grant.run_id)
            self._require_live(connection, grant, now)
            held = budgets.reservations_of(connection, grant.run_id)[0]
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
            # Without a lock, which a reader's snapshot would lose to any heartbeat: it is looked at again below.
            self._require_live(connection, grant, now, lock=False)
            template = run_store.grant_template(connection, grant.run_id)
        _check_metrics(result, has_holdout=template["data"]["holdout_handle"] is not None)
        check_weights(result.weights, template["model"])
        statement = self._statement(grant.run_id, template, result)  # before the locks: it may compute for seconds
        staged = self._results.stage(result.weights)
        try:
            with self._database.write() as connection:
                held = steps.locked(connection, grant.run_id)
                self._require_live(connection, grant, self._clock())
                rounds = held[0].rounds
                if held[0].rounds_debited != rounds or result.rounds != rounds:
                    raise ConflictError(f"a result needs all {rounds} rounds debited and run")
                self._publish(connection, grant, held, statement, result, now)
                self._results.put(grant.run_id, staged)
        finally:
            staged.unlink(missing_ok=True)

    def fail(self, runner: Principal, grant_id: str, fencing_token: int, *, touched_data: bool) -> None:
        """Ends a run without a result. Released only if nothing was debited and the data was never opened."""
        now = self._clock()
        with self._database.write() as connection:
            grant = self._grant(connection, runner, grant_id, fencing_token)
            held = steps.locked(connection, grant.run_id)
            self._require_live(connection, grant, now)
            if touched_data or held[0].rounds_debited:
                steps.quarantine(connection, held, now)
                return
            steps.release(connection, held, RunState.FAILED, "failed_before_data", "runner", now)

    def report(self, runner: Principal, reports: Sequence[GrantReport]) -> None:
        """Keeps what the runner was ever permitted to run, by its own journal, for a reconciliation. Appends nothing,
        so it is taken also while the ledger is closed."""
        document = json.dumps([dataclasses.asdict(one) for one in reports])
        with self._database.write() as connection:
            run_store.store_report(connection, runner.id, document, self._clock())

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
            held = steps.locked(connection, run_id)
            state = run_store.select_runs(connection, run_id=run_id)[0].state
            if state is RunState.RESERVED or (state is RunState.RUNNING and principal.id == found[0].researcher_id):
                steps.release(connection, held, RunState.CANCELLED, "cancelled", principal.id, now)
            elif state is RunState.RUNNING:  # an owner or operator may have seen the runner's private logs (rule 12)
                steps.quarantine(connection, held, now, RunState.CANCELLED, "cancelled")
            elif state is not RunState.CANCELLED:
                raise ConflictError(f"the run is {state.value}; only a queued or running one can be cancelled")
            return run_store.select_runs(connection, run_id=run_id)[0]

    def resolve(self, principal: Principal, run_id: str, evidence: Evidence) -> Run:
        """Ends a quarantine: its undebited rounds are given back, on evidence that nothing private decided its end.

        An operator's or a runner's call (``ForbiddenError`` for others). Raises ``NotFoundError``, ``ConflictError``.
        """
        if principal.role not in (Role.ADMIN, Role.RUNNER):
            raise ForbiddenError("only an operator or the run's runner resolves a quarantine")
        now = self._clock()
        salt = secrets.token_bytes(16)
        with self._database.write() as connection:
            if not run_store.select_runs(connection, run_id=run_id):
                raise NotFoundError(f"there is no run {run_id!r}")
            if principal.role is Role.RUNNER and not run_store.was_granted(connection, run_id, principal.id):
                raise NotFoundError(f"there is no run {run_id!r} of this runner")
            held = steps.locked(connection, run_id)
            if held[0].state != "quarantined":
                raise ConflictError(f"the run's reservation is {held[0].state}; only a quarantined one is resolved")
            run_store.insert_evidence(
                connection, run_id, kind=evidence.kind, statement=evidence.statement, salt=salt, by=principal.id, at=now
            )
            facts = {
                "rounds_released": held[0].undebited,
                "rounds_debited": held[0].rounds_debited,
                "evidence": {"kind": evidence.kind, "sha256": evidence.digest(salt)},
                "by": principal.id,
            }
            with entries.locked(connection) as log:
                appended = steps.append(log, "quarantine_resolved", now, facts, held)
            for one, entry in zip(held, appended, strict=True):
                budgets.release_undebited(connection, one, entry)
            return run_store.select_runs(connection, run_id=run_id)[0]

    def expire_leases(self) -> int:
        """Quarantines every run whose lease has ended; returns how many."""
        now = self._clock()
        with self._database.read() as connection:
            candidates = run_store.expired(connection, now)
        ended = 0
        for grant_id, run_id in candidates:
            with self._database.write() as connection:
                held = steps.locked(connection, run_id)
                grant = run_store.select_grant(connection, grant_id, lock=True)
                if grant is None or grant.state != "active" or grant.lease_expires_at >= now:
                    continue  # it was extended, or ended, in between
                steps.quarantine(connection, held, now)
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

    def _require_live(self, connection: Connection, grant: GrantRow, now: datetime, *, lock: bool = True) -> None:
        current = run_store.select_grant(connection, grant.id, lock=lock)
        if current is None or current.state != "active" or current.lease_expires_at < now:
            raise FencingError("the grant was revoked or its lease has ended: stop, and publish nothing")

    def _statement(self, run_id: str, template: dict[str, Any], result: RunResult) -> dict[str, Any]:
        with self._database.read() as connection:
            held = budgets.reservations_of(connection, run_id)
            found = [catalogue.population(connection, one.population_id) for one in held]
        populations = [population for population in found if population is not None]
        if len(populations) != len(held):  # a foreign key says otherwise
            raise StorageError("the run's population is missing")
        parameters = Grant.from_json(template).parameters
        event = PoissonGaussian(parameters.sampling_probability, parameters.noise_multiplier, held[0].rounds)
        return privacy_statement(
            run_id=run_id,
            populations=populations,
            event=event,
            parameters=parameters,
            generator=result.generator,
            runner_version=result.runner_version,
            public_metrics=result.public_metrics,
            pld=self._pld(event, populations[0].delta, populations[0].relation),
        )

    def _publish(
        self,
        connection: Connection,
        grant: GrantRow,
        held: steps.Held,
        statement: dict[str, Any],
        result: RunResult,
        now: datetime,
    ) -> None:
        run_id, rounds = held[0].run_id, held[0].rounds
        digest = hashlib.sha256(result.weights).hexdigest()
        row = ResultRow(run_id, digest, len(result.weights), dict(result.public_metrics), statement, now)
        run_store.insert_result(connection, row)
        run_store.set_rounds_done(connection, run_id, rounds, now)
        run_store.end_grants(connection, run_id)
        facts = {
            "grant": grant.id,
            "fencing_token": grant.fencing_token,
            "rounds": rounds,
            "weights_sha256": digest,
            "metrics": sorted(result.public_metrics),
            "statement_sha256": hashlib.sha256(canonical_bytes(statement)).hexdigest(),
            "generator": result.generator,
            "runner_version": result.runner_version,
        }
        with entries.locked(connection) as log:
            steps.move_to(connection, log, run_id, RunState.PUBLISHED, now)
            appended = steps.append(log, "publication", now, facts, held)
        for one, entry in zip(held, appended, strict=True):
            budgets.close(connection, one, entry)


def _is_as_decided(connection: Connection, held: steps.Held, template: dict[str, Any]) -> bool:
    """Whether the stored template is the one of the decision: its digest, and what was charged (rule 6).

    Entries of the first release hold no digest.
    """
    parameters = template.get("parameters", {})
    ran = {name: parameters.get(name) for name in ("sampling_probability", "noise_multiplier", "rounds")}
    for one in held:
        facts = json.loads(entries.body_at(connection, one.entry_index))["facts"]
        event = facts["charge"]["event"]
        if any(event.get(name) != value for name, value in ran.items()):
            return False
        if facts.get("template_sha256", template_digest(template)) != template_digest(template):
            return False
    return True


def _require_room(connection: Connection, held: Reservation, rounds: int) -> None:
    """The filter once more, on what is debited alone: whatever became of the reservations since (a restore may bring
    back one whose room was given away), what is debited stays within the budget at some order."""
    population = catalogue.population(connection, held.population_id)
    scope = ("population", held.population_id)
    balance = budgets.read_balances(connection, held.population_id, (scope,)).get(scope)
    if population is None or balance is None:
        raise StorageError("the run's population or its balance is missing")
    if not admits(population.budget, balance.debited, held.amount(rounds)):
        raise ConflictError(f"the budget of population {held.population_id} no longer holds these rounds")


def _check_debit(held: Reservation, first_round: int, rounds: int) -> None:
    if rounds < 1 or first_round != held.rounds_debited or first_round + rounds > held.rounds:
        raise ConflictError(
            f"the next debit starts at round {held.rounds_debited} and has at most {held.undebited} rounds"
        )
    if rounds % held.rounds_per_charge:
        raise ConflictError(f"this run's noise is one mechanism: all {held.rounds_per_charge} rounds are debited whole")


def _check_metrics(result: RunResult, *, has_holdout: bool) -> None:
    """Only metrics of the public hold-out, by name: a runner cannot publish another statistic by mistake (rule 9)."""
    if result.public_metrics and not has_holdout:
        raise InvalidRequestError("the run has no public hold-out, so it has no metrics to publish")
    for name, value in result.public_metrics.items():
        if name not in _METRICS or not math.isfinite(value):
            raise InvalidRequestError(f"{name!r} is not a finite metric of the public hold-out")
