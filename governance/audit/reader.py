"""What each principal may ask of the ledger's past and of what remains.

Invariants
- Reads only. What a principal may not see is ``NotFoundError``, or absent.
- Auditors and administrators read everything; owners what concerns their populations; researchers their own requests,
  and of the populations' readings what ``Queries.budget`` shows them: those of now, at the budget's own δ.
- An answer is of one snapshot of the database, but for exports, which end where the log ended when they began.

This module does not: compute (the modules beside it do), or know HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from accountant.errors import AccountantError
from accountant.filter import check_delta
from governance import budget_state, decision_document
from governance.audit import explanation, export, odometer, past, remaining, statement_view
from governance.audit.explanation import Explanation
from governance.audit.export import Export
from governance.audit.odometer import OdometerReading
from governance.audit.remaining import Remaining
from governance.audit.statement_view import StatementView
from governance.errors import ForbiddenError, InvalidRequestError, NotFoundError
from governance.ledger import budgets, catalogue, decisions, entries, entry_search, past_budgets
from governance.ledger.database import Connection, Database
from governance.ledger.entry_search import Position, Wanted
from governance.model import LedgerEntry, Population, Principal, Role, utc_now
from governance.visibility import bound_scopes, populations_seen, visible_result

_PAGE = 500


class Audit:
    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    def odometer(
        self,
        principal: Principal,
        population_id: str,
        *,
        delta: float | None = None,
        as_of_entry: int | None = None,
        scope: str | None = None,
        scope_id: str | None = None,
    ) -> OdometerReading:
        """Raises ``NotFoundError``, ``InvalidRequestError``, ``ForbiddenError`` for what a researcher may not ask."""
        with self._database.read() as connection:
            population = _population(connection, principal, population_id)
            size = entries.size(connection)
            at_delta = population.delta if delta is None else delta
            only = None
            if principal.role is Role.RESEARCHER:
                if as_of_entry is not None or at_delta != population.delta:
                    raise ForbiddenError("researchers read the odometer as it is now, at the budget's own delta")
                state = budget_state.read(connection, population, self._clock(), bound_scopes(connection, principal))
                only = {("population", population.id), *((one.scope, one.scope_id) for one in state.quotas)}
            entry = size - 1 if as_of_entry is None else as_of_entry
            if not 0 <= entry < size:
                raise _invalid("as_of_entry", f"there is no entry {entry}", f"the ledger has {size}, counted from 0")
            at = past_budgets.time_of(connection, entry)
            try:
                found = odometer.read(
                    connection, population, entry=entry, at=at, size=size, delta=check_delta(at_delta), only=only
                )
            except AccountantError as error:
                raise _invalid("delta", str(error), "between 0 and 1, both excluded") from error
        kept = [one for one in found.items if scope in (None, one.scope) and scope_id in (None, one.scope_id)]
        return replace(found, items=tuple(kept))

    def explanation(self, principal: Principal, decision_id: str) -> Explanation:
        """Also of an erased decision: what its ledger entry still knows. Raises ``NotFoundError``."""
        with self._database.read() as connection:
            document = decisions.document(connection, decision_id)
            decision = None if document is None else decision_document.decode(document)
            own = principal.id if principal.role is Role.RESEARCHER else None
            seen = None if own else populations_seen(connection, principal)
            found = entry_search.of_decision(
                connection,
                decision_id,
                seen=None if seen is None else tuple(seen),
                researcher_id=own,
                entry_index=None if decision is None else decision.entry_index,
            )
            if not found:
                raise NotFoundError(f"there is no decision {decision_id!r} that you can see")
            populations = [catalogue.population(connection, str(one.population_id)) for one in found]
            known = [one for one in populations if one is not None]
            bound = (("project", str(found[0].project_id)), ("researcher", str(found[0].researcher_id)))
            states = [past.state_as_of(connection, one, found[0].index - 1, found[0].at, bound) for one in known]
        whole = len(known) == explanation.populations_of(found[0])
        declared = sum(one.declared_size for one in known) if whole else None
        return explanation.explain(found, decision, states, declared)

    def remaining(self, principal: Principal, population_id: str, like_run: str | None = None) -> Remaining:
        """``like_run``: the population's last approved run if left out; a researcher's own last. Raises
        ``NotFoundError``."""
        own = principal.id if principal.role is Role.RESEARCHER else None
        with self._database.read() as connection:
            population = _population(connection, principal, population_id)
            run_id = past_budgets.newest(connection, population_id, researcher_id=own, run_id=like_run)
            if run_id is None:
                what = "no run was approved there yet" if like_run is None else f"there is no run {like_run!r}"
                raise NotFoundError(f"{what} that you can see in this population")
            held = next(
                one for one in budgets.reservations_of(connection, run_id) if one.population_id == population_id
            )
            bound = (("project", held.project_id), ("researcher", held.researcher_id))
            state = budget_state.read(connection, population, self._clock(), bound)
        return remaining.remaining(state, held)

    def statement(self, principal: Principal, run_id: str) -> StatementView:
        """Raises ``NotFoundError``, and ``ConflictError`` while the run is not published."""
        with self._database.read() as connection:
            run, row = visible_result(connection, principal, run_id)
            seen = None if run.researcher_id == principal.id else populations_seen(connection, principal)
            wanted = Wanted(run_id=run_id, kinds=("publication",), seen=None if seen is None else tuple(seen))
            publications, _ = entry_search.search(connection, wanted, after=None, limit=_PAGE)
            document = decisions.document(connection, run.decision_id)
        decision = None if document is None else decision_document.decode(document)
        return statement_view.view(run, row.privacy_statement, row.published_at, publications, decision)

    def export(self, principal: Principal, form: str, wanted: Wanted, from_index: int = 0) -> Export:
        """JSON Lines are the whole log from ``from_index`` on, so they are an auditor's. Raises ``ForbiddenError``,
        ``InvalidRequestError``."""
        with self._database.read() as connection:
            size = entries.size(connection)
            seen = populations_seen(connection, principal)
        if form == "jsonl":
            if seen is not None:
                raise ForbiddenError("JSON Lines hold the whole log: owners export their populations as CSV or Parquet")
            if wanted != Wanted():
                raise _invalid("format", "JSON Lines are the whole log, unfiltered", "filter CSV or Parquet")
            if not 0 <= from_index <= size:
                raise _invalid("from_index", f"there is no entry {from_index}", f"the ledger has {size}")
            after = ("", from_index - 1)
            parts = export.jsonl(self._pages(Wanted(below=size), after))
            return Export(export.FORMATS[form], size, from_index, size - from_index, parts)
        if from_index:
            raise _invalid("from_index", "goes with JSON Lines", "filter CSV and Parquet by time")
        pages = self._pages(visible(replace(wanted, below=size), seen))
        parts = export.as_csv(pages) if form == "csv" else export.parquet(pages, size)
        return Export(export.FORMATS[form], size, 0, None, parts)

    def _pages(self, wanted: Wanted, after: Position | None = None) -> Iterator[Sequence[LedgerEntry]]:
        """Each page in a transaction of its own: entries never change, so nothing is held open for a slow reader."""
        while True:
            with self._database.read() as connection:
                found, after = entry_search.search(connection, wanted, after=after, limit=_PAGE)
            if found:
                yield found
            if after is None:
                return


def visible(wanted: Wanted, seen: Sequence[str] | None) -> Wanted:
    """The same search among what may be seen."""
    if seen is None or wanted.population_id in seen:
        return wanted
    return replace(wanted, seen=tuple(seen))


def _population(connection: Connection, principal: Principal, population_id: str) -> Population:
    seen = populations_seen(connection, principal, catalogue_only=True)
    population = catalogue.population(connection, population_id)
    if population is None or (seen is not None and population_id not in seen):
        raise NotFoundError(f"there is no population {population_id!r} that you can see")
    return population


def _invalid(path: str, message: str, hint: str) -> InvalidRequestError:
    return InvalidRequestError(f"{path}: {message}", [{"path": f"query.{path}", "message": message, "hint": hint}])
