"""Step (1) of admission: what the registry says about a request, read without locks.

Invariants
- A request over several datasets is one run over the units of all of them, joined. Datasets of one population share its
  budget; several populations must have been checked to be disjoint, at the very versions that are used.
- Populations are kept in the order of their ids: the order in which they are locked, charged and recorded.

This module does not: decide, ask policies, or write.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import datetime

from governance import budget_state
from governance.budget_state import BudgetState, NamedCap
from governance.errors import ForbiddenError, InvalidRequestError, NotFoundError, PolicyRevisionError
from governance.ledger import catalogue, policies, quotas
from governance.ledger.budgets import Scope
from governance.ledger.database import Connection, Database
from governance.model import Asset, Dataset, Population, Principal, Project, Role, TrainRequest
from governance.model_check import check_model, columns
from governance.policy.bundles import ActivePolicies
from runner.model_spec import ModelSpec

MAX_DATASETS = 8


@dataclass(frozen=True, slots=True)
class Source:
    """One dataset of a request, with the columns that feed the model and the loss."""

    dataset: Dataset
    population: Population
    features: Asset
    labels: Asset


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``spec`` is the checked model; ``budgets`` hold, for each population, its budget and the quotas that bind this
    request. ``sources`` are in the order of the request."""

    requester: Principal
    project: Project
    sources: tuple[Source, ...]
    pool_size: int  # units that may be sampled
    spec: ModelSpec
    active: ActivePolicies
    budgets: tuple[BudgetState, ...]

    @property
    def populations(self) -> tuple[Population, ...]:
        return _populations(self.sources)

    @property
    def declared_size(self) -> int:
        return sum(population.declared_size for population in self.populations)

    @property
    def caps(self) -> tuple[NamedCap, ...]:
        return all_caps(self.budgets)

    @property
    def quota_scopes(self) -> tuple[Scope, ...]:
        return (("project", self.project.id), ("researcher", self.requester.id))

    def budget_of(self, population_id: str) -> BudgetState:
        return next(state for state in self.budgets if state.population_id == population_id)


def all_caps(budgets: tuple[BudgetState, ...]) -> tuple[NamedCap, ...]:
    return tuple(cap for state in budgets for cap in state.caps)


def take(database: Database, principal: Principal, request: TrainRequest, now: datetime) -> Snapshot:
    """Raises ``ForbiddenError``, ``NotFoundError``, ``InvalidRequestError``, ``PolicyRevisionError``."""
    if principal.role is not Role.RESEARCHER:
        raise ForbiddenError("only researchers submit training requests")
    with database.read() as connection:
        sources = _sources(connection, request)
        populations = _populations(sources)
        _require_disjoint(connection, sources, populations)
        project = _project(connection, principal, request.project)
        active = policies.active(connection)
        if active is None:
            raise PolicyRevisionError("no policies are in force on this node; its operator activates them")
        scopes = (("project", project.id), ("researcher", principal.id))
        budgets = tuple(budget_state.read(connection, population, now, scopes) for population in populations)
    _require_one_grid(populations)
    pool_size = _pool_size(request, sum(population.declared_size for population in populations))
    spec = check_model(request, sources[0].features, sources[0].labels)
    return Snapshot(principal, project, sources, pool_size, spec, active, budgets)


def _sources(connection: Connection, request: TrainRequest) -> tuple[Source, ...]:
    found: list[Source] = []
    if len(request.data) > MAX_DATASETS:
        raise _invalid("joined", "are too many datasets", f"at most {MAX_DATASETS} in one request")
    for position, (features_id, labels_id) in enumerate(request.data):
        path = "" if position == 0 else f"joined[{position - 1}]."
        dataset = catalogue.dataset_of_asset(connection, features_id)
        population = None if dataset is None else catalogue.population(connection, dataset.population_id)
        if dataset is None or population is None:
            raise NotFoundError(f"{path}train_data_id: there is no data {features_id!r} that you can see")
        features, labels = columns(dataset, features_id, labels_id, path)
        if any(source.dataset.id == dataset.id for source in found):
            raise _invalid(f"{path}train_data_id", "names a dataset twice", "each dataset joins a request once")
        if found and not (_alike(found[0].features, features) and _alike(found[0].labels, labels)):
            hint = f"features and labels must be of the shape and type that {found[0].dataset.name!r} has"
            raise _invalid(f"{path}train_data_id", "does not fit the first dataset", hint)
        found.append(Source(dataset, population, features, labels))
    return tuple(found)


def _alike(one: Asset, other: Asset) -> bool:
    return (one.dtype, one.shape) == (other.dtype, other.shape)


def _populations(sources: tuple[Source, ...]) -> tuple[Population, ...]:
    by_id = {source.population.id: source.population for source in sources}
    return tuple(by_id[key] for key in sorted(by_id))


def _require_disjoint(connection: Connection, sources: tuple[Source, ...], populations: tuple[Population, ...]) -> None:
    """Privacy rule 1: a request over several populations is allowed only where they are checked to be disjoint."""
    found = _unchecked(connection, sources, populations)
    if found is not None:
        one, other, source = found
        raise _invalid(
            "joined",
            f"has populations {one.name!r} and {other.name!r}, which are not checked to be disjoint at version "
            f"{source.dataset.version} of {source.dataset.name!r}",
            "their owner runs: pysytff-server population disjoint",
        )


def still_disjoint(connection: Connection, snapshot: Snapshot) -> bool:
    """Under the log's lock: whether the populations count as compared at the very versions that the snapshot has."""
    return _unchecked(connection, snapshot.sources, snapshot.populations) is None


def _unchecked(
    connection: Connection, sources: tuple[Source, ...], populations: tuple[Population, ...]
) -> tuple[Population, Population, Source] | None:
    for one, other in itertools.combinations(populations, 2):
        checked = quotas.disjoint_versions(connection, (one.id, other.id)) or {}
        for source in sources:
            if source.population in (one, other) and checked.get(source.dataset.id) != source.dataset.version:
                return one, other, source
    return None


def _require_one_grid(populations: tuple[Population, ...]) -> None:
    if len({(population.budget.orders, population.relation) for population in populations}) > 1:
        raise _invalid(
            "joined",
            "has populations whose budgets are accounted under different relations or orders",
            "ask for each in a request of its own",
        )


def _project(connection: Connection, principal: Principal, project_id: str | None) -> Project:
    """The named project, or the researcher's personal one. Not being a member looks like not existing."""
    if project_id is None:
        project = catalogue.personal_project(connection, principal.id)
    else:
        found = catalogue.select_projects(connection, project_id=project_id, member=principal.id)
        project = found[0] if found else None
    if project is None:
        raise NotFoundError(f"project: there is no project {project_id!r} that you are a member of")
    return project


def _pool_size(request: TrainRequest, declared: int) -> int:
    pool = declared if request.no_clients is None else request.no_clients
    if pool > declared:
        raise _out_of_range("no_clients", pool, f"the population has {declared} by declaration")
    if request.clients_per_round > pool:
        raise _out_of_range("clients_per_round", request.clients_per_round, f"at most the {pool} that take part")
    return pool


def _out_of_range(path: str, value: object, hint: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{path} is {value}: {hint}", [{"path": path, "message": f"{value} is out of range", "hint": hint}]
    )


def _invalid(path: str, message: str, hint: str) -> InvalidRequestError:
    return InvalidRequestError(f"{path} {message}: {hint}", [{"path": path, "message": message, "hint": hint}])
