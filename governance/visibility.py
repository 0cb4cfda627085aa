"""Who sees what, in one place.

Invariants
- Auditors and administrators see everything; owners their populations and all below; researchers the catalogue, their
  own projects and their own runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from governance.errors import ConflictError, NotFoundError
from governance.ledger import catalogue, run_store
from governance.ledger.budgets import Scope
from governance.ledger.database import Connection
from governance.ledger.run_store import ResultRow
from governance.model import Principal, Role, Run, RunState


def populations_seen(
    connection: Connection, principal: Principal, *, catalogue_only: bool = False
) -> Sequence[str] | None:
    """Ids of the populations whose contents ``principal`` sees; None means all.

    ``catalogue_only`` asks about metadata and budget readings, which researchers see of every population.
    """
    if principal.role in (Role.AUDITOR, Role.ADMIN) or (catalogue_only and principal.role is Role.RESEARCHER):
        return None
    if principal.role is Role.OWNER:
        return [found.id for found in catalogue.select_populations(connection, owner_id=principal.id)]
    return []


def bound_scopes(connection: Connection, principal: Principal) -> tuple[Scope, ...] | None:
    """Whose quotas in a population ``principal`` sees: a researcher those that bind themselves. None means all."""
    if principal.role is not Role.RESEARCHER:
        return None
    mine = catalogue.select_projects(connection, member=principal.id)
    return (("researcher", principal.id), *(("project", project.id) for project in mine))


def sees_run(connection: Connection, principal: Principal, run: Run) -> bool:
    if run.researcher_id == principal.id:
        return True
    seen = populations_seen(connection, principal)
    return seen is None or bool(run_store.select_runs(connection, run_id=run.id, population_ids=seen))


def visible_run(connection: Connection, principal: Principal, run_id: str) -> Run:
    """Raises ``NotFoundError`` where there is none that ``principal`` sees."""
    found = run_store.select_runs(connection, run_id=run_id)
    if not found or not sees_run(connection, principal, found[0]):
        raise NotFoundError(f"there is no run {run_id!r} that you can see")
    return found[0]


def visible_result(connection: Connection, principal: Principal, run_id: str) -> tuple[Run, ResultRow]:
    """Raises ``NotFoundError``, and ``ConflictError`` where there is no result, saying why."""
    run = visible_run(connection, principal, run_id)
    row = run_store.select_result(connection, run_id)
    if row is None:
        why = "it has no result"
        if run.state is RunState.PUBLISHED:
            why = "its result was lost when the node's database was restored from a backup"
        raise ConflictError(f"the run is {run.state.value}: {why}", state=run.state.value)
    return run, row
