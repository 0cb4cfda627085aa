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
from governance import budget_state, decision_document, snapshot
from governance.budget_state import BudgetState, NamedCap
from governance.clamping import Fitted, fit
from governance.errors import ConstraintError, ContentionError, NotFoundError, PolicyEngineError
from governance.ledger import budgets, decisions, entries, policies
from governance.ledger.database import Connection, Database
from governance.ledger.decisions import IdempotencyKey
from governance.limits import apply_limits, breaches
from governance.model import (
    Clamp,
    Cost,
    Decision,
    OnExceed,
    Outcome,
    PolicyDecision,
    Principal,
    Reason,
    TrainRequest,
    new_id,
    utc_now,
)
from governance.policy.bundles import ActivePolicies
from governance.policy.document import policy_input
from governance.policy.merge import combine
from governance.policy.wire import validate_document
from governance.recording import Approved, Evidence, record
from governance.resources import exceeded
from governance.snapshot import Snapshot, Source

ROUTE = "train-requests"
_ATTEMPTS = 3


class Engine(Protocol):
    """What admission needs of ``governance.policy.opa.PolicyEngine``; tests wrap that one to interleave rivals."""

    def decide(self, document: Mapping[str, Any], *, policy_id: str, active: ActivePolicies) -> PolicyDecision: ...


