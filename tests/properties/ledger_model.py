"""The reference: what a ledger must answer and hold, as plain Python over exact integers.

Invariants
- Nothing of it is taken from the product's ledger, filter or settlement. Thresholds are computed by mpmath with 60
  digits, curves are checked against dp_accounting (``ledger_arithmetic``).
- ``apply`` raises ``Mismatch`` where an operation did not do what it must in this state, and changes the state as it
  must.
- A crash leaves either nothing or the whole effect: which of them, the number of commits says.

This module does not: read a database (what has to be learned from it, random ids, comes in ``Seen``).
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from governance.errors import (
    ConflictError,
    FencingError,
    ForbiddenError,
    IdempotencyMismatchError,
    InvalidRequestError,
    LedgerClosedError,
    NotFoundError,
)
from governance.model import Outcome, Principal, Role, Schedule
from tests.properties import ledger_operations as ops
from tests.properties.ledger_arithmetic import Vector, fits, most_rounds, unit_cost
from tests.properties.ledger_operations import Operation
from tests.properties.ledger_site import DELTA, EPSILON, Site

LEASE = timedelta(seconds=60)


class Mismatch(AssertionError):
    """The product did what it must not, or did not do what it must."""


@dataclass
class Seen:
    """What came of an operation. ``born``: ids that the database gave, found by what the caller knows."""

    now: datetime
    answer: Any = None
    error: Exception | None = None
    crashed: bool = False
    commits: int = 0
    beside: bool = False  # another operation went on at the same time
    born: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    id: str
    created_at: datetime
    group: tuple[str, ...]
    project: str
    researcher: str
    units: Vector
    rounds: int
    state: str = "reserved"
    held: str = "open"
    debits: dict[int, int] = field(default_factory=dict)
    released: int = 0
    done: int = 0
    published: bool = False
    grant: str | None = None
    runner: str = ""
    token: int = 0
    live: bool = False
    lease: datetime | None = None
    permitted: set[int] = field(default_factory=set)

    @property
    def debited(self) -> int:
        return sum(self.debits.values())

    @property
    def committed(self) -> int:
        return self.rounds - self.released

    @property
    def scopes(self) -> tuple[tuple[str, str], ...]:
        return ("project", self.project), ("researcher", self.researcher)


@dataclass
class Expected:
    """``effect`` None: nothing changes. ``errors``: exactly one of these is raised. ``appends``: an entry, that is."""

    errors: tuple[type[Exception], ...] = ()
    answer: Callable[[Any], bool] = lambda answer: True
    effect: Callable[[Seen], None] | None = None
    appends: bool = True
    parts: int = 1  # transactions that the effect may come in


def refusal(*errors: type[Exception]) -> Expected:
    return Expected(errors)


class Model:
    def __init__(self, site: Site) -> None:
        self.site = site
        self.runs: dict[str, Run] = {}  # in the order of their creation
        self.answers: dict[tuple[int, str], tuple[bytes, str]] = {}  # (who, key) -> digest of the body, decision
        self.quotas: dict[tuple[str, str, str], tuple[float, Schedule | None]] = {}
        self.versions = {dataset.id: 1 for dataset in site.datasets}
        first, second = (population.id for population in site.populations[:2])
        self.disjoint = {(first, second): {dataset.id: 1 for dataset in site.datasets[:3]}}
        self.handles: dict[str, str] = {}
        self.token = 0
        self.shut = False
        self.reports: dict[str, int] = {}
        self.decisions = 0

    def copy(self) -> Model:
        other = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, dict):
                setattr(other, name, dict(value))
        other.runs = {name: copy.copy(run) for name, run in self.runs.items()}
        for run in other.runs.values():
            run.debits, run.permitted = dict(run.debits), set(run.permitted)
        return other

    # --- what an operation must do ---

    def apply(self, operation: Operation, seen: Seen) -> None:
        expected = self._expected(operation, seen)
        if expected.effect is not None and self.shut and expected.appends and not isinstance(operation, ops.Shut):
            expected = refusal(LedgerClosedError)
        if seen.crashed:
            if expected.effect is not None and seen.commits:
                expected.effect(seen)
            return
        if expected.errors:
            if type(seen.error) not in expected.errors:
                raise Mismatch(f"{operation}: {expected.errors} expected, found {seen.error!r}, {seen.answer!r}")
            return
        if seen.error is not None:
            raise Mismatch(f"{operation}: unexpected {seen.error!r}") from seen.error
        if not expected.answer(seen.answer):
            raise Mismatch(f"{operation}: the answer is not what it must be: {seen.answer!r}")
        if expected.effect is not None:
            expected.effect(seen)

    def _expected(self, operation: Operation, seen: Seen) -> Expected:
        match operation:
            case ops.Admit():
                return self._admit(operation, seen)
            case ops.Claim():
                return self._claim(operation, seen)
            case ops.Expire():
                return self._expire(seen)
            case ops.Cancel(run, by):
                return self._cancel(self.runs[run], by)
            case ops.Resolve(run, by):
                return self._resolve(self.runs[run], by)
            case ops.Report(name, grants):
                return Expected(effect=lambda _: self.reports.update({name: grants}), appends=False)
            case ops.SetQuota() | ops.AddVersion() | ops.Compare() | ops.Shut():
                return self._registry(operation, seen)
        return self._of_runner(operation, seen)

    # --- admission ---

    def _admit(self, asked: ops.Admit, seen: Seen) -> Expected:
        known = self.answers.get((asked.who, asked.key))
        if known is not None:
            if known[0] != asked.digest:
                return refusal(IdempotencyMismatchError)
            return Expected(answer=lambda answer: answer.id == known[1])
        populations = self._group(asked)
        if not self._may_join(asked, populations):
            return refusal(InvalidRequestError)
        if asked.project == "other" or (asked.project == "joint" and asked.who == 2):
            return refusal(NotFoundError)
        outcome, rounds, limits = self._judge(asked, populations, seen.now)

        def right(answer: Any) -> bool:
            named = {reason.field for reason in answer.reasons if reason.code == "budget_exhausted"}
            effective = None if answer.effective is None else answer.effective["rounds"]
            told = (outcome, rounds if rounds else None) == (answer.outcome, effective)
            return told and named <= limits and (answer.run_id is None) == (rounds == 0)

        def effect(seen: Seen) -> None:
            decision, run_id = seen.born["decision"], seen.born["run"]
            if decision is None or (run_id is None) != (rounds == 0):
                raise Mismatch(f"{asked}: recorded as {seen.born} where {outcome} was due")
            self.answers[asked.who, asked.key] = (asked.digest, decision)
            self.decisions += 1
            if run_id is not None:
                clients, pool, noise, _ = ops.SHAPES[asked.shape]
                person = self.site.researchers[asked.who].id
                project = ops.project_id(self.site, asked) or self.site.personal[person]
                units = unit_cost(clients / pool, noise)
                self.runs[run_id] = Run(run_id, seen.now, populations, project, person, units, rounds)

        return Expected(answer=right, effect=effect)

    def _group(self, asked: ops.Admit) -> tuple[str, ...]:
        return tuple(sorted({self.site.datasets[at].population_id for at in asked.data}))

    def _may_join(self, asked: ops.Admit, populations: tuple[str, ...]) -> bool:
        if len(populations) < 2:
            return True
        checked = self.disjoint.get((populations[0], populations[1]), {})
        used = [self.site.datasets[at].id for at in asked.data]
        return all(checked.get(name) == self.versions[name] for name in used)

    def _judge(self, asked: ops.Admit, group: tuple[str, ...], now: datetime) -> tuple[Outcome, int, set[str | None]]:
        """Outcome, rounds that are reserved, and the limits that a refusal for the budget may name."""
        clients, pool, noise, rounds = ops.SHAPES[asked.shape]
        if asked.purpose == "marketing":
            return Outcome.REFUSED, 0, set()
        within = min(rounds, ops.MAX_ROUNDS)
        units = unit_cost(clients / pool, noise)
        caps = self.caps(asked, group, now)
        room = {limit: most_rounds(epsilon, DELTA, self.site, spent, units) for limit, epsilon, spent in caps}
        granted = min(within, *room.values())
        if granted < 1:
            return Outcome.REFUSED, 0, {limit.partition(" ")[0] for limit, least in room.items() if least < within}
        if granted == rounds:
            return Outcome.APPROVED, rounds, set()
        return (Outcome.REFUSED, 0, set()) if asked.refuse else (Outcome.CLAMPED, granted, set())

    def caps(self, asked: ops.Admit, group: tuple[str, ...], now: datetime) -> list[tuple[str, float, Vector]]:
        person = self.site.researchers[asked.who].id
        project = ops.project_id(self.site, asked) or self.site.personal[person]
        found = []
        for population in group:
            found.append(
                (f"population_budget {population}", EPSILON, self.balance(population, "population", population)[0])
            )
            scopes = (("population", population), ("project", project), ("researcher", person))
            names = ("population_window", "project_quota", "researcher_quota")
            for name, (scope, scope_id) in zip(names, scopes, strict=True):
                if (quota := self.quotas.get((population, scope, scope_id))) is not None:
                    unlocked = unlocked_epsilon(*quota, now)
                    found.append((f"{name} {population}", unlocked, self.balance(population, scope, scope_id)[0]))
        return found

    # --- settlement ---

    def _claim(self, claim: ops.Claim, seen: Seen) -> Expected:
        if self.shut:
            return refusal(LedgerClosedError)  # also where nothing is queued: it is what makes a runner report
        queued = [run for run in self.runs.values() if run.state == "reserved"]
        oldest = min(queued, key=lambda run: (run.created_at, run.id), default=None)
        born = seen.born.get("granted")
        run = None if born is None else self.runs.get(born["run_id"])
        allowed = [*queued, None] if seen.beside else [oldest]  # what another claims or ends is passed over

        def effect(seen: Seen) -> None:
            if run is None or born is None or run not in queued:
                raise Mismatch(f"{claim}: claimed {born}, which was not queued")
            if born["fencing_token"] <= self.token:
                raise Mismatch(f"fencing token {born['fencing_token']} after {self.token}")
            self.token = run.token = born["fencing_token"]
            run.state, run.grant, run.runner, run.live = "running", born["id"], claim.runner, True
            run.lease = seen.now + LEASE

        def right(answer: Any) -> bool:
            if run not in allowed:
                return False
            if run is None or born is None:
                return answer is None
            ids = (born["run_id"], born["id"], born["fencing_token"], run.rounds)
            return answer is not None and ids == (
                answer.run_id,
                answer.grant_id,
                answer.fencing_token,
                answer.parameters.rounds,
            )

        if oldest is None or (seen.beside and run is None):
            return Expected(answer=right)
        return Expected(answer=right, effect=effect)

    def _of_runner(self, operation: Operation, seen: Seen) -> Expected:
        held: ops.Held = operation.held  # type: ignore[union-attr]
        run = self.runs[held.run]
        if held.runner != run.runner or held.grant != run.grant:
            return refusal(NotFoundError)
        if held.token != run.token:
            return refusal(FencingError)
        if isinstance(operation, ops.Heartbeat) and run.state == "cancelled":
            return Expected(answer=lambda answer: answer.stop is True)
        if not run.live or run.lease is None or run.lease < seen.now:
            return refusal(FencingError)

        def extend(seen: Seen) -> None:
            run.lease = seen.now + LEASE

        match operation:
            case ops.Heartbeat():
                return Expected(answer=lambda answer: answer.stop is False, effect=extend, appends=False)
            case ops.Debit(_, first, rounds):
                return self._debit(run, first, rounds, extend)
            case ops.Progress(_, done):
                if not run.done < done <= run.debited:
                    return Expected()
                return Expected(effect=lambda _: setattr(run, "done", done))
            case ops.Publish():
                return self._publish(run, operation)
            case ops.Fail(_, touched):
                if touched or run.debited:
                    return Expected(effect=lambda _: _end(run, "quarantined", "quarantined"))
                return Expected(effect=lambda _: _release(run, "failed"))
        raise AssertionError(f"{operation} is not a runner's")

    def _debit(self, run: Run, first: int, rounds: int, extend: Callable[[Seen], None]) -> Expected:
        before = run.debits.get(first)
        if before is not None:
            if before != rounds:
                return refusal(ConflictError)
            debited = run.debited
            return Expected(answer=lambda answer: (answer.permitted, answer.debited_rounds) == (False, debited))
        if rounds < 1 or first != run.debited or first + rounds > run.rounds:
            return refusal(ConflictError)

        def effect(seen: Seen) -> None:
            paid = set(range(first, first + rounds))
            if not seen.crashed:  # the answer came out: these rounds run now, with noise that is drawn now
                if paid & run.permitted:
                    raise Mismatch(f"rounds {sorted(paid & run.permitted)} of {run.id} were permitted a second time")
                run.permitted |= paid
            run.debits[first] = rounds
            extend(seen)

        return Expected(
            answer=lambda answer: (answer.permitted, answer.debited_rounds) == (True, first + rounds), effect=effect
        )

    def _publish(self, run: Run, asked: ops.Publish) -> Expected:
        if asked.wrong:
            return refusal(InvalidRequestError)
        if run.debited != run.rounds or asked.rounds != run.rounds:
            return refusal(ConflictError)

        def effect(_: Seen) -> None:
            if run.published:
                raise Mismatch(f"{run.id} is published a second time")
            _end(run, "published", "closed")
            run.published, run.done = True, run.rounds

        return Expected(effect=effect)

    def _cancel(self, run: Run, by: Principal) -> Expected:
        if by.id == self.site.stranger.id or (by.role is Role.RESEARCHER and by.id != run.researcher):
            return refusal(NotFoundError)
        if by.role is Role.AUDITOR:
            return refusal(ForbiddenError)
        if run.state == "reserved" or (run.state == "running" and by.id == run.researcher):
            return Expected(effect=lambda _: _release(run, "cancelled"))
        if run.state == "running":
            return Expected(effect=lambda _: _end(run, "cancelled", "quarantined"))
        return Expected() if run.state == "cancelled" else refusal(ConflictError)

    def _resolve(self, run: Run, by: Principal) -> Expected:
        if by.role not in (Role.ADMIN, Role.RUNNER):
            return refusal(ForbiddenError)
        if by.role is Role.RUNNER and (run.grant is None or by.id != run.runner):
            return refusal(NotFoundError)
        if run.held != "quarantined":
            return refusal(ConflictError)
        return Expected(effect=lambda _: _release(run, run.state))

    def _expire(self, seen: Seen) -> Expected:
        """Each run in a transaction of its own: a crash in between leaves the rest for the next time."""
        ended = [run for run in self.runs.values() if run.live and run.lease is not None and run.lease < seen.now]

        def effect(seen: Seen) -> None:
            now_held = [run for run in ended if run.id in seen.born["quarantined"]]
            if not seen.beside and len(now_held) != (seen.commits if seen.crashed else len(ended)):
                raise Mismatch(f"{len(now_held)} of {len(ended)} leases ended in {seen.commits} transactions")
            for run in now_held:
                _end(run, "quarantined", "quarantined")

        if not ended:
            return Expected(answer=lambda answer: answer == 0 or seen.beside)
        return Expected(answer=lambda answer: answer == len(ended) or seen.beside, effect=effect)

    # --- the registry ---

    def _registry(self, operation: Operation, seen: Seen) -> Expected:
        match operation:
            case ops.SetQuota(at, scope, scope_id, epsilon, schedule):
                key = (self.site.populations[at].id, scope, scope_id)
                return Expected(effect=lambda _: self.quotas.update({key: (epsilon, schedule)}))
            case ops.AddVersion(at, version, handle):
                return self._add_version(self.site.datasets[at].id, version, handle, seen)
            case ops.Compare((one, other), versions):
                ids = sorted((self.site.populations[one].id, self.site.populations[other].id))
                of_both = {d.id: self.versions[d.id] for d in self.site.datasets if d.population_id in ids}
                if of_both != dict(versions) and not self.shut:
                    return refusal(ConflictError)
                return Expected(effect=lambda _: self.disjoint.update({(ids[0], ids[1]): of_both}))
            case ops.Shut(shut):
                return Expected(effect=lambda _: self._shut(shut))
        raise AssertionError(f"{operation} is not the registry's")

    def _shut(self, shut: bool) -> None:
        if shut and not self.shut:
            self.reports = {}  # they say nothing about what is lost after them
        self.shut = shut

    def _add_version(self, dataset: str, version: int, handle: str, seen: Seen) -> Expected:
        if handle in self.handles:
            return refusal(LedgerClosedError if self.shut else ConflictError)
        if seen.beside and isinstance(seen.error, ConflictError) and self.versions[dataset] >= version:
            return refusal(ConflictError)  # it read the version before another added one
        following = self.versions[dataset] + 1

        def effect(_: Seen) -> None:
            self.versions[dataset] = following
            self.handles[handle] = dataset

        return Expected(answer=lambda answer: answer.version == following, effect=effect)

    # --- what the database must hold ---

    def balance(self, population: str, scope: str, scope_id: str) -> tuple[Vector, Vector]:
        """(committed, debited), as sums over everything that ever was."""
        wanted = [
            run
            for run in self.runs.values()
            if population in run.group and (scope == "population" or (scope, scope_id) in run.scopes)
        ]
        committed: Counter[Vector] = Counter()
        debited: Counter[Vector] = Counter()
        for run in wanted:
            committed[run.units] += run.committed
            debited[run.units] += run.debited
        return self._amount(committed), self._amount(debited)

    def _amount(self, rounds: Mapping[Vector, int]) -> Vector:
        total = [0] * len(self.site.populations[0].budget.orders)
        for units, count in rounds.items():
            total = [amount + unit * count for amount, unit in zip(total, units, strict=True)]
        return tuple(total)

    def balances(self) -> dict[tuple[str, str, str], tuple[Vector, Vector]]:
        keys = {(population.id, "population", population.id) for population in self.site.populations}
        for run in self.runs.values():
            keys |= {(population, *scope) for population in run.group for scope in run.scopes}
        return {key: self.balance(*key) for key in keys}

    def within_budget(self) -> bool:
        spent = [self.balance(population.id, "population", population.id)[0] for population in self.site.populations]
        return all(fits(EPSILON, DELTA, self.site, amount) for amount in spent)


def unlocked_epsilon(epsilon: float, schedule: Schedule | None, at: datetime) -> float:
    if schedule is None:
        return epsilon
    found, step = schedule.initial_epsilon, schedule.starts_at + timedelta(days=schedule.period_days)
    while step <= at and found < epsilon:
        found, step = found + schedule.step_epsilon, step + timedelta(days=schedule.period_days)
    return min(found, epsilon)


def _end(run: Run, state: str, held: str) -> None:
    run.state, run.held, run.live = state, held, False


def _release(run: Run, state: str) -> None:
    run.released += run.rounds - run.released - run.debited
    _end(run, state, "closed")
