"""Read models: runs, results, entries and readings, as each principal may see them.

Invariants
- Reads only. What a principal may not see is ``NotFoundError``, or absent from a list.
- Cursors are opaque to clients and hold nothing secret.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from governance import budget_state, decision_document
from governance.errors import ConflictError, InvalidRequestError, NotFoundError
from governance.ledger import catalogue, decisions, entries, run_store
from governance.ledger.database import Connection, Database
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
from governance.visibility import populations_seen, sees_run


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
        before = None if cursor is None else _cursor(cursor, 2)
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
        return found[:limit], _encode([timestamp(last.created_at), last.id])

    def run(self, principal: Principal, run_id: str) -> Run:
        with self._database.read() as connection:
            return self._visible(connection, principal, run_id)

    def _visible(self, connection: Connection, principal: Principal, run_id: str) -> Run:
        found = run_store.select_runs(connection, run_id=run_id)
        if not found or not sees_run(connection, principal, found[0]):
            raise NotFoundError(f"there is no run {run_id!r} that you can see")
        return found[0]

    def decision(self, principal: Principal, decision_id: str) -> Decision:
        """The decision behind a run, or a refusal, as it was answered."""
        with self._database.read() as connection:
            row = decisions.subjects(connection, decision_id)
            if row is not None and row.researcher_id != principal.id:
                seen = populations_seen(connection, principal)
                row = row if seen is None or row.population_id in seen else None
            document = None if row is None else decisions.document(connection, decision_id)
        if document is None:
            raise NotFoundError(f"there is no decision {decision_id!r} that you can see")
        return decision_document.decode(document)

    def result(self, principal: Principal, run_id: str) -> ResultView:
        """Raises ``ConflictError`` while the run is not published, saying in which state it is."""
        with self._database.read() as connection:
            run = self._visible(connection, principal, run_id)
            row = run_store.select_result(connection, run_id)
        if row is None:
            raise ConflictError(f"the run is {run.state.value}: it has no result", state=run.state.value)
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
            self._visible(connection, principal, run_id)
            return entries.select_events(connection, after=after_id, limit=limit, run_id=run_id)

    # --- ledger ------------------------------------------------------------------------------------------------------

    def entries(
        self,
        principal: Principal,
        *,
        population_id: str | None = None,
        run_id: str | None = None,
        kind: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> tuple[list[LedgerEntry], str | None]:
        """In index order. Researchers see what concerns their own requests; owners their populations."""
        after = -1 if cursor is None else int(_cursor(cursor, 1)[0])
        researcher = principal.id if principal.role is Role.RESEARCHER else None
        with self._database.read() as connection:
            seen = None if researcher else populations_seen(connection, principal)
            found = entries.select(
                connection,
                populations=seen,
                researcher_id=researcher,
                population_id=population_id,
                run_id=run_id,
                kind=kind,
                after=after,
                limit=limit + 1,
            )
        if len(found) <= limit:
            return found, None
        return found[:limit], _encode([found[limit - 1].index])

    def budget(self, principal: Principal, population_id: str) -> list[BudgetReading]:
        """The population's reading first. Researchers see, of the quotas, only those that bind themselves."""
        with self._database.read() as connection:
            seen = populations_seen(connection, principal, catalogue_only=True)
            population = catalogue.population(connection, population_id)
            if population is None or (seen is not None and population_id not in seen):
                raise NotFoundError(f"there is no population {population_id!r} that you can see")
            scopes = None
            if principal.role is Role.RESEARCHER:
                mine = catalogue.select_projects(connection, member=principal.id)
                scopes = [("researcher", principal.id), *(("project", project.id) for project in mine)]
            return list(budget_state.read(connection, population, utc_now(), scopes).readings())


def _encode(position: list[str | int]) -> str:
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode()


def _cursor(text: str, length: int) -> list[Any]:
    try:
        position = json.loads(base64.urlsafe_b64decode(text.encode()))
        if (
            not isinstance(position, list)
            or len(position) != length
            or not all(isinstance(part, str | int) for part in position)
        ):
            raise ValueError("not a position")
        return [int(position[0])] if length == 1 else position
    except (ValueError, binascii.Error, UnicodeError) as error:
        raise InvalidRequestError(
            "the cursor is not one of ours",
            [{"path": "cursor", "message": "is not a cursor", "hint": "use next_cursor of the page before"}],
        ) from error
