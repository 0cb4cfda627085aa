"""Replays what the owner and the operator declare: populations, quotas, datasets, policies, keys.

Invariants
- A population is opened once, for life; nothing else sets its budget (privacy rule 1).
- Versions of a dataset, and sets of policies, are numbered without gaps; data belongs to one population.
"""

from __future__ import annotations

from accountant.errors import AccountantError
from accountant.filter import Budget
from governance.ledger import facts as read
from governance.ledger.entry_reader import Entry
from governance.ledger.findings import BadEntryError, shown
from governance.ledger.replay_state import Dataset, EnrolledKey, Population, Quota, State

_SMALLEST_POPULATION = 2
SCOPES = ("population", "project", "researcher")


def population(state: State, entry: Entry) -> Population:
    """The population that an entry is about. Raises ``BadEntryError`` if it was never opened."""
    population_id = read.subject(entry, "population_id")
    found = state.populations.get(population_id)
    if found is None:
        raise BadEntryError("illegal_transition", f"population {shown(population_id)} was never opened")
    return found


def population_opened(state: State, entry: Entry) -> None:
    population_id = read.subject(entry, "population_id")
    size = read.integer(entry.facts, "declared_size", _SMALLEST_POPULATION)
    read.text(entry.facts, "owner")
    if population_id in state.populations:
        raise BadEntryError(
            "illegal_transition", f"population {population_id} is opened again: a budget is for life (privacy rule 1)"
        )
    try:
        budget = Budget.from_document(entry.facts.get("budget"))
        thresholds = budget.thresholds()
    except AccountantError as error:
        raise BadEntryError("bad_facts", f"the budget is none: {shown(str(error))}") from error
    opened = Population(population_id, budget, thresholds, entry.index, size, (population_id,))
    opened.balance(("population", population_id))
    state.populations[population_id] = opened


def quota_set(state: State, entry: Entry) -> None:
    within = population(state, entry)
    scope, scope_id = read.text(entry.facts, "scope"), read.text(entry.facts, "scope_id")
    epsilon = read.number(entry.facts, "epsilon")
    read.text(entry.facts, "by")
    if scope not in SCOPES or (scope == "population" and scope_id != within.id):
        raise BadEntryError("bad_facts", f"a quota of {shown(scope)} {shown(scope_id)}: there is no such scope")
    if not 0 < epsilon <= within.budget.epsilon:
        why = (
            f"a quota's epsilon of {epsilon!r}: must be above 0 and at most the population's {within.budget.epsilon!r}"
        )
        raise BadEntryError("illegal_transition", why)
    within.quotas[(scope, scope_id)] = Quota(epsilon, _schedule(entry))


def _schedule(entry: Entry) -> tuple[str, float, float, int] | None:
    if entry.facts.get("schedule") is None:
        return None
    schedule = read.mapping(entry.facts, "schedule")
    read.moment(schedule.get("starts_at"))
    initial, step = read.number(schedule, "initial_epsilon"), read.number(schedule, "step_epsilon")
    if initial < 0 or step < 0:
        raise BadEntryError("bad_facts", "a schedule's initial and step epsilon must not be negative")
    period = read.integer(schedule, "period_days", 1)
    if period > 10**6:
        raise BadEntryError("bad_facts", f"a schedule's period of {period} days")
    return schedule["starts_at"], initial, step, period


def dataset_registered(state: State, entry: Entry) -> None:
    within, dataset_id = population(state, entry), read.subject(entry, "dataset_id")
    version = read.integer(entry.facts, "version", 1)
    handle, has_holdout = read.text(entry.facts, "version_handle"), read.boolean(entry.facts, "has_public_holdout")
    read.integer(entry.facts, "max_examples_per_unit", 1)
    known = state.datasets.get(dataset_id)
    if known is not None and known.population_id != within.id:
        raise BadEntryError("illegal_transition", f"dataset {dataset_id} moves to another population (privacy rule 1)")
    if version != (1 if known is None else known.version + 1):
        raise BadEntryError("illegal_transition", f"version {version} of dataset {dataset_id} does not come next")
    if state.handles.setdefault(handle, within.id) != within.id:
        why = f"the data {shown(handle)} is in population {state.handles[handle]} already (privacy rule 1)"
        raise BadEntryError("illegal_transition", why)
    if known is None:
        known = state.datasets[dataset_id] = Dataset(within.id, version, set())
    known.version = version
    if has_holdout:
        known.holdouts.add(version)


def populations_disjoint(state: State, entry: Entry) -> None:
    pair = read.names(entry.facts, "populations")
    versions = read.versions(entry.facts, "versions")
    if len(pair) != 2 or read.subject(entry, "population_id") != pair[0]:
        raise BadEntryError("bad_facts", "populations must be two, the first of which the entry is about")
    for name in pair:
        if name not in state.populations:
            raise BadEntryError("illegal_transition", f"population {shown(name)} was never opened")
    for dataset_id, version in versions.items():
        known = state.datasets.get(dataset_id)
        if known is None or known.population_id not in pair or version > known.version:
            raise BadEntryError(
                "illegal_transition", f"version {version} of dataset {shown(dataset_id)} is not of these populations"
            )
    state.disjoint[tuple(sorted(pair))] = versions  # a newer check takes the older one's place


def policy_activated(state: State, entry: Entry) -> None:
    revision, sequence = read.text(entry.facts, "revision"), read.integer(entry.facts, "sequence", 1)
    read.mapping(entry.facts, "digests")
    read.text(entry.facts, "by")
    expected = 1 if state.policy is None else state.policy[0] + 1
    if sequence != expected:
        raise BadEntryError("illegal_transition", f"policies number {sequence} do not come next ({expected} does)")
    state.policy = sequence, revision


def key_enrolled(state: State, entry: Entry) -> None:
    read.text(entry.facts, "by")
    key = EnrolledKey(entry.index, read.text(entry.facts, "origin"), read.text(entry.facts, "verifier_key"))
    if state.keys and state.keys[0].origin != key.origin:
        raise BadEntryError("illegal_transition", f"the log's origin changes to {shown(key.origin)}")
    if any(known.verifier_key == key.verifier_key for known in state.keys):
        raise BadEntryError("illegal_transition", "a key is enrolled a second time")
    state.keys.append(key)
