"""What the entries so far add up to: populations with their balances and quotas, datasets, runs, keys.

Invariants
- Amounts are exact integers, as ``accountant.filter`` has them.
- A debit costs a few dictionary steps, however many orders there are: a balance counts charge units by charge, and
  multiplies only when somebody asks for its vector. ``State.add_up`` is for who has read many different curves: they
  are large, and are not kept for their counts alone.

This module does not: check anything (the modules beside it do).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import add, le

from accountant.curve import MAX_AMOUNT
from accountant.filter import Budget, Vector, zero
from governance.ledger.findings import Findings

Scope = tuple[str, str]  # (population | project | researcher, its id)
RunKey = tuple[str, str]  # (run, population)


class Charged:
    """What one charge unit of a run costs at each order. Compared by identity, so that it is a cheap key."""

    __slots__ = ("_last", "rounds_per_charge", "units")

    def __init__(self, units: Vector, rounds_per_charge: int) -> None:
        self.units = units
        self.rounds_per_charge = rounds_per_charge
        self._last = (1, units)

    def amount(self, times: int) -> Vector:
        """So many charge units; one amount is asked for again for every scope."""
        if self._last[0] != times:
            self._last = times, tuple([u * times for u in self.units])
        return self._last[1]


class Counted:
    """A vector that grows by whole charges, counted by charge and multiplied only when somebody asks for it."""

    __slots__ = ("_pending", "_vector")

    def __init__(self, nothing: Vector) -> None:
        self._vector = nothing
        self._pending: dict[Charged, int] = {}

    def add(self, charged: Charged, times: int) -> None:
        self._pending[charged] = self._pending.get(charged, 0) + times

    @property
    def vector(self) -> Vector:
        for charged, times in self._pending.items():
            if times:
                self._vector = tuple(map(add, self._vector, charged.amount(times)))
        self._pending.clear()
        return self._vector


class Balance:
    """What is committed and debited within one scope of a population."""

    __slots__ = ("_committed", "_debited", "commit", "debit")

    def __init__(self, nothing: Vector) -> None:
        self._committed = Counted(nothing)
        self._debited = Counted(nothing)
        self.commit = self._committed.add  # negative where something is released
        self.debit = self._debited.add

    @property
    def committed(self) -> Vector:
        return self._committed.vector

    @property
    def debited(self) -> Vector:
        return self._debited.vector

    def add_up(self) -> None:
        _ = self.committed, self.debited

    def after(self, charged: Charged, times: int) -> Vector:
        """What would be committed with so many charge units more."""
        return tuple(map(add, self.committed, charged.amount(times)))


@dataclass(frozen=True, slots=True)
class Quota:
    """An ε below the population's own. ``schedule``: (starts at, initial, step, days of a period)."""

    epsilon: float
    schedule: tuple[str, float, float, int] | None


@dataclass(slots=True)
class Population:
    id: str
    budget: Budget
    thresholds: Vector
    opened_at: int
    declared_size: int
    alone: tuple[str, ...]  # the populations of a run over this one alone
    balances: dict[Scope, Balance] = field(default_factory=dict)
    quotas: dict[Scope, Quota] = field(default_factory=dict)
    decisions: int = 0
    refusals: int = 0
    publications: int = 0
    grid: int | None = None  # short name of its orders and relation, for whoever remembers curves

    def balance(self, scope: Scope) -> Balance:
        found = self.balances.get(scope)
        if found is None:
            found = self.balances[scope] = Balance(zero(self.budget.orders))
        return found

    @property
    def own(self) -> Balance:
        return self.balance(("population", self.id))


@dataclass(slots=True)
class Run:
    """One population's part of a run. ``state``: reserved, running, quarantined, or how it ended."""

    id: str
    population: Population
    project_id: str
    researcher_id: str
    group: tuple[str, ...]  # every population of the run, in order
    balances: tuple[Balance, ...]
    charged: Charged | None  # forgotten when nothing more can be debited or released
    rounds: int
    rounds_per_charge: int
    has_holdout: bool  # one of its datasets in this population has a public hold-out, at its version
    state: str = "reserved"
    rounds_debited: int = 0
    rounds_released: int = 0
    grant: str | None = None
    fencing_token: int = 0
    is_reconciled: bool = False  # a reconciliation debited some of it

    @property
    def undebited(self) -> int:
        return self.rounds - self.rounds_debited - self.rounds_released


@dataclass(slots=True)
class Dataset:
    population_id: str
    version: int
    holdouts: set[int]  # versions that have a public hold-out


@dataclass(frozen=True, slots=True)
class EnrolledKey:
    index: int
    origin: str
    verifier_key: str


@dataclass(slots=True)
class Step:
    """A step over several populations of which entries are still to come."""

    kind: str
    what: tuple[str | None, ...]  # what is the same in all of its entries
    rest: tuple[str, ...]  # populations still to come
    datasets: dict[str, int]  # used so far, of a decision


@dataclass(slots=True)
class State:
    findings: Findings = field(default_factory=Findings)
    populations: dict[str, Population] = field(default_factory=dict)
    datasets: dict[str, Dataset] = field(default_factory=dict)
    disjoint: dict[tuple[str, ...], dict[str, int]] = field(default_factory=dict)
    runs: dict[RunKey, Run] = field(default_factory=dict)
    handles: dict[str, str] = field(default_factory=dict)  # version handle: population
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)  # run: all of its populations
    decisions: set[str] = field(default_factory=set)
    grants: dict[str, str] = field(default_factory=dict)  # grant: run
    keys: list[EnrolledKey] = field(default_factory=list)
    policy: tuple[int, str] | None = None  # sequence and revision in force
    fencing_token: int = 0
    windowed: int | None = None  # entry of the last approval to which a quota's window applied
    step: Step | None = None
    # Rounds debited, or adjusted, after a restore, and the first entry that did
    reconciled: dict[RunKey, tuple[int, int]] = field(default_factory=dict)
    explained: list[tuple[int, str, int]] = field(default_factory=list)  # (entry, run, rounds) of reconciliations

    def reconcile(self, key: RunKey, rounds: int, index: int) -> None:
        before, first = self.reconciled.get(key, (0, index))
        self.reconciled[key] = before + rounds, first

    def add_up(self) -> None:
        """Adds up every balance, so that none needs a curve that it was charged with any more."""
        for population in self.populations.values():
            for balance in population.balances.values():
                balance.add_up()


def fits(thresholds: Vector, total: Vector) -> bool:
    """``accountant.filter.admits``, for amounts that were checked already."""
    return any(map(le, total, thresholds))


def in_range(total: Vector) -> bool:
    return total[-1] <= MAX_AMOUNT  # the largest: no curve decreases with the order
