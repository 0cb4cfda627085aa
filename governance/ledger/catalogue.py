"""SQL of principals, projects, populations and datasets. Values in, values out; who may do what is the registry's."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime

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


def select_projects(
    connection: sa.Connection,
    *,
    project_id: str | None = None,
    member: str | None = None,
    personal_of: str | None = None,
) -> list[Project]:
    query = sa.select(projects)
    if project_id is not None:
        query = query.where(projects.c.id == project_id)
    if member is not None:
        mine = sa.select(project_members.c.project_id).where(project_members.c.principal_id == member)
        query = query.where(projects.c.id.in_(mine))
    if personal_of is not None:
        query = query.where(projects.c.personal_of == personal_of)
    found = connection.execute(query.order_by(projects.c.created_at)).mappings().all()
    members: dict[str, list[str]] = {row["id"]: [] for row in found}
    for row in connection.execute(
        sa.select(project_members).where(project_members.c.project_id.in_(members)).order_by("principal_id")
    ).mappings():
        members[row["project_id"]].append(row["principal_id"])
    return [
        Project(
            row["id"],
            row["name"],
            row["created_by"],
            datetime.fromisoformat(row["created_at"]),
            tuple(members[row["id"]]),
        )
        for row in found
    ]


# --- populations ---------------------------------------------------------------------------------------------------


def insert_population(connection: sa.Connection, population: Population, budget: Budget) -> None:
    """Raises ``sqlalchemy.exc.IntegrityError`` if the name is taken."""
    connection.execute(
        populations.insert(),
        {
            "id": population.id,
            "name": population.name,
            "owner_id": population.owner_id,
            "declared_size": population.declared_size,
            "budget": canonical_bytes(budget.to_document()).decode(),
            "created_at": timestamp(population.created_at),
        },
    )


def select_populations(
    connection: sa.Connection, *, population_id: str | None = None, owner_id: str | None = None
) -> list[Population]:
    query = sa.select(populations)
    if population_id is not None:
        query = query.where(populations.c.id == population_id)
    if owner_id is not None:
        query = query.where(populations.c.owner_id == owner_id)
    found = []
    for row in connection.execute(query.order_by(populations.c.created_at)).mappings():
        budget = Budget.from_document(json.loads(row["budget"]))
        found.append(
            Population(
                id=row["id"],
                name=row["name"],
                owner_id=row["owner_id"],
                declared_size=row["declared_size"],
                epsilon=budget.epsilon,
                delta=budget.delta,
                relation=budget.relation,
                created_at=datetime.fromisoformat(row["created_at"]),
            )
        )
    return found


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


def select_datasets(
    connection: sa.Connection,
    *,
    dataset_id: str | None = None,
    asset_id: str | None = None,
    population_ids: Collection[str] | None = None,
) -> list[Dataset]:
    """Datasets at their newest version. ``population_ids`` None means any."""
    newest = (
        sa.select(dataset_versions.c.dataset_id, sa.func.max(dataset_versions.c.version).label("version"))
        .group_by(dataset_versions.c.dataset_id)
        .subquery()
    )
    query = (
        sa.select(
            datasets, dataset_versions.c.version, dataset_versions.c.version_handle, dataset_versions.c.holdout_handle
        )
        .join(newest, newest.c.dataset_id == datasets.c.id)
        .join(
            dataset_versions,
            sa.and_(dataset_versions.c.dataset_id == datasets.c.id, dataset_versions.c.version == newest.c.version),
        )
    )
    if dataset_id is not None:
        query = query.where(datasets.c.id == dataset_id)
    if asset_id is not None:
        query = query.where(datasets.c.id.in_(sa.select(assets.c.dataset_id).where(assets.c.id == asset_id)))
    if population_ids is not None:
        query = query.where(datasets.c.population_id.in_(population_ids))
    found = connection.execute(query.order_by(datasets.c.created_at)).mappings().all()
    columns: dict[str, list[Asset]] = {row["id"]: [] for row in found}
    for row in connection.execute(
        sa.select(assets).where(assets.c.dataset_id.in_(columns)).order_by(assets.c.dataset_id, assets.c.position)
    ).mappings():
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
        for row in found
    ]
