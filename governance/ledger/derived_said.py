"""What entries say that the rows beside them must hold, by table and primary key.

Invariants
- A column is named only where entries determine it; where they leave a choice, the expectation is a test (``Holds``).
- Of what a restore cannot bring back no more is expected than a reconciliation makes of it, and only of what was
  written before one.

This module does not: read tables (``derived.py``), or judge entries (``replay``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from accountant.codec import canonical_bytes
from accountant.errors import NotCanonicalError
from accountant.filter import Budget
from governance.ledger import vectors
from governance.ledger.entry_reader import Entry
from governance.ledger.replay import Replay

Key = tuple[Any, ...]
Holds = Callable[[Any], bool]
Rows = dict[Key, dict[str, Any]]  # a value, or ``Holds``

TABLES = (
    "populations",
    "quotas",
    "datasets",
    "dataset_versions",
    "disjoint_populations",
    "policy_activations",
    "runs",
    "run_datasets",
    "reservations",
    "grants",
    "debits",
    "results",
    "log_head",
    "balances",
)
RESERVATION_STATES = {  # of a replayed run
    "reserved": "open",
    "running": "open",
    "quarantined": "quarantined",
    "resolved": "closed",
    "released": "closed",
    "published": "closed",
}
_CHARGED = ("rounds", "sampling_probability", "noise_multiplier")  # of an event, and of the template that it ran by


class Said:
    """``read`` every entry, then ``finish``; then ``rows`` is complete."""

    def __init__(self) -> None:
        self.rows: dict[str, Rows] = {name: {} for name in TABLES}
        self.recovered_before = 0  # entries below this one may have come back without the rest of their rows
        self.published: dict[str, int] = {}
        self._released: dict[str, tuple[str, int]] = {}  # run -> why, entry
        self._events: dict[str, dict[str, Any]] = {}
        self._templates: dict[str, str | None] = {}
        self._fencing = 0

    def read(self, entry: Entry) -> None:
        """Raises ``KeyError``, ``TypeError``, ``ValueError`` where an entry lacks what it should say."""
        handler = getattr(self, f"_{entry.kind}", None)
        if handler is not None:
            handler(entry.subjects, entry.facts, entry.index)

    # --- by kind of entry --------------------------------------------------------------------------------------------

    def _population_opened(self, subjects: Any, facts: Any, index: int) -> None:
        budget = canonical_bytes(Budget.from_document(facts["budget"]).to_document()).decode()
        row = {"owner_id": facts["owner"], "declared_size": facts["declared_size"], "budget": budget}
        self.rows["populations"][(subjects["population_id"],)] = row

    def _quota_set(self, subjects: Any, facts: Any, index: int) -> None:
        schedule = facts.get("schedule") or {}
        names = ("starts_at", "initial_epsilon", "step_epsilon", "period_days")
        row = {"epsilon": facts["epsilon"]} | {name: schedule.get(name) for name in names}
        self.rows["quotas"][(subjects["population_id"], facts["scope"], facts["scope_id"])] = row

    def _dataset_registered(self, subjects: Any, facts: Any, index: int) -> None:
        dataset_id = subjects["dataset_id"]
        row = {"population_id": subjects["population_id"], "policy_id": facts["policy"]}
        self.rows["datasets"][(dataset_id,)] = row | {"max_examples_per_unit": facts["max_examples_per_unit"]}
        version: dict[str, Any] = {"version_handle": facts["version_handle"]}
        if not facts["has_public_holdout"]:  # one that it had is lost with a restore, for no entry names it
            version["holdout_handle"] = None
        self.rows["dataset_versions"][(dataset_id, facts["version"])] = version

    def _populations_disjoint(self, subjects: Any, facts: Any, index: int) -> None:
        row = {"versions": json.dumps(facts["versions"], sort_keys=True), "entry_index": index}
        self.rows["disjoint_populations"][tuple(facts["populations"])] = row

    def _policy_activated(self, subjects: Any, facts: Any, index: int) -> None:
        row = {"revision": facts["revision"], "digests": json.dumps(facts["digests"], sort_keys=True)}
        self.rows["policy_activations"][(facts["sequence"],)] = row

    def _decision(self, subjects: Any, facts: Any, index: int) -> None:
        charge = facts["charge"]
        if charge is None:
            return
        run_id, population_id, rounds = subjects["run_id"], subjects["population_id"], charge["event"]["rounds"]
        people = {name: subjects[name] for name in ("project_id", "researcher_id")}
        self.rows["reservations"][(run_id, population_id)] = people | {
            "round_curve": vectors.encode([int(units) for units in charge["units_per_round"]]),
            "rounds_per_charge": charge.get("rounds_per_charge", 1),
            "rounds": rounds,
            "entry_index": index,
            "closed_entry": None,
        }
        used = {subjects["dataset_id"]: facts["dataset_version"]}
        used |= {one["dataset"]: one["version"] for one in facts.get("joined", ())}
        for dataset_id, version in used.items():
            self.rows["run_datasets"][(run_id, dataset_id)] = {"version": version, "population_id": population_id}
        self._events[run_id], self._templates[run_id] = charge["event"], facts.get("template_sha256")
        self.rows["runs"][(run_id,)] = people | {
            "population_id": facts.get("populations", [population_id])[0],
            "decision_id": facts["decision"],
            "rounds": rounds,
            "requested": _says(facts["requested"]),
            "effective": _says(facts["effective"]),
        }

    def _granted(self, subjects: Any, facts: Any, index: int) -> None:
        row = {"run_id": subjects["run_id"], "runner_id": facts["runner"], "fencing_token": facts["fencing_token"]}
        self.rows["grants"][(facts["grant"],)] = row
        self._fencing = max(self._fencing, facts["fencing_token"])

    def _debit(self, subjects: Any, facts: Any, index: int) -> None:
        key = (subjects["run_id"], subjects["population_id"], facts["first_round"])
        self.rows["debits"][key] = {"rounds": facts["rounds"], "grant_id": facts["grant"], "entry_index": index}

    def _release(self, subjects: Any, facts: Any, index: int) -> None:
        self._closed(subjects, index)
        self._released[subjects["run_id"]] = facts["why"], index

    def _quarantine_resolved(self, subjects: Any, facts: Any, index: int) -> None:
        self._closed(subjects, index)

    def _publication(self, subjects: Any, facts: Any, index: int) -> None:
        self._closed(subjects, index)
        names = ("weights_sha256", "statement_sha256")
        self.rows["results"][(subjects["run_id"],)] = {name: facts[name] for name in names}
        self.published[subjects["run_id"]] = index

    def _closed(self, subjects: Any, index: int) -> None:
        self.rows["reservations"][(subjects["run_id"], subjects["population_id"])]["closed_entry"] = index

    def _reconciled(self, subjects: Any, facts: Any, index: int) -> None:
        if facts["recovered_entries"]:
            self.recovered_before = index

    # --- what the replay makes of them -------------------------------------------------------------------------------

    def finish(self, folded: Replay) -> None:
        """Adds counts, states and balances."""
        states = {}
        for key, run in folded.runs.items():
            if key not in self.rows["reservations"] or (run.id,) not in self.rows["runs"]:
                continue  # its decision could not be read
            counts = {"rounds_debited": run.rounds_debited, "rounds_released": run.rounds_released}
            self.rows["reservations"][key] |= counts | {"state": RESERVATION_STATES[run.state]}
            states[run.id] = run.state
        for run_id, state in states.items():
            template = _template(self._templates[run_id], self._events[run_id], state)
            self.rows["runs"][(run_id,)] |= {"state": _one_of(self._run_states(run_id, state))} | template
        for row in self.rows["grants"].values():
            row["state"] = "active" if states.get(row["run_id"]) == "running" else "ended"
        self.rows["log_head"][(1,)] = {"fencing": lambda stored: stored >= self._fencing}
        self.rows["balances"] = {
            key: {"committed": vectors.encode(committed), "debited": vectors.encode(debited)}
            for key, (committed, debited) in folded.balances.items()
        }

    def _run_states(self, run_id: str, state: str) -> set[str]:
        if state in ("quarantined", "resolved"):  # which of the two may be private, so no entry says it
            return {"quarantined", "cancelled"}
        if state != "released":
            return {state}
        why, index = self._released[run_id]
        states = {"failed" if why == "failed_before_data" else "cancelled"}
        return states | {"cancelled"} if index < self.recovered_before else states


def _one_of(values: set[str]) -> Holds:
    return lambda stored: stored in values


def _says(facts: Mapping[str, Any]) -> Holds:
    """The stored JSON says the same, and maybe more."""

    def holds(stored: str) -> bool:
        document = json.loads(stored)
        return all(document[name] == value for name, value in facts.items())

    return holds


def _template(digest: str | None, event: Mapping[str, Any], state: str) -> dict[str, Holds]:
    """What a runner would be told. Entries of the first release hold no digest; the charge binds what it cost."""

    def holds(stored: str) -> bool:
        document = json.loads(stored)
        if not document:  # came back without it: no runner can be given the run
            return state not in ("reserved", "running")
        parameters = document["parameters"]
        charged = all(parameters[name] == event[name] for name in _CHARGED if name in event)
        return charged and digest in (None, hashlib.sha256(canonical_bytes(document)).hexdigest())

    return {"grant_template": holds}


def statement_digest(stored: str) -> str | None:
    try:
        return hashlib.sha256(canonical_bytes(json.loads(stored))).hexdigest()
    except (ValueError, TypeError, NotCanonicalError, RecursionError):
        return None
