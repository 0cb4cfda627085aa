"""The ledger: entries as they were hashed, and odometer readings."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from api.answers import BudgetOut, BudgetReadingOut, EntriesOut, EntryOut
from api.auth import PrincipalDep
from api.routes import router
from api.schemas import BudgetQuery, EntriesQuery
from api.services import ServicesDep

routes = router("ledger")


@routes.get("/v1/ledger/entries", summary="Ledger entries that I can see, in index order")
def entries(services: ServicesDep, principal: PrincipalDep, query: Annotated[EntriesQuery, Query()]) -> EntriesOut:
    found, next_cursor = services.queries.entries(
        principal,
        population_id=query.population_id,
        run_id=query.run_id,
        kind=query.kind,
        cursor=query.cursor,
        limit=query.limit,
    )
    return EntriesOut(items=[EntryOut.of(one) for one in found], next_cursor=next_cursor)


@routes.get("/v1/ledger/budget", summary="A population's guarantee and odometer readings, and its quotas'")
def budget(services: ServicesDep, principal: PrincipalDep, query: Annotated[BudgetQuery, Query()]) -> BudgetOut:
    found = services.queries.budget(principal, query.population_id)
    return BudgetOut(items=[BudgetReadingOut.model_validate(one) for one in found])
