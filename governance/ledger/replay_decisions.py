"""Replays decisions: an approval's entry is the reservation, so the filter is asked again, entry by entry.

Invariants
- What was approved must have been admitted by the population's filter, and by every quota in force, as they stood when
  the entry was appended; a schedule counts at the decision's own time. (Balances only fall between a decision and its
  entry if something was released, which makes room.)
- What was charged is what the entry says it runs with (``replay_parameters``).
- A decision over several populations is one entry in each, one after the other, all or nothing, and only over
  populations that were checked to be disjoint with the very versions of the datasets.
- A wrong decision is named and then still counted: what was reserved was reserved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import combinations

from accountant.errors import AccountantError
from accountant.filter import Budget, Vector
from governance.ledger import facts as read
from governance.ledger.entry_reader import Entry
from governance.ledger.findings import BadEntryError, shown
from governance.ledger.replay_charge import Charge, Charges
from governance.ledger.replay_parameters import difference
from governance.ledger.replay_registry import population
from governance.ledger.replay_state import Charged, Population, Quota, Run, Scope, State, Step, fits, in_range
from governance.ledger.schedule import unlocked_epsilon

_OUTCOMES = ("approved", "clamped", "review", "refused")
_APPROVALS = ("approved", "clamped")
_CURVES_PENDING = 1024


class Decisions:
    """Replays decisions and adjustments; it remembers the charges that it has read."""

    def __init__(self, full_curves: bool = False) -> None:
        self._charges = Charges(full_curves)

    def decision(self, state: State, entry: Entry) -> None:
        within, facts = population(state, entry), entry.facts
        outcome = read.text(facts, "outcome")
        decision = read.text(facts, "decision")
        if outcome not in _OUTCOMES:
            raise BadEntryError("bad_facts", f"outcome = {shown(outcome)}: must be one of {', '.join(_OUTCOMES)}")
        goes_on = state.step is not None and state.step.what[0] == decision
        group, datasets = _step(state, entry, within)
        if not goes_on and decision in state.decisions:
            state.findings.add("illegal_transition", entry.index, f"decision {shown(decision)} was recorded before")
        state.decisions.add(decision)
        approved = outcome in _APPROVALS
        if approved != (facts.get("charge") is not None) or approved != ("run_id" in entry.subjects):
            raise BadEntryError("bad_facts", "an approval has a charge and a run, and a refusal has neither")
        within.decisions += 1
        if not approved:
            within.refusals += 1
            return
        in_force = None if state.policy is None else state.policy[1]
        if in_force is None or facts.get("policy_revision") != in_force:
            stated = shown(facts.get("policy_revision"))
            why = f"approved under policies {stated} while {in_force or 'none'} were in force"
            state.findings.add("illegal_transition", entry.index, why)
        if state.step is None and len(group) > 1:
            _check_disjoint(state, entry, group, datasets)
        has_holdout = any(
            version in known.holdouts
            for dataset, version in datasets.items()
            if (known := state.datasets[dataset]).population_id == within.id
        )
        self._reserve(state, entry, within, group, has_holdout)

    def _reserve(
        self, state: State, entry: Entry, within: Population, group: tuple[str, ...], has_holdout: bool
    ) -> None:
        run_id = read.subject(entry, "run_id")
        project, researcher = read.subject(entry, "project_id"), read.subject(entry, "researcher_id")
        known_group = state.groups.get(run_id, group)
        if known_group != group:
            why = f"run {run_id} was reserved in {', '.join(known_group)}, by a decision that does not name {within.id}"
            raise BadEntryError("not_disjoint", why)
        if (run_id, within.id) in state.runs:
            raise BadEntryError("illegal_transition", f"run {run_id} is reserved a second time")
        charge = self._charges.read(read.mapping(entry.facts, "charge"), within)
        _report(state, entry, charge)
        _check_parameters(state, entry, charge, group)
        scopes = (("population", within.id), ("project", project), ("researcher", researcher))
        balances = tuple([within.balance(scope) for scope in scopes])
        times = charge.event.rounds // charge.charged.rounds_per_charge
        total = within.own.after(charge.charged, times)
        if not in_range(total):
            raise BadEntryError("bad_facts", "the reservation leaves 127 bits")
        refused = [] if fits(within.thresholds, total) else [f"the budget of population {within.id}"]
        refused += _refusing_quotas(within, scopes, charge.charged, times, entry.at)
        for name in refused:
            state.findings.add("over_admitted", entry.index, f"{name} does not admit what was approved")
        if any((quota := within.quotas.get(scope)) is not None and quota.schedule is not None for scope in scopes):
            state.windowed = entry.index
        for balance in balances:
            balance.commit(charge.charged, times)
        if self._charges.computed > _CURVES_PENDING:
            self._charges.computed = 0
            state.add_up()
        state.groups[run_id] = group
        state.runs[(run_id, within.id)] = Run(
            id=run_id,
            population=within,
            project_id=project,
            researcher_id=researcher,
            group=group,
            balances=balances,
            charged=charge.charged,
            rounds=charge.event.rounds,
            rounds_per_charge=charge.charged.rounds_per_charge,
            has_holdout=has_holdout,
        )

    def adjustment(self, state: State, entry: Entry) -> None:
        """Rounds that a runner ran and whose entries were lost: they ran, so no filter is asked."""
        within = population(state, entry)
        run, rounds = read.text(entry.facts, "run"), read.integer(entry.facts, "rounds", 1)
        read.text(entry.facts, "by")
        named = {name: entry.facts[name] for name in _CHARGE_FIELDS if name in entry.facts}
        charge = self._charges.read(named, within)
        _report(state, entry, charge)
        times, rest = divmod(rounds, charge.charged.rounds_per_charge)
        if rest or rounds > charge.event.rounds:
            raise BadEntryError("bad_facts", f"an adjustment of {rounds} rounds of an event of {charge.event.rounds}")
        total = within.own.after(charge.charged, times)
        if not in_range(total):
            raise BadEntryError("bad_facts", "the adjustment leaves 127 bits")
        within.own.commit(charge.charged, times)
        within.own.debit(charge.charged, times)
        state.reconcile((run, within.id), rounds, entry.index)


_CHARGE_FIELDS = ("event", "accountant", "units_per_round", "rounds_per_charge")


def _report(state: State, entry: Entry, charge: Charge) -> None:
    if charge.too_low:
        why = "the charge is below what its event costs, at one order or more"
        state.findings.add("under_charged", entry.index, why)
    if charge.mismatch is not None:
        state.findings.add("curve_mismatch", entry.index, charge.mismatch)


def _check_parameters(state: State, entry: Entry, charge: Charge, group: tuple[str, ...]) -> None:
    declared = sum(state.populations[name].declared_size for name in group)
    try:
        why = difference(charge.event, read.mapping(entry.facts, "effective"), declared)
    except BadEntryError as error:
        state.findings.add(error.code, entry.index, error.message)
        return
    if why is not None:
        state.findings.add("under_charged", entry.index, why)


def _step(state: State, entry: Entry, within: Population) -> tuple[tuple[str, ...], dict[str, int]]:
    """The populations of the whole decision, and the versions of datasets that it has used so far.

    ``state.step`` says afterwards which entries of the decision are still to come.
    """
    subjects, facts = entry.subjects, entry.facts
    group = within.alone if "populations" not in facts else read.names(facts, "populations")
    if within.id not in group or ("populations" in facts and len(group) < 2):
        raise BadEntryError("bad_facts", "populations must be two or more, and the entry's among them")
    used = _datasets(state, entry, within)
    if len(group) == 1:
        return group, used
    if unknown := [name for name in group if name not in state.populations]:
        raise BadEntryError("illegal_transition", f"population {shown(unknown[0])} was never opened")
    who = (subjects.get("run_id"), subjects.get("project_id"), subjects.get("researcher_id"))
    what = (facts["decision"], facts["outcome"], entry.at, *who, *group)
    expected = Step("decision", what, group, {}) if state.step is None else state.step
    if expected.what != what or expected.rest[0] != within.id:
        state.step = None
        raise BadEntryError("split_entries", f"decision {shown(facts['decision'])} is not one step over {len(group)}")
    used = expected.datasets | used
    state.step = Step("decision", what, expected.rest[1:], used) if len(expected.rest) > 1 else None
    return group, used


def _datasets(state: State, entry: Entry, within: Population) -> dict[str, int]:
    used = {read.subject(entry, "dataset_id"): read.integer(entry.facts, "dataset_version", 1)}
    if "joined" in entry.facts:
        for item in read.sequence(entry.facts, "joined"):
            if type(item) is not dict:
                raise BadEntryError("bad_facts", "joined must be a list of datasets and versions")
            used[read.text(item, "dataset")] = read.integer(item, "version", 1)
    for dataset_id, version in used.items():
        known = state.datasets.get(dataset_id)
        if known is None or known.population_id != within.id or version > known.version:
            why = f"version {version} of dataset {shown(dataset_id)} is not registered in population {within.id}"
            raise BadEntryError("illegal_transition", why)
    return used


def _check_disjoint(state: State, entry: Entry, group: tuple[str, ...], used: dict[str, int]) -> None:
    for pair in combinations(sorted(group), 2):
        checked = state.disjoint.get(pair, {})
        for dataset_id, version in used.items():
            if state.datasets[dataset_id].population_id in pair and checked.get(dataset_id) != version:
                why = f"{pair[0]} and {pair[1]} were not checked to be disjoint with {dataset_id}, version {version}"
                state.findings.add("not_disjoint", entry.index, why)
                return


def _refusing_quotas(within: Population, scopes: Sequence[Scope], charged: Charged, times: int, at: str) -> list[str]:
    """The quotas in force that do not admit so many charge units more."""
    return [
        f"the quota of {scope[0]} {scope[1]}"
        for scope in scopes
        if (quota := within.quotas.get(scope)) is not None
        and not _quota_fits(within.budget, quota, at, within.balance(scope).after(charged, times))
    ]


def _quota_fits(budget: Budget, quota: Quota, at: str, total: Vector) -> bool:
    epsilon = quota.epsilon if quota.schedule is None else _unlocked(quota, at)
    thresholds = _quota_thresholds(budget, epsilon)
    return thresholds is not None and fits(thresholds, total)


def _unlocked(quota: Quota, at: str) -> float:
    starts_at, initial, step, period = quota.schedule or ("", 0.0, 0.0, 1)
    return unlocked_epsilon(
        quota.epsilon,
        starts_at=read.moment(starts_at),
        initial_epsilon=initial,
        step_epsilon=step,
        period_days=period,
        at=read.moment(at),
    )


@lru_cache(maxsize=512)
def _quota_thresholds(budget: Budget, epsilon: float) -> Vector | None:
    try:
        return replace(budget, epsilon=epsilon).thresholds()
    except AccountantError:  # so little is unlocked that no order could admit anything
        return None
