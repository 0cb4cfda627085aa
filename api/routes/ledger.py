"""The ledger: entries as they were hashed, odometer readings, what remains, and exports."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from fastapi.responses import StreamingResponse

from api.answers import BudgetOut, BudgetReadingOut, EntriesOut, EntryOut
from api.audit_answers import OdometerOut, RemainingOut
from api.audit_schemas import EntriesQuery, ExportQuery, OdometerQuery, RemainingQuery
from api.auth import PrincipalDep
from api.routes import router
from api.schemas import BudgetQuery
from api.services import ServicesDep
from governance.audit.export import FORMATS

routes = router("ledger")

_CONTENT = {media_type.partition(";")[0]: {"schema": {"type": "string"}} for media_type in FORMATS.values()}


@routes.get("/v1/ledger/entries", summary="Ledger entries that I can see, filtered, page by page")
def entries(services: ServicesDep, principal: PrincipalDep, query: Annotated[EntriesQuery, Query()]) -> EntriesOut:
    """In index order; where `from` or `to` is given, in order of time. A page may hold fewer entries than `limit` and
    still have a `next_cursor`: only its absence says that there are no more."""
    found, next_cursor = services.queries.entries(
        principal,
        query.to_domain(),
        cursor=query.cursor,
        limit=query.limit,
        newest_first=query.order == "desc",
    )
    return EntriesOut(items=[EntryOut.of(one) for one in found], next_cursor=next_cursor)


@routes.get("/v1/ledger/budget", summary="A population's guarantee and odometer readings, and its quotas'")
def budget(services: ServicesDep, principal: PrincipalDep, query: Annotated[BudgetQuery, Query()]) -> BudgetOut:
    found = services.queries.budget(principal, query.population_id)
    return BudgetOut(items=[BudgetReadingOut.model_validate(one) for one in found])


@routes.get("/v1/ledger/odometer", summary="What was spent in a population, read at any delta and as of any entry")
def odometer(services: ServicesDep, principal: PrincipalDep, query: Annotated[OdometerQuery, Query()]) -> OdometerOut:
    """Exactly what replaying the entries up to then gives. The guarantee stays at its own delta, whichever is read at.
    Researchers read it as it is now, at the budget's own delta."""
    found = services.audit.odometer(
        principal,
        query.population_id,
        delta=query.delta,
        as_of_entry=query.as_of_entry,
        scope=query.scope,
        scope_id=query.scope_id,
    )
    return OdometerOut.of(found)


@routes.get("/v1/ledger/remaining", summary="How many more runs like one that there was")
def remaining(
    services: ServicesDep, principal: PrincipalDep, query: Annotated[RemainingQuery, Query()]
) -> RemainingOut:
    """Exact for each cap as it is now: the population's, its window, and the quotas of that run's project and
    researcher. Researchers ask about runs of their own."""
    return RemainingOut.of(services.audit.remaining(principal, query.population_id, query.like_run))


@routes.get(
    "/v1/ledger/export",
    summary="The ledger as JSON Lines (whole, for pysytff-verify), CSV or Parquet",
    response_class=StreamingResponse,
    responses={200: {"content": _CONTENT}},
)
def export(services: ServicesDep, principal: PrincipalDep, query: Annotated[ExportQuery, Query()]) -> StreamingResponse:
    """Ends at the size that the log has now (header Ledger-Size). Owners export their populations, as CSV
    or Parquet."""
    made = services.audit.export(principal, query.format, query.to_domain(), query.from_index)
    headers = {
        "Content-Disposition": f'attachment; filename="ledger-{made.size}.{query.format}"',
        "Ledger-Size": str(made.size),
    }
    if made.entries is not None:
        headers["Ledger-Entries"] = str(made.entries)
    return StreamingResponse(made.parts, media_type=made.media_type, headers=headers)
