"""SQL of runs, grants and results."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from governance.ledger.tables import evidence, grants, reservations, results, run_datasets, runner_reports, runs
from governance.model import Dataset, Run, RunState, timestamp


@dataclass(frozen=True, slots=True)
class GrantRow:
    id: str
    run_id: str
    runner_id: str
    fencing_token: int
    state: str
    lease_expires_at: datetime


@dataclass(frozen=True, slots=True)
class ResultRow:
    run_id: str
    weights_sha256: str
    weights_bytes: int
    metrics: Mapping[str, float]
    privacy_statement: Mapping[str, Any]
    published_at: datetime


_INSERT_RUN = runs.insert()
_INSERT_DATASETS = run_datasets.insert()


def insert_run(connection: sa.Connection, run: Run, grant_template: Mapping[str, Any]) -> None:
    connection.execute(
        _INSERT_RUN,
        {
            "id": run.id,
            "decision_id": run.decision_id,
            "state": run.state.value,
            "state_reason": run.state_reason,
            "researcher_id": run.researcher_id,
            "project_id": run.project_id,
            "population_id": run.population_id,
            "dataset_id": run.dataset_id,
            "requested": json.dumps(dict(run.requested)),
            "effective": json.dumps(dict(run.effective)),
            "rounds": run.rounds,
            "rounds_done": run.rounds_done,
            "grant_template": json.dumps(dict(grant_template)),
            "created_at": timestamp(run.created_at),
            "updated_at": timestamp(run.updated_at),
        },
    )


def insert_datasets(connection: sa.Connection, run_id: str, datasets: Sequence[Dataset]) -> None:
    """What the run trains on, at the versions that its grant pins."""
    rows = [
        {"run_id": run_id, "dataset_id": one.id, "version": one.version, "population_id": one.population_id}
        for one in datasets
    ]
    connection.execute(_INSERT_DATASETS, rows)


def select_runs(
    connection: sa.Connection,
    *,
    run_id: str | None = None,
    researcher_id: str | None = None,
    population_ids: Collection[str] | None = None,
    state: RunState | None = None,
    before: tuple[str, str] | None = None,
    limit: int = 50,
) -> list[Run]:
    """Newest first; ``before`` is (created_at, id) of the last one seen. ``population_ids`` None means any."""
    # Reservations in further populations of the run are debited alike.
    own = sa.and_(reservations.c.run_id == runs.c.id, reservations.c.population_id == runs.c.population_id)
    query = sa.select(runs, reservations.c.rounds_debited).join(reservations, own)
    if run_id is not None:
        query = query.where(runs.c.id == run_id)
    if researcher_id is not None:
        query = query.where(runs.c.researcher_id == researcher_id)
    if population_ids is not None:
        touched = sa.select(run_datasets.c.run_id).where(run_datasets.c.population_id.in_(population_ids))
        query = query.where(runs.c.id.in_(touched))
    if state is not None:
        query = query.where(runs.c.state == state.value)
    if before is not None:
        query = query.where(
            sa.tuple_(runs.c.created_at, runs.c.id) < sa.tuple_(sa.literal(before[0]), sa.literal(before[1]))
        )
    rows = connection.execute(query.order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(limit)).mappings()
    return [_run(row) for row in rows]


def _run(row: Mapping[Any, Any]) -> Run:
    return Run(
        id=row["id"],
        decision_id=row["decision_id"],
        state=RunState(row["state"]),
        researcher_id=row["researcher_id"],
        project_id=row["project_id"],
        population_id=row["population_id"],
        dataset_id=row["dataset_id"],
        requested=json.loads(row["requested"]),
        effective=json.loads(row["effective"]),
        rounds=row["rounds"],
        rounds_debited=row["rounds_debited"],
        rounds_done=row["rounds_done"],
        created_at=datetime.fromisoformat(row["created_at"]),
        updated_at=datetime.fromisoformat(row["updated_at"]),
        state_reason=row["state_reason"],
    )


def lock_run(connection: sa.Connection, run_id: str) -> RunState | None:
    """Locks the run's row; None if there is no such run."""
    state = connection.execute(
        sa.select(runs.c.state).where(runs.c.id == run_id).with_for_update()
    ).scalar_one_or_none()
    return None if state is None else RunState(state)


