"""Replays what happens to a reservation: granted, debited, and ended once.

reserved → running → published | released | quarantined → resolved

Invariants
- A debit starts where the last one ended, is under the run's own grant and token, and never exceeds the reservation.
- Undebited rounds alone are given back; a debit is final (privacy rule 12).
- Rounds are given back only by whom, and for reasons, that nothing private led to; the reasons are closed lists.
- A publication comes after all of its run's debits, once, and nothing follows an end.
- Only reconciliation debits without a grant in the log: the grant's entry may be among those that were lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from governance.ledger import facts as read
from governance.ledger.entry_reader import Entry
from governance.ledger.findings import BadEntryError, shown
from governance.ledger.replay_registry import population
from governance.ledger.replay_state import Run, State, Step

STEPS = frozenset({"granted", "debit", "release", "quarantine", "quarantine_resolved", "publication"})
_OPEN = ("reserved", "running")
# Copied, because the verifier imports nothing of the service; a test compares them.
EVIDENCE = ("host_lost", "power_loss", "process_killed", "network_lost", "operator_stopped")
METRICS = ("holdout_loss", "holdout_accuracy", "holdout_examples", "holdout_mean_absolute_error")


def run_of(state: State, entry: Entry) -> Run:
    """The run that an entry is about; of a run over several populations, the entries must be one step."""
    run_id, population_id = read.subject(entry, "run_id"), read.subject(entry, "population_id")
    run = state.runs.get((run_id, population_id))
    if run is None:
        population(state, entry)
        code = {"publication": "publication_without_debits"}.get(entry.kind, "illegal_transition")
        raise BadEntryError(code, f"run {shown(run_id)} was never approved in population {population_id}")
    if len(run.group) > 1:
        _next_of_step(state, entry, run)
    subjects = entry.subjects
    if subjects.get("project_id") != run.project_id or subjects.get("researcher_id") != run.researcher_id:
        raise BadEntryError("illegal_transition", f"run {run_id} is of another project or researcher")
    return run


def _next_of_step(state: State, entry: Entry, run: Run) -> None:
    what = (run.id, entry.at)
    step = Step(entry.kind, what, run.group, {}) if state.step is None else state.step
    if step.what != what or step.rest[0] != run.population.id:
        state.step = None
        raise BadEntryError("split_entries", f"run {run.id}: its populations do not follow one another in order")
    state.step = Step(entry.kind, what, step.rest[1:], {}) if len(step.rest) > 1 else None


def granted(state: State, entry: Entry) -> None:
    run = run_of(state, entry)
    grant, token = read.text(entry.facts, "grant"), read.integer(entry.facts, "fencing_token", 1)
    read.text(entry.facts, "runner")
    if run.state != "reserved" or run.grant is not None:
        raise BadEntryError("illegal_transition", f"run {run.id} is granted while it is {run.state}")
    again = state.grants.get(grant) == run.id  # the same grant, in another population
    if not (token == state.fencing_token if again else token > state.fencing_token):
        why = f"fencing token {token} comes after {state.fencing_token}: tokens must increase"
        raise BadEntryError("stale_grant", why)
    if state.grants.setdefault(grant, run.id) != run.id:
        raise BadEntryError("stale_grant", f"grant {shown(grant)} of run {run.id} was another run's before")
    state.fencing_token = token
    run.state, run.grant, run.fencing_token = "running", grant, token


def debit(state: State, entry: Entry) -> None:
    run, facts = run_of(state, entry), entry.facts
    first, rounds = read.integer(facts, "first_round"), read.integer(facts, "rounds", 1)
    grant, token, is_reconciled = _grant(entry, run)
    if first < run.rounds_debited:
        why = f"rounds from {first} on were debited before: {run.rounds_debited} rounds of {run.id} are"
        raise BadEntryError("debited_twice", why)
    if first > run.rounds_debited:
        why = f"the debit starts at round {first}, and {run.rounds_debited} rounds of {run.id} are debited"
        raise BadEntryError("debit_gap", why)
    after = first + rounds
    if after > run.rounds:
        raise BadEntryError("over_debited", f"{after} rounds of {run.id} are debited and {run.rounds} reserved")
    if read.integer(facts, "rounds_debited") != after:
        raise BadEntryError("bad_facts", f"rounds_debited = {facts['rounds_debited']}: {after} are, with this debit")
    charged, times = run.charged, _whole(run, rounds)
    if is_reconciled:
        run.is_reconciled = True
        state.reconcile((run.id, run.population.id), rounds, entry.index)
    if charged is not None:
        for balance in run.balances:
            balance.debit(charged, times)
    run.rounds_debited, run.grant, run.fencing_token = after, grant, token


def _grant(entry: Entry, run: Run) -> tuple[str, int, bool]:
    """Grant and token of a debit, which are the run's own, and whether it is a reconciliation's."""
    grant, token = read.text(entry.facts, "grant"), read.integer(entry.facts, "fencing_token", 1)
    reconciled = "reconciled" in entry.facts and read.boolean(entry.facts, "reconciled")
    if reconciled:
        if run.state not in (*_OPEN, "quarantined"):
            raise BadEntryError("illegal_transition", f"run {run.id} is {run.state}: nothing more is debited from it")
    elif run.state != "running":
        raise BadEntryError("illegal_transition", f"run {run.id} is {run.state}: nothing can be debited from it")
    unknown = reconciled and run.grant is None
    if not unknown and (grant, token) != (run.grant, run.fencing_token):
        raise BadEntryError("stale_grant", f"the debit is under another grant or fencing token than run {run.id} has")
    return grant, token, reconciled


def release(state: State, entry: Entry) -> None:
    run = run_of(state, entry)
    why, by = read.text(entry.facts, "why"), read.text(entry.facts, "by")
    if run.state not in _OPEN:
        raise BadEntryError("illegal_transition", f"run {run.id} is {run.state}: it cannot be released")
    released = _given_back(entry, run)
    if not _may_release(run, why, by):
        raise BadEntryError("forbidden_release", f"run {run.id} ({run.state}) is released by {shown(by)}: {shown(why)}")
    _give_back(run, released, "released")


def _may_release(run: Run, why: str, by: str) -> bool:
    """Privacy rule 12: only on a decision that nothing private led to."""
    if why == "cancelled":  # its own researcher has seen nothing private; of a queued run, nobody has
        return run.grant is None or by == run.researcher_id
    untouched = run.rounds_debited == 0
    if why == "failed_before_data":
        return untouched and run.state == "running" and by == "runner"
    return why == "restored" and untouched and by == "reconciliation"


def quarantine(state: State, entry: Entry) -> None:
    run = run_of(state, entry)
    if run.state not in _OPEN:
        raise BadEntryError("illegal_transition", f"run {run.id} is {run.state}: it cannot be quarantined")
    held, debited = read.integer(entry.facts, "rounds_held"), read.integer(entry.facts, "rounds_debited")
    if (held, debited) != (run.undebited, run.rounds_debited):
        why = f"{held} rounds held and {debited} debited: of {run.id} they are {run.undebited} and {run.rounds_debited}"
        raise BadEntryError("illegal_transition", why)
    run.state = "quarantined"


def quarantine_resolved(state: State, entry: Entry) -> None:
    run = run_of(state, entry)
    evidence = read.mapping(entry.facts, "evidence")
    kind = read.text(evidence, "kind")
    read.text(evidence, "sha256")
    read.text(entry.facts, "by")
    if run.state != "quarantined":
        raise BadEntryError("illegal_transition", f"run {run.id} is {run.state}, not in quarantine")
    if kind not in EVIDENCE:
        raise BadEntryError("forbidden_release", f"{shown(kind)} is no evidence of an end that nothing private led to")
    _give_back(run, _given_back(entry, run), "resolved")


def publication(state: State, entry: Entry) -> None:
    run, facts = run_of(state, entry), entry.facts
    grant, token = read.text(facts, "grant"), read.integer(facts, "fencing_token", 1)
    rounds = read.integer(facts, "rounds", 1)
    read.text(facts, "weights_sha256")
    read.text(facts, "statement_sha256")
    metrics = read.sequence(facts, "metrics")
    if run.state == "published":
        raise BadEntryError("published_twice", f"run {run.id} has published already")
    if run.state != "running":
        raise BadEntryError("illegal_transition", f"run {run.id} is {run.state}: it cannot publish")
    if not run.rounds_debited == run.rounds == rounds:
        why = f"run {run.id} publishes {rounds} rounds: {run.rounds} are reserved, {run.rounds_debited} debited"
        raise BadEntryError("publication_without_debits", why)
    if (grant, token) != (run.grant, run.fencing_token):
        raise BadEntryError("stale_grant", f"the publication is under another grant or token than run {run.id} has")
    if run.is_reconciled:
        why = f"run {run.id} publishes what a reconciliation debited: its grant had ended"
        raise BadEntryError("illegal_transition", why)
    _check_metrics(state, entry, run, metrics)
    run.state, run.charged = "published", None
    run.population.publications += 1


def _check_metrics(state: State, entry: Entry, run: Run, metrics: Sequence[Any]) -> None:
    """Privacy rule 9: nothing but figures of a public hold-out is published beside the weights."""
    if unknown := [name for name in metrics if type(name) is not str or name not in METRICS]:
        state.findings.add("private_metrics", entry.index, f"{shown(unknown[0])} is no metric of a public hold-out")
    elif metrics and not any(state.runs[(run.id, name)].has_holdout for name in run.group):
        why = f"run {run.id} publishes metrics, and none of its data has a public hold-out"
        state.findings.add("private_metrics", entry.index, why)


def reconciled(state: State, entry: Entry) -> None:
    witness = read.mapping(entry.facts, "witness")
    read.integer(witness, "size")
    read.text(witness, "root")
    read.integer(entry.facts, "recovered_entries")
    read.sequence(entry.facts, "reports")
    read.text(entry.facts, "by")
    for item in read.sequence(entry.facts, "debited"):
        if type(item) is not dict:
            raise BadEntryError("bad_facts", "debited must be a list of runs and rounds")
        state.explained.append((entry.index, read.text(item, "run"), read.integer(item, "rounds", 1)))


def _given_back(entry: Entry, run: Run) -> int:
    released, debited = read.integer(entry.facts, "rounds_released"), read.integer(entry.facts, "rounds_debited")
    if released > run.undebited:
        why = f"{released} rounds of {run.id} are given back, and only {run.undebited} are not debited"
        raise BadEntryError("freed_debited_round", why)
    if released < run.undebited:
        why = f"{released} rounds of {run.id} are given back, and {run.undebited} are not debited: all of them are"
        raise BadEntryError("illegal_transition", why)
    if debited != run.rounds_debited:
        why = f"rounds_debited = {debited}: of run {run.id} {run.rounds_debited} are"
        raise BadEntryError("illegal_transition", why)
    return released


def _give_back(run: Run, rounds: int, state: str) -> None:
    times, charged = _whole(run, rounds), run.charged
    if charged is not None:
        for balance in run.balances:
            balance.commit(charged, -times)
    run.rounds_released += rounds
    run.state, run.charged = state, None


def _whole(run: Run, rounds: int) -> int:
    times, rest = divmod(rounds, run.rounds_per_charge)
    if rest:
        why = f"{rounds} rounds of {run.id}: its event is debited and released whole ({run.rounds_per_charge} rounds)"
        raise BadEntryError("illegal_transition", why)
    return times
