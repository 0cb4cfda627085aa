"""What auditors' routes take as queries."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints

from api.schemas import Cursor, Finite, Id, Query
from governance.ledger.chain import KINDS
from governance.ledger.entry_search import Wanted


def _known(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError("is no kind of entry")
    return kind


Kind = Annotated[
    str, StringConstraints(max_length=32), AfterValidator(_known), Field(description=f"one of {', '.join(KINDS)}")
]
Time = Annotated[AwareDatetime | None, Field(description="RFC 3339, with its offset from UTC")]
Index = Annotated[int, Field(ge=0, lt=2**53)]


class FilterQuery(Query):
    """Which entries; a filter that is left out admits all. ``kind`` may be repeated."""

    population_id: Id | None = None
    dataset_id: Annotated[Id | None, Field(description="also the entries of runs on it")] = None
    project_id: Id | None = None
    researcher_id: Id | None = None
    run_id: Id | None = None
    kind: Annotated[list[Kind], Field(max_length=len(KINDS), default_factory=list)]
    outcome: Annotated[
        Literal["approved", "clamped", "refused"] | None, Field(description="of decisions, so only those are found")
    ] = None
    since: Annotated[Time, Field(alias="from")] = None
    until: Annotated[Time, Field(alias="to", description="RFC 3339; entries before it, not at it")] = None

    def to_domain(self) -> Wanted:
        named: dict[str, Any] = {name: getattr(self, name) for name in FilterQuery.model_fields if name != "kind"}
        return Wanted(**named, kinds=tuple(dict.fromkeys(self.kind)))


class EntriesQuery(FilterQuery):
    order: Annotated[Literal["asc", "desc"], Field(description="desc: newest first")] = "asc"
    cursor: Annotated[Cursor | None, Field(description="next_cursor of the page before, with the same filters")] = None
    limit: Annotated[int, Field(ge=1, le=1000, description="a page may hold fewer and still not be the last")] = 100


class ExportQuery(FilterQuery):
    format: Annotated[Literal["jsonl", "csv", "parquet"], Field(description="jsonl: the whole log, unfiltered")]
    from_index: Annotated[Index, Field(description="jsonl only: from this entry on")] = 0


class OdometerQuery(Query):
    population_id: Id
    delta: Annotated[
        Finite | None, Field(gt=0, lt=1, description="left out: the budget's own, at which the guarantee is given")
    ] = None
    as_of_entry: Annotated[Index | None, Field(description="the last entry that counts; left out: all")] = None
    scope: Literal["population", "project", "researcher"] | None = None
    scope_id: Id | None = None


class RemainingQuery(Query):
    population_id: Id
    like_run: Annotated[Id | None, Field(description="left out: the last approved run")] = None


class StatementQuery(Query):
    format: Annotated[Literal["json", "html"] | None, Field(description="left out: what the Accept header prefers")] = (
        None
    )
