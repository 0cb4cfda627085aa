"""SQL of a restored ledger's reconciliation: what lost entries did, done again.

The ledger holds no personal text, so rows that were lost with a backup come back as far as the entries say it: people,
projects, populations and datasets get placeholder names, and lost people are disabled. Budgets come back exactly.

Invariants
- Nothing that exists is renamed or removed; a row is inserted only where it is missing.
- A run that comes back is never queued: its grant's template is gone with the backup.

This module does not: compute balances (``replay`` does), decide what was lost, or append to the log.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from accountant.filter import Budget
from governance.ledger import catalogue, policies, quotas, run_store, vectors
from governance.ledger.identity_tables import runner_credentials
from governance.ledger.tables import (
    datasets,
    debits,
    grants,
    principals,
    projects,
    reservations,
    run_datasets,
    runs,
)
from governance.model import Population, Principal, Quota, Role, RunState, Schedule
from governance.policy.bundles import ActivePolicies

PLACEHOLDER = "restored from the ledger"
RESTORED = "restored"  # why a run is in the state in which it came back


def redo(connection: sa.Connection, entry: Mapping[str, Any]) -> None:
    """The rows that this lost entry had written, but for balances, reservations' counts and states of runs."""
    handler = {
        "population_opened": _population,
        "quota_set": _quota,
        "dataset_registered": _dataset,
        "populations_disjoint": _disjoint,
        "policy_activated": _policy,
        "decision": _decision,
        "granted": _granted,
        "debit": _debit,
    }.get(entry["kind"])
    if handler is not None:
        handler(connection, entry["subjects"], entry["facts"], entry["at"], entry["index"])


def _population(connection: sa.Connection, subjects: Any, facts: Any, at: str, index: int) -> None:
    population_id = subjects["population_id"]
    if catalogue.population(connection, population_id) is None:
        _ensure_principal(connection, facts["owner"], Role.OWNER, at)
        budget = Budget.from_document(facts["budget"])
        name, size = f"{PLACEHOLDER}: {population_id}", facts["declared_size"]
        found = Population(population_id, name, facts["owner"], size, budget, datetime.fromisoformat(at))
        catalogue.insert_population(connection, found)


def _quota(connection: sa.Connection, subjects: Any, facts: Any, at: str, index: int) -> None:
    schedule = None
    if (stated := facts.get("schedule")) is not None:
        starts_at = datetime.fromisoformat(stated["starts_at"])
        schedule = Schedule(starts_at, stated["initial_epsilon"], stated["step_epsilon"], stated["period_days"])
    quota = Quota(subjects["population_id"], facts["scope"], facts["scope_id"], float(facts["epsilon"]), schedule)
    quotas.store(connection, quota, datetime.fromisoformat(at))


def _dataset(connection: sa.Connection, subjects: Any, facts: Any, at: str, index: int) -> None:
    _ensure_dataset(connection, subjects["dataset_id"], subjects["population_id"], at, facts)
    # Which public hold-out it had is not in the ledger; without one, nothing is evaluated.
    moment = datetime.fromisoformat(at)
    version, handle = facts["version"], facts["version_handle"]
    catalogue.insert_version(connection, subjects["dataset_id"], version, handle, None, moment)


def _disjoint(connection: sa.Connection, subjects: Any, facts: Any, at: str, index: int) -> None:
    first, second = facts["populations"]
    quotas.store_disjoint(connection, (first, second), facts["versions"], index)


def _policy(connection: sa.Connection, subjects: Any, facts: Any, at: str, index: int) -> None:
    active = ActivePolicies(facts["revision"], facts["sequence"], facts["digests"])
    policies.insert_activation(connection, active, facts["by"], datetime.fromisoformat(at))


def _decision(connection: sa.Connection, subjects: Any, facts: Any, at: str, index: int) -> None:
    charge = facts["charge"]
    if charge is None:
        return
    _ensure_principal(connection, subjects["researcher_id"], Role.RESEARCHER, at)
    _ensure_project(connection, subjects["project_id"], subjects["researcher_id"], at)
    used = {subjects["dataset_id"]: facts["dataset_version"]}
    used |= {one["dataset"]: one["version"] for one in facts.get("joined", ())}
    for dataset_id in used:
        _ensure_dataset(connection, dataset_id, subjects["population_id"], at, None)
    rounds = charge["event"]["rounds"]
    if not run_store.select_runs(connection, run_id=subjects["run_id"]) and not _exists(
        connection, runs.c.id, subjects["run_id"]
    ):
        row = {name: subjects[name] for name in ("researcher_id", "project_id", "population_id", "dataset_id")}
        row |= {"id": subjects["run_id"], "decision_id": facts["decision"], "state": RunState.QUARANTINED.value}
        row |= {"requested": json.dumps(facts["requested"]), "effective": json.dumps(facts["effective"])}
        row |= {"rounds": rounds, "rounds_done": 0, "grant_template": "{}", "created_at": at, "updated_at": at}
        connection.execute(runs.insert(), row | {"state_reason": RESTORED})
    for dataset_id, version in used.items():
        row = {"run_id": subjects["run_id"], "dataset_id": dataset_id, "population_id": subjects["population_id"]}
        connection.execute(run_datasets.insert(), {**row, "version": version})
    connection.execute(
        reservations.insert(),
        {
            "run_id": subjects["run_id"],
            "population_id": subjects["population_id"],
            "project_id": subjects["project_id"],
            "researcher_id": subjects["researcher_id"],
            "round_curve": vectors.encode([int(units) for units in charge["units_per_round"]]),
            "rounds_per_charge": charge.get("rounds_per_charge", 1),
            "entry_index": index,
            "rounds": rounds,
            "rounds_debited": 0,
            "rounds_released": 0,
            "state": "open",
        },
    )


