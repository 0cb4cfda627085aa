"""SQL of principals, projects, populations and datasets. Values in, values out; who may do what is the registry's."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from accountant.codec import canonical_bytes
from accountant.filter import Budget
from governance.ledger.tables import (
    assets,
    dataset_versions,
    datasets,
    populations,
    principals,
    project_members,
    projects,
)
from governance.model import Asset, Dataset, Population, Principal, Project, Role, timestamp

# --- principals ----------------------------------------------------------------------------------------------------


def insert_principal(connection: sa.Connection, principal: Principal, created_at: datetime) -> None:
    """Raises ``sqlalchemy.exc.IntegrityError`` if the e-mail is taken."""
    connection.execute(
        principals.insert(),
        {
            "id": principal.id,
            "role": principal.role.value,
            "email": principal.email,
            "display_name": principal.display_name,
            "disabled": False,
            "created_at": timestamp(created_at),
        },
    )


def select_principals(
    connection: sa.Connection,
    *,
    principal_id: str | None = None,
    email: str | None = None,
    disabled: bool | None = None,
) -> list[Principal]:
    query = sa.select(principals)
    if principal_id is not None:
        query = query.where(principals.c.id == principal_id)
    if email is not None:
        query = query.where(principals.c.email == email)
    if disabled is not None:
        query = query.where(principals.c.disabled == disabled)
    rows = connection.execute(query.order_by(principals.c.created_at)).mappings()
    return [Principal(row["id"], Role(row["role"]), row["email"], row["display_name"]) for row in rows]


# --- projects ------------------------------------------------------------------------------------------------------


def insert_project(connection: sa.Connection, project: Project, *, personal_of: str | None = None) -> None:
    connection.execute(
        projects.insert(),
        {
            "id": project.id,
            "name": project.name,
            "created_by": project.created_by,
            "personal_of": personal_of,
            "created_at": timestamp(project.created_at),
        },
    )
    for member in project.member_ids:
        insert_member(connection, project.id, member)


def insert_member(connection: sa.Connection, project_id: str, principal_id: str) -> None:
    connection.execute(project_members.insert(), {"project_id": project_id, "principal_id": principal_id})


_PROJECTS = (
    sa.select(projects, project_members.c.principal_id)
    .outerjoin(project_members, project_members.c.project_id == projects.c.id)
    .order_by(projects.c.created_at, projects.c.id, project_members.c.principal_id)
)
_PERSONAL = _PROJECTS.where(projects.c.personal_of == sa.bindparam("researcher"))


def select_projects(
    connection: sa.Connection, *, project_id: str | None = None, member: str | None = None
) -> list[Project]:
    query = _PROJECTS
    if project_id is not None:
        query = query.where(projects.c.id == project_id)
    if member is not None:
        mine = sa.select(project_members.c.project_id).where(project_members.c.principal_id == member)
        query = query.where(projects.c.id.in_(mine))
    return _projects(connection.execute(query).mappings())


def personal_project(connection: sa.Connection, researcher_id: str) -> Project | None:
    found = _projects(connection.execute(_PERSONAL, {"researcher": researcher_id}).mappings())
    return found[0] if found else None


def _projects(rows: Iterable[Mapping[Any, Any]]) -> list[Project]:
    found: dict[str, Project] = {}
    for row in rows:
        members = () if row["principal_id"] is None else (row["principal_id"],)
        if row["id"] in found:
            known = found[row["id"]]
            found[row["id"]] = replace(known, member_ids=known.member_ids + members)
            continue
        at = datetime.fromisoformat(row["created_at"])
        found[row["id"]] = Project(row["id"], row["name"], row["created_by"], at, members)
    return list(found.values())


# --- populations ---------------------------------------------------------------------------------------------------


def insert_population(connection: sa.Connection, population: Population) -> None:
    """Raises ``sqlalchemy.exc.IntegrityError`` if the name is taken."""
    connection.execute(
        populations.insert(),
        {
            "id": population.id,
            "name": population.name,
            "owner_id": population.owner_id,
            "declared_size": population.declared_size,
            "budget": canonical_bytes(population.budget.to_document()).decode(),
            "created_at": timestamp(population.created_at),
        },
    )


_POPULATIONS = sa.select(populations).order_by(populations.c.created_at)
_POPULATION = sa.select(populations).where(populations.c.id == sa.bindparam("wanted"))


def select_populations(connection: sa.Connection, *, owner_id: str | None = None) -> list[Population]:
    query = _POPULATIONS if owner_id is None else _POPULATIONS.where(populations.c.owner_id == owner_id)
    return [_population(row) for row in connection.execute(query).mappings()]


def population(connection: sa.Connection, population_id: str) -> Population | None:
    row = connection.execute(_POPULATION, {"wanted": population_id}).mappings().one_or_none()
    return None if row is None else _population(row)


def _population(row: Mapping[Any, Any]) -> Population:
    return Population(
        id=row["id"],
        name=row["name"],
        owner_id=row["owner_id"],
        declared_size=row["declared_size"],
        budget=_budget(row["budget"]),
        created_at=datetime.fromisoformat(row["created_at"]),
    )


@lru_cache(maxsize=1024)
def _budget(document: str) -> Budget:
    return Budget.from_document(json.loads(document))  # immutable for life, so it can be remembered


# --- datasets ------------------------------------------------------------------------------------------------------


def insert_dataset(connection: sa.Connection, dataset: Dataset) -> None:
    """The dataset, its assets and its first version.

    Raises ``sqlalchemy.exc.IntegrityError`` if name or handle are taken.
    """
    connection.execute(
        datasets.insert(),
        {
            "id": dataset.id,
            "population_id": dataset.population_id,
            "name": dataset.name,
            "description": dataset.description,
            "policy_id": dataset.policy_id,
            "max_examples_per_unit": dataset.max_examples_per_unit,
            "created_at": timestamp(dataset.created_at),
        },
    )
    for position, asset in enumerate(dataset.assets):
        connection.execute(
            assets.insert(),
            {
                "id": asset.id,
                "dataset_id": dataset.id,
                "position": position,
                "name": asset.name,
                "dtype": asset.dtype,
                "shape": json.dumps(asset.shape),
                "description": asset.description,
                "minimum": asset.minimum,
                "maximum": asset.maximum,
            },
        )
    insert_version(
        connection, dataset.id, dataset.version, dataset.version_handle, dataset.holdout_handle, dataset.created_at
    )


def insert_version(
    connection: sa.Connection,
    dataset_id: str,
    version: int,
    version_handle: str,
    holdout_handle: str | None,
    created_at: datetime,
) -> None:
    connection.execute(
        dataset_versions.insert(),
        {
            "dataset_id": dataset_id,
            "version": version,
            "version_handle": version_handle,
            "holdout_handle": holdout_handle,
            "created_at": timestamp(created_at),
        },
    )


def holdout_is_private(connection: sa.Connection, version_handle: str, holdout_handle: str | None) -> bool:
    """Whether the data of somebody's version would serve as a public hold-out, or the other way round."""
    table = dataset_versions.c
    clashes = [table.holdout_handle == version_handle]
    if holdout_handle is not None:
        clashes.append(table.version_handle == holdout_handle)
    return connection.execute(sa.select(table.version).where(sa.or_(*clashes)).limit(1)).first() is not None


