"""The ledger's state machine, as a fold over entries: what each may do depends on those before it.

Invariants
- Pure: entries in, findings and balances out. The same fold rebuilds a node's balances and serves the auditor.
- No entry ends it. One that does not follow becomes a finding with a stable code and changes nothing; the next is read.
- What it holds grows with populations, decisions, runs and datasets, not with other entries or orders.

This module does not: read files, check bytes, hashes, order or signatures (``verify`` does).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import le

from accountant.filter import Vector
from accountant.odometer import epsilon_reading
from governance.ledger import replay_registry as registry
from governance.ledger import replay_runs as runs
from governance.ledger.entry_reader import Entry, EntryReader
from governance.ledger.findings import BadEntryError, Findings
from governance.ledger.replay_decisions import Decisions
from governance.ledger.replay_state import EnrolledKey, Population, Run, RunKey, State

BalanceKey = tuple[str, str, str]  # (population, scope, scope id)
Handler = Callable[[State, Entry], None]


class Replay:
    """Give it entries with ``apply``, in order, and ``finish`` once."""

    def __init__(self, findings: Findings | None = None, *, full_curves: bool = False) -> None:
        self._state = State() if findings is None else State(findings)
        decisions = Decisions(full_curves)
        self._handlers: Mapping[str, Handler] = {
            "population_opened": registry.population_opened,
            "quota_set": registry.quota_set,
            "dataset_registered": registry.dataset_registered,
            "populations_disjoint": registry.populations_disjoint,
            "policy_activated": registry.policy_activated,
            "key_enrolled": registry.key_enrolled,
            "decision": decisions.decision,
            "adjustment": decisions.adjustment,
            "granted": runs.granted,
            "debit": runs.debit,
            "release": runs.release,
            "quarantine": runs.quarantine,
            "quarantine_resolved": runs.quarantine_resolved,
            "publication": runs.publication,
            "reconciled": runs.reconciled,
        }

    def apply(self, entry: Entry) -> None:
        state = self._state
        if state.step is not None and state.step.kind != entry.kind:
            self._split(entry.index)
        pending = state.step
        try:
            self._handlers[entry.kind](state, entry)
        except BadEntryError as error:
            state.findings.add(error.code, entry.index, error.message)
        if pending is not None and state.step is pending:  # this entry was to go on with that step, and did not
            self._split(entry.index)

    def finish(self) -> None:
        """What can only be said at the end."""
        state = self._state
        if state.step is not None:
            self._split(None)
        _check_reconciled(state)
        for population in state.populations.values():
            if not any(map(le, population.own.debited, population.thresholds)):
                why = f"what was debited in population {population.id} is beyond its budget at every order"
                state.findings.add("budget_exceeded", None, why)

    def _split(self, index: int | None) -> None:
        step, self._state.step = self._state.step, None
        if step is not None:
            why = f"a {step.kind} over several populations stops before {', '.join(step.rest)}"
            self._state.findings.add("split_entries", index, why)

    # --- what it all adds up to --------------------------------------------------------------------------------------

    @property
    def findings(self) -> Findings:
        return self._state.findings

    @property
    def populations(self) -> Mapping[str, Population]:
        return self._state.populations

    @property
    def runs(self) -> Mapping[RunKey, Run]:
        return self._state.runs

    @property
    def keys(self) -> list[EnrolledKey]:
        return self._state.keys

    @property
    def windowed(self) -> int | None:
        """The entry of the last approval to which a quota's window applied."""
        return self._state.windowed

    @property
    def balances(self) -> dict[BalanceKey, tuple[Vector, Vector]]:
        """(committed, debited) of every scope that was ever used."""
        return {
            (population.id, scope, scope_id): (balance.committed, balance.debited)
            for population in self.populations.values()
            for (scope, scope_id), balance in population.balances.items()
        }

    def readings(self, population_id: str, delta: float | None = None) -> tuple[float, float]:
        """(spent, committed) ε of a population at ``delta``; at its budget's own if None."""
        population = self.populations[population_id]
        budget, own = population.budget, population.own
        at = budget.delta if delta is None else delta
        return epsilon_reading(budget, own.debited, at), epsilon_reading(budget, own.committed, at)


def _check_reconciled(state: State) -> None:
    """What reconciliations list is what was debited and adjusted for them."""
    runs, listed = {run for run, _ in state.reconciled}, Counter[str]()
    for index, run, rounds in state.explained:
        listed[run] += rounds
        if run not in runs:
            why = f"run {run} is said to be reconciled, and no entry debits or adjusts it"
            state.findings.add("illegal_transition", index, why)
    for (run, population_id), (rounds, index) in state.reconciled.items():
        if rounds > listed[run]:
            why = f"{rounds} rounds of {run} were reconciled in {population_id}, and {listed[run]} are listed"
            state.findings.add("unexplained_debit", index, why)


def replay(bodies: Iterable[bytes]) -> Replay:
    """Folds entries' bytes, from index 0 on without a gap. A stored ledger is rebuilt by this."""
    folded = Replay()
    for entry in _entries(bodies, folded.findings):
        folded.apply(entry)
    folded.finish()
    return folded


def _entries(bodies: Iterable[bytes], findings: Findings) -> Iterator[Entry]:
    reader = EntryReader()
    for position, body in enumerate(bodies):
        try:
            entry = reader.read(body)
        except BadEntryError as error:
            findings.add(error.code, position, error.message)
            continue
        if entry.index != position:
            code = "missing_entry" if entry.index > position else "repeated_entry"
            findings.add(code, position, f"entry {entry.index} stands where {position} should")
        yield entry
