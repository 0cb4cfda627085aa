"""``contention``: reservations and debits per second, durable, by 32 clients at once: on one population, and on 100.

A client takes turns between a reservation (admission's steps (5) to (7), with the product's own code: locks, everything
checked again, decision, entry, reservation, queued run and stored answer) and a debit of one round of a run that it was
granted (``Settlement.debit``). Steps (1) to (4) hold no lock and are left out: registry facts and the judgement are
those of a real request, decided once by the real policy engine.

The baseline writes the same rows without the product: the very INSERT, UPDATE and locking statements of one such
transaction, heard at the driver, with other ids and numbers, through bare driver connections of the same settings. Each
side has a database of its own and is 32 threads of one process, as a node is; on SQLite both have the same lock in
front. They take turns.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import event

from api.schemas import TrainRequestIn
from benchmarks.record import Recorder
from benchmarks.stage import POLICY, POSTGRES, SQLITE, Opa, Site, Stage, stage
from benchmarks.timing import p50, p99
from governance import admission, recording, snapshot
from governance.admission import Admission
from governance.ledger import budgets, decisions, entries
from governance.ledger.database import Database
from governance.ledger.decisions import IdempotencyKey
from governance.model import Decision, Principal, Role, TrainRequest, new_id, utc_now
from governance.recording import Approved, Evidence
from governance.registry import Registry
from governance.results import ResultStore
from governance.settlement import Settlement
from governance.snapshot import Snapshot
from runner.port import Grant

CLIENTS = 32
_WINDOWS, _WINDOW_S = 3, 3.0
_RUNNER = Principal("rnr_contention", Role.RUNNER)
_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
_NUMBERED = {"index", "id", "first_round"}  # integer keys that must be new in every row
Work = Callable[[], object]


def run(recorder: Recorder) -> None:
    for engine in (SQLITE, POSTGRES):
        for populations in (1, 100):
            with stage() as theatre:
                sides = [_clients(theatre, engine, populations, make) for make in (_Product, _Bare)]
                _record(recorder, f"{engine}, {populations} population{'s'[: populations > 1]}", *_measured(*sides))


@dataclass(frozen=True, slots=True)
class Lane:
    """A population and a long run in it: one client's alone. ``facts`` and ``fitted`` are of a request for it."""

    facts: Snapshot
    judged: admission._Judgement
    decision: Decision
    evidence: Evidence
    gate: Admission
    grant: Grant


class _Product:
    """Reservations and debits in one lane."""

    def __init__(self, site: Site, lane: Lane) -> None:
        self._database, self._lane = site.database, lane
        self._settlement = _settlement(site)
        self._rounds = itertools.count()

    def reserve(self) -> None:
        lane, now = self._lane, utc_now()
        fitted = lane.judged.fitted
        assert fitted is not None
        decision = replace(lane.decision, id=new_id("dec"), decided_at=now)
        with self._database.write() as connection:
            for population in lane.facts.populations:  # (5)
                budgets.lock_balances(connection, population.id)
            with entries.locked(connection) as log:
                approved: Approved | None = lane.gate._approved(connection, lane.facts, fitted, now)  # (6)
                if approved is None:
                    raise RuntimeError("the budget is used up: the benchmark measures approvals only")
                decision = replace(decision, cost=admission._cost(approved.fitted, approved.locked[0]))
                answer = recording.record(connection, log, lane.facts, decision, lane.evidence, approved)  # (7)
            key = IdempotencyKey(lane.facts.requester.id, admission.ROUTE, secrets.token_hex(12), bytes(32))
            decisions.remember(connection, key, answer.id, answer.decided_at)

    def debit(self) -> None:
        grant = self._lane.grant
        answer = self._settlement.debit(_RUNNER, grant.grant_id, grant.fencing_token, next(self._rounds), 1)
        if not answer.permitted:
            raise RuntimeError(f"a debit was not permitted: {answer}")


# --- setting up ---


