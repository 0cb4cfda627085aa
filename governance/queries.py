"""Read models: runs, results, entries and readings, as each principal may see them.

Invariants
- Reads only. What a principal may not see is ``NotFoundError``, or absent from a list.
- Cursors are opaque to clients and hold nothing secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from governance import budget_state, decision_document, paging
from governance.audit.reader import visible
from governance.errors import NotFoundError
from governance.ledger import catalogue, decisions, entries, entry_search, run_store
from governance.ledger.database import Database
from governance.ledger.entry_search import Wanted
from governance.model import (
    BudgetReading,
    Decision,
    LedgerEntry,
    Principal,
    Role,
    Run,
    RunEvent,
    RunState,
    timestamp,
    utc_now,
)
from governance.results import ResultStore
from governance.visibility import bound_scopes, populations_seen, visible_result, visible_run


@dataclass(frozen=True, slots=True)
class ResultView:
    run_id: str
    weights_sha256: str
    metrics: Mapping[str, float]
    privacy_statement: Mapping[str, Any]
    published_at: datetime


class Queries:
    def __init__(self, database: Database, results: ResultStore) -> None:
        self._database = database
        self._results = results

    # --- runs ----------------------------------------------------------------------------------------------------

    def runs(
        self, principal: Principal, state: RunState | None = None, cursor: str | None = None, limit: int = 50
    ) -> tuple[list[Run], str | None]:
        """Newest first, with the cursor of the next page (None on the last). Raises ``InvalidRequestError``."""
        before = None if cursor is None else paging.decode(cursor, (str, str))
        researcher = principal.id if principal.role is Role.RESEARCHER else None
        with self._database.read() as connection:
            seen = None if researcher else populations_seen(connection, principal)
            found = run_store.select_runs(
                connection,
                researcher_id=researcher,
                population_ids=seen,
                state=state,
                before=None if before is None else (str(before[0]), str(before[1])),
                limit=limit + 1,
            )
        if len(found) <= limit:
            return found, None
        last = found[limit - 1]
        return found[:limit], paging.encode([timestamp(last.created_at), last.id])

    def run(self, principal: Principal, run_id: str) -> Run:
        with self._database.read() as connection:
            return visible_run(connection, principal, run_id)

    def decision(self, principal: Principal, decision_id: str) -> Decision:
        """The decision behind a run, or a refusal, as it was answered."""
        with self._database.read() as connection:
            row = decisions.subjects(connection, decision_id)
            document = None if row is None else decisions.document(connection, decision_id)
            if row is not None and document is not None and row.researcher_id != principal.id:
                seen = populations_seen(connection, principal)
                if seen is not None and row.population_id not in seen:  # it may be about further populations
                    index = document["entry_index"]
                    own = entry_search.of_decision(connection, decision_id, seen=seen, entry_index=index)
                    document = document if own else None
        if document is None:
            raise NotFoundError(f"there is no decision {decision_id!r} that you can see")
        return decision_document.decode(document)

    def result(self, principal: Principal, run_id: str) -> ResultView:
        """Raises ``ConflictError`` while the run is not published, saying in which state it is."""
        with self._database.read() as connection:
            _, row = visible_result(connection, principal, run_id)
        return ResultView(row.run_id, row.weights_sha256, row.metrics, row.privacy_statement, row.published_at)

    def weights(self, principal: Principal, run_id: str) -> bytes:
        """Safetensors bytes of a published run."""
        return self._results.read(run_id, self.result(principal, run_id).weights_sha256)

    # --- events ------------------------------------------------------------------------------------------------------

    def run_events(self, after_id: int, limit: int = 500) -> list[RunEvent]:
        """All runs' events with id > ``after_id``, in order: for the one broadcaster, never for a person."""
        with self._database.read() as connection:
            return entries.select_events(connection, after=after_id, limit=limit)

    def last_event_id(self) -> int:
        with self._database.read() as connection:
            return entries.last_event(connection)

    def events_of(self, principal: Principal, run_id: str, after_id: int = 0, limit: int = 1000) -> list[RunEvent]:
        with self._database.read() as connection:
            visible_run(connection, principal, run_id)
            return entries.select_events(connection, after=after_id, limit=limit, run_id=run_id)

    # --- ledger ------------------------------------------------------------------------------------------------------

    def entries(
        self,
        principal: Principal,
        wanted: Wanted = Wanted(),  # noqa: B008  (frozen)
        *,
        cursor: str | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> tuple[list[LedgerEntry], str | None]:
        """A page, which may hold fewer than ``limit`` entries, and the cursor of the next; None after the last.

        Researchers see what concerns their own requests; owners their populations. Raises ``InvalidRequestError``.
        """
        after = None if cursor is None else paging.decode(cursor, (str, int))
        if principal.role is Role.RESEARCHER:
            if wanted.researcher_id not in (None, principal.id):
                return [], None
            wanted = replace(wanted, researcher_id=principal.id)
        with self._database.read() as connection:
            if principal.role is not Role.RESEARCHER:
                wanted = visible(wanted, populations_seen(connection, principal))
            position = None if after is None else (str(after[0]), int(after[1]))
            found, end = entry_search.search(connection, wanted, after=position, limit=limit, newest_first=newest_first)
        return found, None if end is None else paging.encode(end)

    def budget(self, principal: Principal, population_id: str) -> list[BudgetReading]:
        """The population's reading first. Researchers see, of the quotas, only those that bind themselves."""
        with self._database.read() as connection:
            seen = populations_seen(connection, principal, catalogue_only=True)
            population = catalogue.population(connection, population_id)
            if population is None or (seen is not None and population_id not in seen):
                raise NotFoundError(f"there is no population {population_id!r} that you can see")
            bound = bound_scopes(connection, principal)
            return list(budget_state.read(connection, population, utc_now(), bound).readings())
