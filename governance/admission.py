"""The gate: every request to train passes through ``admit``, and only what it reserves can run.

The steps are numbered as in ``docs/architecture.md``:
(1) registry facts and the model's check, (2) the policies' decision, (3) their limits, (4) the budget, all on an
unlocked snapshot; then in one transaction (5) locks, (6) everything that may have changed is checked again, (7)
decision, reservation, queued run and stored answer are written together. The answer goes out after the commit.

Invariants
- Nothing reaches a runner except by step (7), and step (7) is reached only with an allowing decision of the policies in
  force, within their limits, and with a candidate that the locked filter and every locked quota admit.
- Doubt refuses: an engine that cannot be reached, is late, undefined or of another revision never approves.
- Refusals are decisions too: they are recorded. Malformed requests raise before anything is written.
- No curve, no policy query and no model check happens under a lock.

This module does not: know HTTP, run SQL of its own, or compute privacy.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from accountant import calibration
from accountant.codec import encode_event
from accountant.curve import ACCOUNTANT
from accountant.errors import AccountantError
from accountant.filter import add
from accountant.odometer import epsilon_reading, run_statement
from governance import budget_state, decision_document
from governance.budget_state import BudgetState
from governance.clamping import Fitted, fit
from governance.errors import (
    ConstraintError,
    ContentionError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    PolicyEngineError,
    PolicyRevisionError,
)
from governance.ledger import budgets, catalogue, decisions, entries, policies, run_store
from governance.ledger.budgets import Reservation
from governance.ledger.database import Connection, Database
from governance.ledger.decisions import IdempotencyKey
from governance.limits import apply_limits, breaches
from governance.model import (
    Clamp,
    Cost,
    Dataset,
    Decision,
    OnExceed,
    Outcome,
    PolicyDecision,
    Population,
    Principal,
    Project,
    Reason,
    Role,
    Run,
    RunState,
    TrainRequest,
    new_id,
    utc_now,
)
from governance.model_check import check_model, columns
from governance.policy.bundles import ActivePolicies
from governance.policy.document import policy_input
from governance.policy.wire import validate_document
from governance.run_template import grant_template
from runner.model_spec import ModelSpec

ROUTE = "train-requests"
_ATTEMPTS = 3


class Engine(Protocol):
    """What admission needs of ``governance.policy.opa.PolicyEngine``; the tests' slow and lying engines are others."""

    def decide(self, document: Mapping[str, Any], *, policy_id: str, active: ActivePolicies) -> PolicyDecision: ...


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """Step (1): what the registry says, read without locks."""

    project: Project
    dataset: Dataset
    population: Population
    active: ActivePolicies
    budget: BudgetState


@dataclass(frozen=True, slots=True)
class _Judgement:
    """Steps (2) to (4): an answer, good for as long as what it rests on is unchanged."""

    outcome: Outcome
    reasons: tuple[Reason, ...]
    clamps: tuple[Clamp, ...]
    fitted: Fitted | None  # None exactly if refused
    policy: PolicyDecision | None  # None if the engine gave no trustworthy answer