def oldest_queued(connection: sa.Connection) -> tuple[str, dict[str, Any]] | None:
    """Locks and returns the oldest reserved run that no other transaction is claiming, with its grant template."""
    row = connection.execute(
        sa.select(runs.c.id, runs.c.grant_template)
        .where(runs.c.state == RunState.RESERVED.value)
        .order_by(runs.c.created_at, runs.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    return None if row is None else (row[0], json.loads(row[1]))


def set_state(connection: sa.Connection, run_id: str, state: RunState, at: datetime, reason: str | None = None) -> None:
    connection.execute(
        runs.update()
        .where(runs.c.id == run_id)
        .values(state=state.value, state_reason=reason, updated_at=timestamp(at))
    )


def set_rounds_done(connection: sa.Connection, run_id: str, rounds: int, at: datetime) -> None:
    connection.execute(runs.update().where(runs.c.id == run_id).values(rounds_done=rounds, updated_at=timestamp(at)))


def rounds_done(connection: sa.Connection, run_id: str) -> int:
    return int(connection.execute(sa.select(runs.c.rounds_done).where(runs.c.id == run_id)).scalar_one())


def grant_template(connection: sa.Connection, run_id: str) -> dict[str, Any]:
    return dict(
        json.loads(connection.execute(sa.select(runs.c.grant_template).where(runs.c.id == run_id)).scalar_one())
    )


def insert_grant(connection: sa.Connection, grant: GrantRow) -> None:
    connection.execute(
        grants.insert(),
        {
            "id": grant.id,
            "run_id": grant.run_id,
            "runner_id": grant.runner_id,
            "fencing_token": grant.fencing_token,
            "state": grant.state,
            "lease_expires_at": timestamp(grant.lease_expires_at),
        },
    )


def select_grant(connection: sa.Connection, grant_id: str, *, lock: bool = False) -> GrantRow | None:
    query = sa.select(grants).where(grants.c.id == grant_id)
    row = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    return None if row is None else _grant(row)


def _grant(row: Mapping[Any, Any]) -> GrantRow:
    return GrantRow(**{**row, "lease_expires_at": datetime.fromisoformat(row["lease_expires_at"])})


def was_granted(connection: sa.Connection, run_id: str, runner_id: str) -> bool:
    query = sa.select(grants.c.id).where(grants.c.run_id == run_id, grants.c.runner_id == runner_id)
    return connection.execute(query).first() is not None


def grant_of(connection: sa.Connection, run_id: str) -> GrantRow | None:
    """The grant that this run was ever given."""
    row = connection.execute(sa.select(grants).where(grants.c.run_id == run_id)).mappings().one_or_none()
    return None if row is None else _grant(row)


def extend_lease(connection: sa.Connection, grant_id: str, until: datetime) -> None:
    connection.execute(grants.update().where(grants.c.id == grant_id).values(lease_expires_at=timestamp(until)))


def end_grants(connection: sa.Connection, run_id: str) -> None:
    connection.execute(grants.update().where(grants.c.run_id == run_id).values(state="ended"))


def expired(connection: sa.Connection, now: datetime) -> list[tuple[str, str]]:
    """(grant id, run id) of active grants whose lease has ended."""
    return [
        (row[0], row[1])
        for row in connection.execute(
            sa.select(grants.c.id, grants.c.run_id).where(
                grants.c.state == "active", grants.c.lease_expires_at < timestamp(now)
            )
        )
    ]


def active_grants(connection: sa.Connection) -> list[GrantRow]:
    rows = connection.execute(sa.select(grants).where(grants.c.state == "active").order_by(grants.c.id)).mappings()
    return [_grant(row) for row in rows]


def insert_evidence(
    connection: sa.Connection, run_id: str, *, kind: str, statement: str, salt: bytes, by: str, at: datetime
) -> None:
    connection.execute(
        evidence.insert(),
        {
            "run_id": run_id,
            "kind": kind,
            "statement": statement,
            "salt": salt,
            "given_by": by,
            "given_at": timestamp(at),
        },
    )


def store_report(connection: sa.Connection, runner_id: str, document: str, at: datetime) -> None:
    """Replaces the runner's earlier report."""
    values = {"document": document, "reported_at": timestamp(at)}
    changed = connection.execute(
        runner_reports.update().where(runner_reports.c.runner_id == runner_id).values(**values)
    )
    if changed.rowcount == 0:
        connection.execute(runner_reports.insert(), values | {"runner_id": runner_id})


def forget_reports(connection: sa.Connection) -> None:
    connection.execute(runner_reports.delete())


def reports(connection: sa.Connection) -> dict[str, tuple[str, datetime]]:
    """runner id -> (document, when)."""
    return {
        row["runner_id"]: (row["document"], datetime.fromisoformat(row["reported_at"]))
        for row in connection.execute(sa.select(runner_reports)).mappings()
    }


def insert_result(connection: sa.Connection, result: ResultRow) -> None:
    connection.execute(
        results.insert(),
        {
            "run_id": result.run_id,
            "weights_sha256": result.weights_sha256,
            "weights_bytes": result.weights_bytes,
            "metrics": json.dumps(dict(result.metrics)),
            "privacy_statement": json.dumps(dict(result.privacy_statement)),
            "published_at": timestamp(result.published_at),
        },
    )


def select_result(connection: sa.Connection, run_id: str) -> ResultRow | None:
    row = connection.execute(sa.select(results).where(results.c.run_id == run_id)).mappings().one_or_none()
    if row is None:
        return None
    return ResultRow(
        run_id=row["run_id"],
        weights_sha256=row["weights_sha256"],
        weights_bytes=row["weights_bytes"],
        metrics=json.loads(row["metrics"]),
        privacy_statement=json.loads(row["privacy_statement"]),
        published_at=datetime.fromisoformat(row["published_at"]),
    )
