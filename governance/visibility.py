"""Who sees what, in one place.

Invariants
- Auditors and administrators see everything; owners their populations and all below; researchers the catalogue, their
  own projects and their own runs.
"""

from __future__ import annotations

from collections.abc import Collection

from governance.ledger import catalogue, run_store
from governance.ledger.database import Connection
from governance.model import Principal, Role, Run


def populations_seen(
    connection: Connection, principal: Principal, *, catalogue_only: bool = False
) -> Collection[str] | None:
    """Ids of the populations whose contents ``principal`` sees; None means all.

    ``catalogue_only`` asks about metadata and budget readings, which researchers see of every population.
    """
    if principal.role in (Role.AUDITOR, Role.ADMIN) or (catalogue_only and principal.role is Role.RESEARCHER):
        return None
    if principal.role is Role.OWNER:
        return [found.id for found in catalogue.select_populations(connection, owner_id=principal.id)]
    return []


def sees_run(connection: Connection, principal: Principal, run: Run) -> bool:
    if run.researcher_id == principal.id:
        return True
    seen = populations_seen(connection, principal)
    return seen is None or bool(run_store.select_runs(connection, run_id=run.id, population_ids=seen))