@dataclass(frozen=True, slots=True)
class _Judgement:
    """Steps (2) to (4): an answer, good for as long as what it rests on is unchanged."""

    outcome: Outcome
    reasons: tuple[Reason, ...] = ()
    clamps: tuple[Clamp, ...] = ()
    fitted: Fitted | None = None  # set exactly if approved or clamped
    policy: PolicyDecision | None = None  # None if the engine gave no trustworthy answer


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
        now = self._clock()
        facts = snapshot.take(self._database, principal, request, now)  # (1)
        judgement = self._judge(request, facts, timer)  # (2) (3) (4)
        decision = self._decision(request, facts, judgement, None, timer, now)
        fitted = judgement.fitted
        return decision if fitted is None else replace(decision, cost=_cost(fitted, facts.budgets[0]))

    def _attempt(self, principal: Principal, request: TrainRequest, key: IdempotencyKey) -> Decision | None:
        """One pass through all steps; None if something changed between the snapshot and the locks."""
        timer = _Timer()
        now = self._clock()
        facts = snapshot.take(self._database, principal, request, now)  # (1)
        evidence = Evidence(self._inputs(request, facts), secrets.token_bytes(16))
        timer.lap("registry")
        failure: PolicyEngineError | None = None
        try:
            judgement = self._judge(request, facts, timer)  # (2) (3) (4)
        except PolicyEngineError as error:
            failure = error
            judgement = _refused(Reason(error.code, error.detail, "system"))
        digest = "sha256:" + hashlib.sha256(evidence.salt + evidence.policy_input).hexdigest()
        decision = self._decision(request, facts, judgement, digest, timer, now)
        try:
            with self._database.write() as connection:
                if judgement.fitted is not None:  # (5) the populations in their order, the log's head last
                    for population in facts.populations:
                        budgets.lock_balances(connection, population.id)
                with entries.locked(connection) as log:
                    approved = None
                    if judgement.fitted is not None:  # (6)
                        approved = self._approved(connection, facts, judgement.fitted, now)
                        if approved is None:
                            return None
                        decision = replace(decision, cost=_cost(approved.fitted, approved.locked[0]))
                    answer = record(connection, log, facts, decision, evidence, approved)  # (7)
                if failure is None:
                    decisions.remember(connection, key, answer.id, answer.decided_at)
        except ConstraintError:
            return self._stored(key)  # a concurrent twin with the same key won: its answer stands
        if failure is not None:
            raise failure
        return answer

    def _judge(self, request: TrainRequest, facts: Snapshot, timer: _Timer) -> _Judgement:
        """Without a lock and without a side effect. Raises ``PolicyEngineError``."""
        # (2) The policies' decision.
        policy = self._ask(request, facts)
        timer.lap("policy")
        if denied := _denied(policy):
            return _refused(*denied, policy=policy)
        # (3) Their limits.
        size = {"pool_size": facts.pool_size, "parameters": facts.spec.parameter_count}
        within, clamps, beyond = apply_limits(request, policy.limits, **size)
        if beyond:
            return _refused(*beyond, clamps=clamps, policy=policy)
        # (4) The budget, and every quota.
        try:
            fitted = fit(within, facts.caps, policy.clamp_order, pool_size=facts.pool_size)
        except AccountantError as error:
            text = f"the privacy accountant refuses this request: {error}"
            return _refused(Reason("accounting_refused", text, "system"), clamps=clamps, policy=policy)
        timer.lap("budget")
        if not isinstance(fitted, Fitted):
            limit = fitted.limit if isinstance(fitted, NamedCap) else None
            text = f"{fitted.name} does not admit even the tightest form of this request"
            return _refused(Reason("budget_exhausted", text, "budget", limit), clamps=clamps, policy=policy)
        clamps += fitted.clamps
        if too_much := exceeded(fitted.request, facts.spec, [source.dataset for source in facts.sources]):
            return _refused(too_much, clamps=clamps, policy=policy)
        if not clamps:
            return _Judgement(Outcome.APPROVED, fitted=fitted, policy=policy)
        # Rules see numbers, so a clamped request is another one: it needs their leave too (privacy rule 15).
        again = self._ask(fitted.request, facts)
        timer.lap("policy_again")
        if denied := _denied(again) or breaches(fitted.request, again.limits, **size):
            return _refused(*denied, clamps=clamps, policy=again)
        if request.on_exceed is OnExceed.REFUSE:
            return _refused(*map(_exceeds, clamps), clamps=clamps, policy=policy)
        return _Judgement(Outcome.CLAMPED, clamps=clamps, fitted=fitted, policy=policy)

    def _approved(self, connection: Connection, facts: Snapshot, fitted: Fitted, now: datetime) -> Approved | None:
        """(6) Under the locks: the approval with the budgets as they are now; None if something it rests on changed."""
        if policies.active(connection) != facts.active or not snapshot.still_disjoint(connection, facts):
            return None
        locked = tuple(
            budget_state.read(connection, population, now, facts.quota_scopes) for population in facts.populations
        )
        refusing = calibration.fits(snapshot.all_caps(locked), fitted.charge.total)
        return Approved(fitted, locked) if refusing is None else None

    def _ask(self, request: TrainRequest, facts: Snapshot) -> PolicyDecision:
        """Every dataset's policies; all of them must allow the request, and the tightest limit counts."""
        answers = []
        for source in facts.sources:
            document = self._document(request, facts, source)
            answers.append(self._engine.decide(document, policy_id=source.dataset.policy_id, active=facts.active))
        return combine(answers)

    def _inputs(self, request: TrainRequest, facts: Snapshot) -> bytes:
        """The exact input of each dataset's policies, for the record: one document, or an array of several."""
        inputs = [validate_document(self._document(request, facts, source)) for source in facts.sources]
        return inputs[0] if len(inputs) == 1 else b"[" + b",".join(inputs) + b"]"

    def _document(self, request: TrainRequest, facts: Snapshot, source: Source) -> dict[str, Any]:
        population, *quotas = facts.budget_of(source.population.id).readings()
        return policy_input(
            now=self._clock(),
            request=request,
            spec=facts.spec,
            requester=facts.requester,
            project=facts.project,
            dataset=source.dataset,
            population=source.population,
            budget=population,
            quotas=quotas,
            pool=facts.pool_size,
        )

    def _decision(
        self,
        request: TrainRequest,
        facts: Snapshot,
        judgement: _Judgement,
        digest: str | None,
        timer: _Timer,
        now: datetime,
    ) -> Decision:
        """Dated with the moment at which schedules were read: whoever replays the entry reads them alike."""
        policy, fitted = judgement.policy, judgement.fitted
        return Decision(
            id=new_id("dec"),
            outcome=judgement.outcome,
            reasons=judgement.reasons,
            warnings=() if policy is None else policy.warnings,
            requested=decision_document.parameters(request),
            effective=None if fitted is None else decision_document.parameters(fitted.request),
            clamps=judgement.clamps,
            obligations=() if policy is None else policy.obligations,
            cost=None,  # of an approval: as it is under the locks
            policy_revision=facts.active.revision,
            policy_digests=facts.active.digests,
            opa_decision_id=None if policy is None else policy.opa_decision_id,
            input_digest=digest,
            decided_at=now,
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
_NO_REVIEW = Reason("review_not_available", "a policy asks for a person's review; this release has none", "system")


def _denied(policy: PolicyDecision) -> tuple[Reason, ...]:
    """Why the policies do not let a request through as it stands; empty if they do."""
    if policy.allowed is not True:
        return policy.reasons or (_NOT_ALLOWED,)
    return (*policy.review, _NO_REVIEW) if policy.review else ()


def _refused(*reasons: Reason, clamps: tuple[Clamp, ...] = (), policy: PolicyDecision | None = None) -> _Judgement:
    return _Judgement(Outcome.REFUSED, reasons, clamps, None, policy)


def _exceeds(clamp: Clamp) -> Reason:
    code = "exceeds_budget" if clamp.by == "budget" else "exceeds_policy"
    text = f"{clamp.parameter} {clamp.requested:g} would have to be {clamp.effective:g}: {clamp.why}"
    return Reason(code, text, clamp.by, clamp.parameter)


def _cost(fitted: Fitted, budget: BudgetState) -> Cost:
    cap = budget.caps[0]  # the population's
    after = add(cap.spent, fitted.charge.total)
    delta = cap.budget.delta
    return Cost(
        event=encode_event(fitted.event),
        epsilon_of_run_alone=run_statement(fitted.event, delta, cap.budget.orders),
        committed_epsilon_before=epsilon_reading(cap.budget, cap.spent, delta),
        committed_epsilon_after=epsilon_reading(cap.budget, after, delta),
        delta=delta,
        accountant=ACCOUNTANT,
    )


class _Timer:
    """Milliseconds of each step, for the answer and the benchmarks."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round((now - self._last) * 1000, 3)
        self._last = now
