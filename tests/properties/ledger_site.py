"""A node's database furnished once and copied for each example, and processes that serve it.

Invariants
- Every copy holds the same ids: three populations, four datasets of two owners' making, three researchers, one project
  that two of them share. The first two populations are checked to be disjoint.
- A ``Node`` is what one process has: its own connections and services. Two nodes on one URL are two processes.

This module does not: check anything.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import numpy as np
import psycopg
import safetensors.numpy

from accountant.events import Event
from accountant.pld import PldStatement
from governance.admission import Admission, Engine
from governance.ledger.database import Database
from governance.model import Asset, Dataset, Population, Principal, Role
from governance.registry import Registry
from governance.results import ResultStore
from governance.settlement import Settlement
from runner.model_spec import parse
from tests.integration.opa_fixtures import ServedPolicies

MODEL = {
    "schema": "pysytff.model/1",
    "input": {"shape": [2]},
    "layers": [{"type": "dense", "units": 2, "activation": "softmax"}],
}
WEIGHTS = safetensors.numpy.save({name: np.full(shape, 0.5, np.float32) for name, shape in parse(MODEL).weights()})
EPSILON, DELTA, PEOPLE = 6.0, 1e-5, 300
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Clock:
    """Stands still within an operation."""

    now: datetime = BEGIN

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass(frozen=True)
class Site:
    policies: ServedPolicies
    owner: Principal
    stranger: Principal  # an owner of nothing
    admin: Principal
    auditor: Principal
    researchers: tuple[Principal, ...]
    joint: str  # a project of the first two researchers
    personal: Mapping[str, str]  # researcher -> project
    populations: tuple[Population, ...]
    datasets: tuple[Dataset, ...]


def furnish(url: str, policies: ServedPolicies) -> Site:
    database = Database.open(url)
    try:
        registry = Registry(database, clock=Clock())
        policies.activate(registry)
        owner = registry.create_principal(Role.OWNER, "owner@example.org")
        stranger = registry.create_principal(Role.OWNER, "stranger@example.org")
        admin = registry.create_principal(Role.ADMIN, "admin@example.org")
        auditor = registry.create_principal(Role.AUDITOR, "auditor@example.org")
        people = tuple(registry.create_principal(Role.RESEARCHER, f"r{n}@example.org") for n in range(3))
        joint = registry.create_project(people[0], "joint")
        registry.add_member(people[0], joint.id, people[1].id)
        opened = [registry.open_population(owner, f"people {n}", PEOPLE, EPSILON, DELTA) for n in range(3)]
        populations = tuple(sorted(opened, key=lambda one: one.id))
        datasets = tuple(_dataset(registry, owner, populations[at], n) for n, at in enumerate((0, 0, 1, 2)))
        first, second = populations[:2]
        registry.declare_disjoint(owner, first.id, second.id, {one.id: 1 for one in datasets[:3]})
        personal = {one.id: next(p.id for p in registry.projects(one) if p.name == "personal") for one in people}
        return Site(policies, owner, stranger, admin, auditor, people, joint.id, personal, populations, datasets)
    finally:
        database.dispose()


def _dataset(registry: Registry, owner: Principal, population: Population, number: int) -> Dataset:
    return registry.register_dataset(
        owner,
        population_id=population.id,
        name=f"digits {number}",
        description="",
        policy_id="digits",
        assets=[Asset("", "images", "float32", (2,)), Asset("", "labels", "int64", (), "", 0, 1)],
        version_handle=f"ver_{number:024x}",
        holdout_handle=None,
        max_examples_per_unit=10,
    )


def _no_pld(event: Event, delta: float, relation: str) -> PldStatement:
    """PLD is for reports; it takes seconds in a process of its own, and nothing here depends on it."""
    return PldStatement(None, "none", "not computed in this test")


class Node:
    """The services of one process over one database."""

    def __init__(self, url: str, engine: Engine | None, clock: Clock, results: Path) -> None:
        """Without an engine it admits nothing."""
        self.database = Database.open(url)
        self.registry = Registry(self.database, clock=clock)
        self.admission = None if engine is None else Admission(self.database, engine, clock=clock)
        self.settlement = Settlement(self.database, ResultStore(results), clock=clock, pld=_no_pld)

    def close(self) -> None:
        self.database.dispose()


class Copies(Protocol):
    """Makes databases that are copies of the furnished one."""

    site: Site

    def new(self) -> str: ...

    def drop(self, url: str) -> None: ...


class SqliteCopies:
    def __init__(self, migrated: Path, folder: Path, policies: ServedPolicies) -> None:
        self._folder = folder
        self._template = folder / "furnished.sqlite3"
        self._counter = itertools.count()
        shutil.copyfile(migrated, self._template)
        self.site = furnish(f"sqlite:///{self._template}", policies)

    def new(self) -> str:
        file = self._folder / f"copy{next(self._counter)}.sqlite3"
        shutil.copyfile(self._template, file)
        return f"sqlite:///{file}"

    def drop(self, url: str) -> None:
        for file in self._folder.glob(Path(url.removeprefix("sqlite:///")).name + "*"):
            file.unlink()


class PostgresCopies:
    def __init__(self, server: str, migrated: str, policies: ServedPolicies) -> None:
        self._server = server
        self._counter = itertools.count()
        self._template = "furnished"
        self._run(f"CREATE DATABASE {self._template} TEMPLATE {migrated}")
        self.site = furnish(self._url(self._template), policies)

    def new(self) -> str:
        name = f"copy_{next(self._counter)}"
        # WAL_LOG copies a small database without the checkpoint that FILE_COPY waits for.
        self._run(f"CREATE DATABASE {name} TEMPLATE {self._template} STRATEGY WAL_LOG")
        return self._url(name)

    def drop(self, url: str) -> None:
        self._run(f"DROP DATABASE {url.rpartition('?')[0].rpartition('/')[2]} WITH (FORCE)")

    def _url(self, name: str) -> str:
        return self._server.replace("/postgres?", f"/{name}?", 1)

    def _run(self, statement: str) -> None:
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(statement)