_NEWEST = (
    sa.select(dataset_versions.c.dataset_id, sa.func.max(dataset_versions.c.version).label("version"))
    .group_by(dataset_versions.c.dataset_id)
    .subquery()
)
_OF_VERSION = (dataset_versions.c.version, dataset_versions.c.version_handle, dataset_versions.c.holdout_handle)
_DATASETS = (
    sa.select(datasets, *_OF_VERSION)
    .join(_NEWEST, _NEWEST.c.dataset_id == datasets.c.id)
    .join(
        dataset_versions,
        sa.and_(dataset_versions.c.dataset_id == datasets.c.id, dataset_versions.c.version == _NEWEST.c.version),
    )
    .order_by(datasets.c.created_at)
)
_DATASET_OF_ASSET = (
    sa.select(datasets, *_OF_VERSION)
    .join(assets, assets.c.dataset_id == datasets.c.id)
    .join(dataset_versions, dataset_versions.c.dataset_id == datasets.c.id)
    .where(assets.c.id == sa.bindparam("asset"))
    .order_by(dataset_versions.c.version.desc())
    .limit(1)
)
_ASSETS = (
    sa.select(assets)
    .where(assets.c.dataset_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(assets.c.dataset_id, assets.c.position)
)


def select_datasets(
    connection: sa.Connection, *, dataset_id: str | None = None, population_ids: Collection[str] | None = None
) -> list[Dataset]:
    """Datasets at their newest version. ``population_ids`` None means any."""
    query = _DATASETS
    if dataset_id is not None:
        query = query.where(datasets.c.id == dataset_id)
    if population_ids is not None:
        query = query.where(datasets.c.population_id.in_(population_ids))
    return _with_assets(connection, connection.execute(query).mappings().all())


def dataset_of_asset(connection: sa.Connection, asset_id: str) -> Dataset | None:
    """The dataset, at its newest version, that has this column."""
    found = _with_assets(connection, connection.execute(_DATASET_OF_ASSET, {"asset": asset_id}).mappings().all())
    return found[0] if found else None


def _with_assets(connection: sa.Connection, rows: Sequence[Mapping[Any, Any]]) -> list[Dataset]:
    columns: dict[str, list[Asset]] = {row["id"]: [] for row in rows}
    for row in connection.execute(_ASSETS, {"ids": list(columns)}).mappings():
        columns[row["dataset_id"]].append(
            Asset(
                id=row["id"],
                name=row["name"],
                dtype=row["dtype"],
                shape=tuple(json.loads(row["shape"])),
                description=row["description"],
                minimum=row["minimum"],
                maximum=row["maximum"],
            )
        )
    return [
        Dataset(
            id=row["id"],
            population_id=row["population_id"],
            name=row["name"],
            description=row["description"],
            policy_id=row["policy_id"],
            version=row["version"],
            version_handle=row["version_handle"],
            holdout_handle=row["holdout_handle"],
            max_examples_per_unit=row["max_examples_per_unit"],
            assets=tuple(columns[row["id"]]),
            created_at=datetime.fromisoformat(row["created_at"]),
        )
        for row in rows
    ]
