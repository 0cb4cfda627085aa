"""Verifies an export of the ledger, offline: bytes, order, tree, signatures, witnesses, state machine and every ε.

(1) Every line is an entry in canonical form, and their indexes are 0, 1, 2, …
(2) The state machine is replayed: each entry must follow from those before it, and the filter is asked again.
(3) The tree over the lines has the root of every checkpoint, at its size.
(4) Checkpoints are signed by the log's key in force, up to an anchor of trust, and co-signed by the witnesses.
(5) What the auditor had before (an export, checkpoints) is continued.
(6) Approvals under a window were made when they say, as far as later entries, witnesses and the auditor's clock tell.

Invariants
- One pass, in memory that does not grow with the entries' bytes.
- Whatever the files hold, the answer is a ``Report``; only files that cannot be read at all raise (``OSError``).

This module does not: open files by name, print, or talk to anybody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import BinaryIO

from accountant.errors import AccountantError
from accountant.odometer import epsilon_reading
from governance.ledger.entry_reader import EntryReader
from governance.ledger.findings import BadEntryError, Findings
from governance.ledger.notes import VerifierKey
from governance.ledger.replay import Replay
from governance.ledger.replay_state import Balance, Population
from governance.ledger.verify_dates import Dates
from governance.ledger.verify_export import Earlier, Order, Tree, lines
from governance.ledger.verify_signatures import Judge, Judged, Signed

_PROGRESS_EVERY = 2000  # lines


@dataclass(frozen=True, slots=True)
class Known:
    """What the auditor brings along. ``leaf_hashes``: of all entries in order, where a node has listed them."""

    checkpoints: Sequence[Signed] = ()
    log_key: VerifierKey | None = None
    witness_keys: Sequence[VerifierKey] = ()
    earlier_export: BinaryIO | None = None
    leaf_hashes: Iterable[bytes] | None = None
    now: datetime | None = None  # by the auditor's clock; None: nothing is compared with it
    full_curves: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """One scope's cap and odometer, at the population's δ."""

    scope: str
    scope_id: str
    epsilon: float  # the cap: a guarantee for a population, a quota otherwise
    spent_epsilon: float
    committed_epsilon: float


@dataclass(frozen=True, slots=True)
class PopulationReport:
    id: str
    epsilon: float
    delta: float
    relation: str
    spent_epsilon: float
    committed_epsilon: float
    decisions: int
    refusals: int
    runs: dict[str, int]  # by state
    publications: int
    quotas: tuple[Reading, ...]


@dataclass(slots=True)
class Report:
    findings: Findings
    entries: int = 0
    root: str = ""
    anchor: str = ""
    is_pinned: bool = False
    checkpoints: list[Judged] = field(default_factory=list)
    populations: list[PopulationReport] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return self.findings.total == 0


def verify(
    file: BinaryIO,
    known: Known,
    *,
    findings: Findings | None = None,
    progress: Callable[[int], None] = lambda read: None,
) -> Report:
    """``findings``: what was found already, before the entries were read. ``progress`` gets numbers of bytes."""
    found = Findings() if findings is None else findings
    replay = Replay(found, full_curves=known.full_curves)
    sizes = {one.checkpoint.size for one in known.checkpoints}
    tree, dates = Tree(sizes), Dates(found, sizes)
    _stream(file, known, replay, tree, dates, progress)
    replay.finish()
    judge = Judge(found, replay.keys, known.log_key, known.witness_keys, tree.roots, tree.size)
    report = Report(found, tree.size, tree.root().hex(), checkpoints=judge.judge(known.checkpoints))
    for one in report.checkpoints:
        if tree.roots.get(one.size, b"").hex() == one.root:
            for witness, at in one.cosigned:
                if at is not None:
                    dates.cosigned(one.size, witness, at)
    dates.finish(known.now)
    if known.log_key is not None:
        report.anchor, report.is_pinned = known.log_key.encode(), True
    elif replay.keys:
        report.anchor = replay.keys[0].verifier_key
    states: dict[str, Counter[str]] = {}
    for run in replay.runs.values():
        states.setdefault(run.population.id, Counter())[run.state] += 1
    report.populations = [_population(one, states.get(one.id, Counter())) for one in replay.populations.values()]
    return report


def _stream(
    file: BinaryIO, known: Known, replay: Replay, tree: Tree, dates: Dates, progress: Callable[[int], None]
) -> None:
    findings = replay.findings
    reader, order = EntryReader(), Order(findings)
    earlier = None if known.earlier_export is None else Earlier(known.earlier_export, findings)
    leaves = None if known.leaf_hashes is None else iter(known.leaf_hashes)
    read = 0
    for position, line in enumerate(lines(file)):
        leaf = tree.add(line)
        if earlier is not None:
            earlier.see(line)
        if leaves is not None and next(leaves, None) != leaf:
            findings.add("changed_entry", position, f"entry {position}: its bytes are not those of its leaf hash")
        try:
            entry = reader.read(line)
        except BadEntryError as error:
            findings.add(error.code, position, error.message)
            order.skip()
        else:
            order.see(entry.index)
            replay.apply(entry)
            dates.see(entry, replay.windowed)
        dates.keep(tree.size)
        read += len(line) + 1
        if position % _PROGRESS_EVERY == 0:
            progress(read)
    progress(read)
    order.finish()
    if earlier is not None:
        earlier.finish(tree.size)
    if leaves is not None and next(leaves, None) is not None:
        findings.add("missing_entry", tree.size, f"there are more leaf hashes than the {tree.size} entries")


def _population(population: Population, states: Counter[str]) -> PopulationReport:
    budget = population.budget
    spent, committed = _epsilons(population, population.own)
    return PopulationReport(
        id=population.id,
        epsilon=budget.epsilon,
        delta=budget.delta,
        relation=budget.relation,
        spent_epsilon=spent,
        committed_epsilon=committed,
        decisions=population.decisions,
        refusals=population.refusals,
        runs=dict(states),
        publications=population.publications,
        quotas=tuple(
            Reading(*scope, quota.epsilon, *_epsilons(population, population.balance(scope)))
            for scope, quota in population.quotas.items()
        ),
    )


def _epsilons(population: Population, balance: Balance) -> tuple[float, float]:
    """(spent, committed); infinite where an adjustment left the range of amounts."""
    budget = population.budget
    try:
        return (
            epsilon_reading(budget, balance.debited, budget.delta),
            epsilon_reading(budget, balance.committed, budget.delta),
        )
    except AccountantError:
        return float("inf"), float("inf")