def _lanes(site: Site, opa: Opa, populations: int) -> list[list[Lane]]:
    """For each client, what it works on: with one population all clients share it, with more each is one client's."""
    requests = [_request(site)] * CLIENTS
    if populations > 1:
        requests = [_request(site, _opened(site, number)) for number in range(populations)]
    engine = opa.engine()
    try:
        gate = Admission(site.database, engine)
        for request in requests:
            long = replace(request, rounds=1000)
            gate.admit(site.researcher, long, idempotency_key=secrets.token_hex(12), request_digest=bytes(32))
        found = [_lane(site, gate, request) for request in requests]
    finally:
        engine.close()
    settlement = _settlement(site)
    grants = [settlement.claim(_RUNNER) for _ in requests]
    lanes = [replace(lane, grant=grant) for lane, grant in zip(found, _of_lanes(site, found, grants), strict=True)]
    return [lanes[client::CLIENTS] for client in range(CLIENTS)]


def _settlement(site: Site) -> Settlement:
    """Its clock stands still: no lease ends while others are set up."""
    return Settlement(site.database, ResultStore(site.settings.results_dir), clock=lambda: _BEGAN)


def _of_lanes(site: Site, lanes: Sequence[Lane], grants: Sequence[Grant | None]) -> list[Grant]:
    """The grants in the order of the lanes' populations."""
    by_population: dict[str, list[Grant]] = {}
    with site.database.read() as connection:
        for grant in grants:
            if grant is None:
                raise RuntimeError("a long run was not admitted")
            held = budgets.reservations_of(connection, grant.run_id)[0]
            by_population.setdefault(held.population_id, []).append(grant)
    return [by_population[lane.facts.populations[0].id].pop() for lane in lanes]


def _opened(site: Site, number: int) -> dict[str, str]:
    """A further population with a dataset; the ids of its assets."""
    registry, first = Registry(site.database), site.dataset
    population = registry.open_population(site.owner, f"people {number}", 1_000_000, 8.0, 1e-7)
    dataset = registry.register_dataset(
        site.owner,
        population_id=population.id,
        name=f"digits {number}",
        description="",
        policy_id=POLICY,
        assets=first.assets,
        version_handle=f"ver_{number:024x}",
        holdout_handle=None,
        max_examples_per_unit=first.max_examples_per_unit,
    )
    return {"train_data_id": dataset.assets[0].id, "label_data_id": dataset.assets[1].id}


def _request(site: Site, data: Mapping[str, str] | None = None) -> TrainRequest:
    return TrainRequestIn.model_validate(site.request(**(data or {}))).to_domain()


def _lane(site: Site, gate: Admission, request: TrainRequest) -> Lane:
    facts = snapshot.take(site.database, site.researcher, request, utc_now())
    evidence = Evidence(gate._inputs(request, facts), secrets.token_bytes(16))
    judged = gate._judge(request, facts, admission._Timer())
    digest = "sha256:" + hashlib.sha256(evidence.salt + evidence.policy_input).hexdigest()
    decision = gate._decision(request, facts, judged, digest, admission._Timer(), utc_now())
    if judged.fitted is None:
        raise RuntimeError(f"the policies do not approve: {decision.reasons}")
    nothing: Any = None  # until the runs are claimed
    return Lane(facts, judged, decision, evidence, gate, nothing)


# --- the same rows, bare ---


@dataclass(frozen=True, slots=True)
class _Statement:
    """As it went to the driver: text, and the parameters of each execution by name and in the driver's own form."""

    text: str
    names: Sequence[str] | None  # the order of positional parameters; None where they are named
    values: Sequence[Mapping[str, Any]]


@dataclass(slots=True)
class _Heard:
    """The writing and locking statements of one transaction, and the ids that it made."""

    statements: list[_Statement] = field(default_factory=list)

    def fresh(self, numbers: Iterator[int]) -> Iterator[tuple[str, Any, bool]]:
        """(text, parameters, many): with ids of their own and numbers that were never used."""
        renamed: dict[str, str] = {}
        for statement in self.statements:
            inserts = statement.text.startswith("INSERT")
            rows = [_renewed(values, renamed, numbers) if inserts else values for values in statement.values]
            given = rows if statement.names is None else [[row[name] for name in statement.names] for row in rows]
            yield statement.text, given if len(given) > 1 else given[0], len(given) > 1


def _renewed(row: Mapping[str, Any], renamed: dict[str, str], numbers: Iterator[int]) -> dict[str, Any]:
    found = dict(row)
    for name, value in row.items():
        if isinstance(value, int) and name in _NUMBERED:
            found[name] = next(numbers)
        elif name in ("id", "run_id", "decision_id", "key") and isinstance(value, str) and value in renamed:
            found[name] = renamed[value]
        elif name in ("id", "key") and isinstance(value, str):
            found[name] = renamed[value] = new_id(value.partition("_")[0])
    return found


