"""SQL of quotas and their schedules, and of populations that were checked to be disjoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from governance.ledger.budgets import Scope
from governance.ledger.tables import disjoint_populations, quotas
from governance.model import Quota, Schedule, timestamp

_OF_POPULATION = (
    sa.select(quotas)
    .where(quotas.c.population_id == sa.bindparam("population"))
    .order_by(quotas.c.scope, quotas.c.scope_id)
)


def store(connection: sa.Connection, quota: Quota, at: datetime) -> None:
    key = {"population_id": quota.population_id, "scope": quota.scope, "scope_id": quota.scope_id}
    schedule = quota.schedule
    values = {
        "epsilon": quota.epsilon,
        "set_at": timestamp(at),
        "starts_at": None if schedule is None else timestamp(schedule.starts_at),
        "initial_epsilon": None if schedule is None else schedule.initial_epsilon,
        "step_epsilon": None if schedule is None else schedule.step_epsilon,
        "period_days": None if schedule is None else schedule.period_days,
    }
    same = [quotas.c[name] == value for name, value in key.items()]
    if connection.execute(quotas.update().where(*same).values(**values)).rowcount == 0:
        connection.execute(quotas.insert(), key | values)


def read(connection: sa.Connection, population_id: str, wanted: tuple[Scope, ...] | None = None) -> list[Quota]:
    """Those of the population; of ``wanted`` scopes only, if given."""
    rows = connection.execute(_OF_POPULATION, {"population": population_id}).mappings()
    found = [_quota(row) for row in rows]
    return found if wanted is None else [quota for quota in found if (quota.scope, quota.scope_id) in wanted]


def _quota(row: Mapping[Any, Any]) -> Quota:
    schedule = None
    if row["starts_at"] is not None:
        starts_at = datetime.fromisoformat(row["starts_at"])
        schedule = Schedule(starts_at, row["initial_epsilon"], row["step_epsilon"], row["period_days"])
    return Quota(row["population_id"], row["scope"], row["scope_id"], row["epsilon"], schedule)


def store_disjoint(connection: sa.Connection, pair: tuple[str, str], versions: Mapping[str, int], entry: int) -> None:
    """``pair`` in order; replaces an earlier check of the same two."""
    values = {"versions": json.dumps(dict(versions), sort_keys=True), "entry_index": entry}
    key = (disjoint_populations.c.first_id == pair[0], disjoint_populations.c.second_id == pair[1])
    if connection.execute(disjoint_populations.update().where(*key).values(**values)).rowcount == 0:
        connection.execute(disjoint_populations.insert(), values | {"first_id": pair[0], "second_id": pair[1]})


def disjoint_versions(connection: sa.Connection, pair: tuple[str, str]) -> dict[str, int] | None:
    """Dataset versions among which the two populations were found disjoint; None if they never were."""
    query = sa.select(disjoint_populations.c.versions).where(
        disjoint_populations.c.first_id == pair[0], disjoint_populations.c.second_id == pair[1]
    )
    text = connection.execute(query).scalar_one_or_none()
    return None if text is None else dict(json.loads(text))