def _granted(connection: sa.Connection, subjects: Any, facts: Any, at: str, index: int) -> None:
    if not _exists(connection, grants.c.id, facts["grant"]):
        row = {"id": facts["grant"], "run_id": subjects["run_id"], "runner_id": facts["runner"]}
        row |= {"fencing_token": facts["fencing_token"], "state": "active", "lease_expires_at": at}
        connection.execute(grants.insert(), row)


def _debit(connection: sa.Connection, subjects: Any, facts: Any, at: str, index: int) -> None:
    row = {name: subjects[name] for name in ("run_id", "population_id")}
    row |= {"first_round": facts["first_round"], "rounds": facts["rounds"], "grant_id": facts["grant"]}
    connection.execute(debits.insert(), row | {"entry_index": index})


def set_counts(
    connection: sa.Connection,
    run_id: str,
    population_id: str,
    *,
    debited: int,
    released: int,
    state: str,
    closed_entry: int | None,
) -> None:
    """A reservation as the replayed entries leave it."""
    key = (reservations.c.run_id == run_id, reservations.c.population_id == population_id)
    values = {"rounds_debited": debited, "rounds_released": released, "state": state}
    if closed_entry is not None:
        values["closed_entry"] = closed_entry
    connection.execute(reservations.update().where(*key).values(**values))


def runners_in_service(connection: sa.Connection) -> set[str]:
    """Runners that have a credential, or hold a grant that has not ended."""
    held = sa.select(grants.c.runner_id).where(grants.c.state == "active")
    issued = sa.select(runner_credentials.c.principal_id).where(runner_credentials.c.revoked_at.is_(None))
    return set(connection.execute(held.union(issued)).scalars())


def may_have_run(connection: sa.Connection, runner_ids: Collection[str]) -> list[str]:
    """Runs that one of these runners may have had in its hands: those that it was granted, and, as the entry that
    granted one may be lost, those that are queued."""
    held = {grant.run_id: grant.runner_id for grant in run_store.active_grants(connection)}
    return [run_id for run_id in open_runs(connection) if run_id not in held or held[run_id] in runner_ids]


def open_runs(connection: sa.Connection) -> list[str]:
    found = sa.select(reservations.c.run_id).where(reservations.c.state == "open").distinct()
    return list(connection.execute(found.order_by(reservations.c.run_id)).scalars())


def runs_without_request(connection: sa.Connection) -> list[str]:
    """Runs that came back from entries alone, so that no runner can be given them."""
    return list(connection.execute(sa.select(runs.c.id).where(runs.c.grant_template == "{}")).scalars())


def _exists(connection: sa.Connection, column: Any, value: str) -> bool:
    return connection.execute(sa.select(column).where(column == value)).first() is not None


def _ensure_principal(connection: sa.Connection, principal_id: str, role: Role, at: str) -> None:
    if not _exists(connection, principals.c.id, principal_id):
        moment = datetime.fromisoformat(at)
        catalogue.insert_principal(connection, Principal(principal_id, role, None, PLACEHOLDER), moment)
        connection.execute(principals.update().where(principals.c.id == principal_id).values(disabled=True))


def _ensure_project(connection: sa.Connection, project_id: str, researcher_id: str, at: str) -> None:
    if not _exists(connection, projects.c.id, project_id):
        row = {"id": project_id, "name": PLACEHOLDER, "created_by": researcher_id, "created_at": at}
        connection.execute(projects.insert(), row)


def _ensure_dataset(
    connection: sa.Connection, dataset_id: str, population_id: str, at: str, facts: Mapping[str, Any] | None
) -> None:
    """Without columns: nobody can ask for it until its owner registers the data again, in the same population."""
    if not _exists(connection, datasets.c.id, dataset_id):
        row = {
            "id": dataset_id,
            "population_id": population_id,
            "name": f"{PLACEHOLDER}: {dataset_id}",
            "description": "",
            "policy_id": "" if facts is None else facts["policy"],
            "max_examples_per_unit": 1 if facts is None else facts["max_examples_per_unit"],
            "created_at": at,
        }
        connection.execute(datasets.insert(), row)