class _Bare:
    """The rows of a reservation and of a debit, written through a driver's connection."""

    _numbers = itertools.count(10**9)
    _in_front = threading.Lock()

    def __init__(self, site: Site, lane: Lane) -> None:
        self._database = site.database
        product = _Product(site, lane)
        self._reservation = _heard(site.database, product.reserve)
        self._debit = _heard(site.database, product.debit)

    def reserve(self) -> None:
        self._write(self._reservation)

    def debit(self) -> None:
        self._write(self._debit)

    def _write(self, heard: _Heard) -> None:
        statements = list(heard.fresh(self._numbers))
        if not self._database.is_sqlite:
            self._transaction(statements)
            return
        with self._in_front:  # as ``Database`` has it
            self._transaction(statements)

    def _transaction(self, statements: Sequence[tuple[str, Any, bool]]) -> None:
        pooled = self._database.engine.raw_connection()
        try:
            connection: Any = pooled.driver_connection
            cursor = connection.cursor()
            if self._database.is_sqlite:
                cursor.execute("BEGIN IMMEDIATE")
            for text, parameters, many in statements:
                (cursor.executemany if many else cursor.execute)(text, parameters)
            connection.commit()
            cursor.close()
        finally:
            pooled.close()


def _heard(database: Database, work: Work) -> _Heard:
    heard = _Heard()

    def before(_c: object, _k: object, text: str, _p: object, context: Any, _m: bool) -> None:
        if text.startswith(("INSERT", "UPDATE")) or "FOR UPDATE" in text:  # without its locks it would be deadlocked
            heard.statements.append(_Statement(text, context.compiled.positiontup, context.compiled_parameters))

    event.listen(database.engine, "before_cursor_execute", before)
    try:
        work()
    finally:
        event.remove(database.engine, "before_cursor_execute", before)
    return heard


# --- measuring ---


@dataclass(slots=True)
class _Took:
    """Milliseconds of each transaction, and the seconds that all clients worked."""

    reserve: list[float] = field(default_factory=list)
    debit: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        return (len(self.reserve) + len(self.debit)) / self.seconds


Side = _Product | _Bare


def _clients(theatre: Stage, engine: str, populations: int, make: Callable[[Site, Lane], Side]) -> list[list[Side]]:
    site = theatre.site(engine)
    return [[make(site, lane) for lane in mine] for mine in _lanes(site, theatre.opa, populations)]


def _measured(ours: list[list[Side]], bare: list[list[Side]]) -> tuple[_Took, _Took]:
    took, without = _Took(), _Took()
    for window in range(_WINDOWS):
        sides = [(ours, took), (bare, without)]
        for clients, into in sides if window % 2 else reversed(sides):
            _window(clients, into)
    return took, without


def _window(clients: list[list[Side]], into: _Took) -> None:
    together = threading.Barrier(len(clients) + 1)
    found: list[_Took] = [_Took() for _ in clients]
    failures: list[BaseException] = []

    def client(sides: list[Side], mine: _Took) -> None:
        turns = itertools.cycle(sides)
        together.wait()
        end = time.perf_counter() + _WINDOW_S
        try:
            while time.perf_counter() < end:
                side = next(turns)
                mine.reserve.append(_timed(side.reserve))
                mine.debit.append(_timed(side.debit))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=client, args=pair) for pair in zip(clients, found, strict=True)]
    for thread in threads:
        thread.start()
    together.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError("a client failed") from failures[0]
    into.seconds += time.perf_counter() - began
    for one in found:
        into.reserve += one.reserve
        into.debit += one.debit


def _timed(work: Work) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def _record(recorder: Recorder, name: str, ours: _Took, bare: _Took) -> None:
    what = "bare transactions of the same rows"
    recorder.add(f"{name}, reservations and debits", ours.rate, "/s", baseline=(what, bare.rate))
    for step in ("reserve", "debit"):
        mine, theirs = getattr(ours, step), getattr(bare, step)
        recorder.add(f"{name}, {step}, p50", p50(mine), "ms", baseline=(what, p50(theirs)))
        recorder.add(f"{name}, {step}, p99", p99(mine), "ms", baseline=(what, p99(theirs)))