class Admission:
    def __init__(self, database: Database, engine: Engine, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._engine = engine
        self._clock = clock

    def admit(
        self, principal: Principal, request: TrainRequest, *, idempotency_key: str, request_digest: bytes
    ) -> Decision:
        """Decides, records, and reserves what was approved. Commits before it returns.

        Raises ``InvalidRequestError``, ``NotFoundError``, ``ForbiddenError``, ``IdempotencyMismatchError`` and
        ``StorageError`` with nothing written; ``PolicyEngineError`` with the refusal recorded but the key free for
        another try; ``ContentionError`` if the world changed three times underneath.
        """
        key = IdempotencyKey(principal.id, ROUTE, idempotency_key, request_digest)
        if (stored := self._stored(key)) is not None:
            return stored
        for _ in range(_ATTEMPTS):
            answer = self._attempt(principal, request, key)
            if answer is not None:
                return answer
        raise ContentionError("budget or policies kept changing while this request was decided; try again")

    def preview(self, principal: Principal, request: TrainRequest) -> Decision:
        """What ``admit`` would answer now. Writes nothing and reserves nothing. Raises as ``admit`` does."""
        timer = _Timer()
        snapshot = self._snapshot(principal, request)  # (1)
        spec = _checked(request, snapshot)
        document = self._document(principal, request, snapshot, spec)
        judgement = self._judge(request, snapshot, spec, document, timer)  # (2) (3) (4)
        return self._decision(request, snapshot, judgement, None, timer)

    def _attempt(self, principal: Principal, request: TrainRequest, key: IdempotencyKey) -> Decision | None:
        """One pass through all steps; None if something changed between the snapshot and the locks."""
        timer = _Timer()
        snapshot = self._snapshot(principal, request)  # (1)
        spec = _checked(request, snapshot)
        document = self._document(principal, request, snapshot, spec)
        timer.lap("registry")
        failure: PolicyEngineError | None = None
        try:
            judgement = self._judge(request, snapshot, spec, document, timer)  # (2) (3) (4)
        except PolicyEngineError as error:
            failure = error
            refusal = Reason(error.code, error.detail, "system")
            judgement = _Judgement(Outcome.REFUSED, (refusal,), (), None, None)
        text, salt = validate_document(document), secrets.token_bytes(16)
        digest = "sha256:" + hashlib.sha256(salt + text).hexdigest()
        decision = self._decision(request, snapshot, judgement, digest, timer)
        try:
            with self._database.write() as connection:
                answer = self._commit(connection, principal, spec, snapshot, judgement, decision)  # (5) (6) (7)
                if answer is None:
                    return None
                if failure is None:
                    decisions.remember(connection, key, answer.id, answer.decided_at)
                decisions.insert(
                    connection,
                    answer.id,
                    principal.id,
                    snapshot.population.id,
                    decision_document.encode(answer),
                    text,
                    salt,
                    answer.decided_at,
                )
        except ConstraintError:
            return self._stored(key)  # a concurrent twin with the same key won: its answer stands
        if failure is not None:
            raise failure
        return answer

    # --- (1) -------------------------------------------------------------------------------------------------------

    def _snapshot(self, principal: Principal, request: TrainRequest) -> _Snapshot:
        if principal.role is not Role.RESEARCHER:
            raise ForbiddenError("only researchers submit training requests")
        with self._database.read() as connection:
            found = catalogue.select_datasets(connection, asset_id=request.train_data_id)
            if not found:
                raise NotFoundError(f"train_data_id: there is no data {request.train_data_id!r} that you can see")
            dataset = found[0]
            population = catalogue.select_populations(connection, population_id=dataset.population_id)[0]
            project = _project(connection, principal, request.project)
            active = policies.active(connection)
            if active is None:
                raise PolicyRevisionError("no policies are in force on this node; its operator activates them")
            scopes = (("project", project.id), ("researcher", principal.id))
            budget = budget_state.read(connection, population.id, scopes)
        pool = population.declared_size if request.no_clients is None else request.no_clients
        if pool > population.declared_size:
            raise _out_of_range("no_clients", pool, f"the population has {population.declared_size} by declaration")
        if request.clients_per_round > pool:
            raise _out_of_range("clients_per_round", request.clients_per_round, f"at most the {pool} that take part")
        return _Snapshot(project, dataset, population, active, budget)

    def _document(
        self, principal: Principal, request: TrainRequest, snapshot: _Snapshot, spec: ModelSpec
    ) -> dict[str, Any]:
        readings = snapshot.budget.readings()
        return policy_input(
            now=self._clock(),
            request=request,
            spec=spec,
            requester=principal,
            project=snapshot.project,
            dataset=snapshot.dataset,
            population=snapshot.population,
            budget=readings[0],
            quotas=readings[1:],
        )

    # --- (2) (3) (4) -------------------------------------------------------------------------------------------------

    def _judge(
        self,
        request: TrainRequest,
        snapshot: _Snapshot,
        spec: ModelSpec,
        document: Mapping[str, Any],
        timer: _Timer,
    ) -> _Judgement:
        # (2) The policies' decision.
        policy = self._engine.decide(document, policy_id=snapshot.dataset.policy_id, active=snapshot.active)
        timer.lap("policy")
        if not policy.allowed:
            return _Judgement(Outcome.REFUSED, policy.reasons or (_NOT_ALLOWED,), (), None, policy)
        if policy.review:
            waiting = Reason(
                "review_not_available", "a policy asks for a person's review; this release has none", "system"
            )
            return _Judgement(Outcome.REFUSED, (*policy.review, waiting), (), None, policy)
        # (3) Their limits.
        pool = snapshot.population.declared_size if request.no_clients is None else request.no_clients
        within, clamps, refusals = apply_limits(request, policy.limits, pool_size=pool, parameters=spec.parameter_count)
        if refusals:
            return _Judgement(Outcome.REFUSED, refusals, clamps, None, policy)
        # (4) The budget, and every quota.
        try:
            fitted = fit(within, snapshot.budget.caps, policy.clamp_order, pool_size=pool)
        except AccountantError as error:
            refusal = Reason("accounting_refused", f"the privacy accountant refuses this request: {error}", "system")
            return _Judgement(Outcome.REFUSED, (refusal,), clamps, None, policy)
        timer.lap("budget")
        if not isinstance(fitted, Fitted):
            text = f"{fitted.name} does not admit even the tightest form of this request"
            return _Judgement(Outcome.REFUSED, (Reason("budget_exhausted", text, "budget"),), clamps, None, policy)
        clamps += fitted.clamps
        still = breaches(fitted.request, policy.limits, pool_size=pool, parameters=spec.parameter_count)
        if still:  # clamping only tightens, so this cannot be; if it is, refuse
            return _Judgement(Outcome.REFUSED, still, clamps, None, policy)
        if not clamps:
            return _Judgement(Outcome.APPROVED, (), (), fitted, policy)
        if request.on_exceed is OnExceed.REFUSE:
            text = (
                "the request as it stands exceeds what is allowed, and on_exceed is 'refuse'; clamps say what would do"
            )
            return _Judgement(Outcome.REFUSED, (Reason("exceeds_limits", text, "system"),), clamps, None, policy)
        return _Judgement(Outcome.CLAMPED, (), clamps, fitted, policy)

    # --- (5) (6) (7) -------------------------------------------------------------------------------------------------

    def _commit(
        self,
        connection: Connection,
        principal: Principal,
        spec: ModelSpec,
        snapshot: _Snapshot,
        judgement: _Judgement,
        decision: Decision,
    ) -> Decision | None:
        fitted = judgement.fitted
        # (5) Locks: the population first, the log's head last.
        if fitted is not None:
            budgets.lock_balances(connection, snapshot.population.id)
        entries.lock_head(connection)
        if fitted is None:
            return self._append(connection, principal, snapshot, judgement, decision)
        # (6) Nothing that the judgement rests on may have changed.
        if policies.active(connection) != snapshot.active:
            return None
        scopes = (("project", snapshot.project.id), ("researcher", principal.id))
        locked = budget_state.read(connection, snapshot.population.id, scopes)
        if calibration.fits(locked.caps, fitted.curve.times(fitted.event.rounds)) is not None:
            return None
        # (7) Decision, reservation and queued run, together.
        return self._reserve(connection, principal, spec, snapshot, judgement, fitted, decision)

    def _reserve(
        self,
        connection: Connection,
        principal: Principal,
        spec: ModelSpec,
        snapshot: _Snapshot,
        judgement: _Judgement,
        fitted: Fitted,
        decision: Decision,
    ) -> Decision:
        run_id = new_id("run")
        recorded = self._append(
            connection, principal, snapshot, judgement, replace(decision, run_id=run_id), run_id=run_id
        )
        features, labels = columns(fitted.request, snapshot.dataset)
        run = Run(
            id=run_id,
            decision_id=decision.id,
            state=RunState.RESERVED,
            researcher_id=principal.id,
            project_id=snapshot.project.id,
            population_id=snapshot.population.id,
            dataset_id=snapshot.dataset.id,
            requested=decision.requested,
            effective=decision.effective or {},
            rounds=fitted.event.rounds,
            rounds_debited=0,
            rounds_done=0,
            created_at=decision.decided_at,
            updated_at=decision.decided_at,
        )
        template = grant_template(fitted, spec, snapshot.dataset, snapshot.population, features=features, labels=labels)
        run_store.insert_run(connection, run, template)
        held = Reservation(
            run_id=run_id,
            population_id=snapshot.population.id,
            project_id=snapshot.project.id,
            researcher_id=principal.id,
            round_curve=fitted.curve.units,
            rounds=fitted.event.rounds,
            rounds_debited=0,
            rounds_released=0,
            state="open",
        )
        budgets.reserve(connection, held, recorded.entry_index or 0)
        entries.append_event(
            connection, run_id, decision.decided_at, "state", {"state": run.state.value, "rounds": run.rounds}
        )
        return recorded

    def _append(
        self,
        connection: Connection,
        principal: Principal,
        snapshot: _Snapshot,
        judgement: _Judgement,
        decision: Decision,
        *,
        run_id: str | None = None,
    ) -> Decision:
        charge = None
        if judgement.fitted is not None:
            charge = {
                "event": encode_event(judgement.fitted.event),
                "accountant": ACCOUNTANT,
                "units_per_round": [str(units) for units in judgement.fitted.curve.units],
            }
        entry = entries.append(
            connection,
            "decision",
            decision.decided_at,
            decision_document.entry_facts(decision, snapshot.dataset.version, charge),
            population_id=snapshot.population.id,
            project_id=snapshot.project.id,
            researcher_id=principal.id,
            dataset_id=snapshot.dataset.id,
            run_id=run_id,
        )
        return replace(decision, entry_index=entry.index)

    # --- the answer --------------------------------------------------------------------------------------------------

    def _decision(
        self,
        request: TrainRequest,
        snapshot: _Snapshot,
        judgement: _Judgement,
        input_digest: str | None,
        timer: _Timer,
    ) -> Decision:
        policy = judgement.policy
        fitted = judgement.fitted
        return Decision(
            id=new_id("dec"),
            outcome=judgement.outcome,
            reasons=judgement.reasons,
            warnings=() if policy is None else policy.warnings,
            requested=decision_document.parameters(request),
            effective=None if fitted is None else decision_document.parameters(fitted.request),
            clamps=judgement.clamps,
            obligations=() if policy is None else policy.obligations,
            cost=None if fitted is None else _cost(fitted, snapshot.budget),
            policy_revision=snapshot.active.revision,
            policy_digests=snapshot.active.digests,
            opa_decision_id=None if policy is None else policy.opa_decision_id,
            input_digest=input_digest,
            decided_at=self._clock(),
            timings_ms=timer.laps,
        )

    def _stored(self, key: IdempotencyKey) -> Decision | None:
        with self._database.read() as connection:
            decision_id = decisions.recall(connection, key)
            if decision_id is None:
                return None
            document = decisions.document(connection, decision_id)
        if document is None:
            raise NotFoundError("the answer to this Idempotency-Key was erased; send a new key for a new request")
        return decision_document.decode(document)


_NOT_ALLOWED = Reason("not_allowed", "the policies do not allow this request, and give no reason", "system")


class _Timer:
    """Milliseconds of each step, for the answer and the benchmarks."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round((now - self._last) * 1000, 3)
        self._last = now


def _checked(request: TrainRequest, snapshot: _Snapshot) -> ModelSpec:
    return check_model(request, snapshot.dataset)


def _project(connection: Connection, principal: Principal, project_id: str | None) -> Project:
    """The named project, or the researcher's personal one. Not being a member looks like not existing."""
    if project_id is None:
        found = catalogue.select_projects(connection, personal_of=principal.id)
    else:
        found = catalogue.select_projects(connection, project_id=project_id, member=principal.id)
    if not found:
        raise NotFoundError(f"project: there is no project {project_id!r} that you are a member of")
    return found[0]


def _cost(fitted: Fitted, budget: BudgetState) -> Cost:
    cap = budget.caps[0]
    after = add(cap.spent, fitted.curve.times(fitted.event.rounds))
    delta = budget.budget.delta
    return Cost(
        event=encode_event(fitted.event),
        epsilon_of_run_alone=run_statement(fitted.event, delta, budget.budget.orders),
        committed_epsilon_before=epsilon_reading(budget.budget, cap.spent, delta),
        committed_epsilon_after=epsilon_reading(budget.budget, after, delta),
        delta=delta,
        accountant=ACCOUNTANT,
    )


def _out_of_range(path: str, value: object, hint: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{path} is {value}: {hint}", [{"path": path, "message": f"{value} is out of range", "hint": hint}]
    )
