"""Step (1) of admission: what the registry says about a request, read without locks.

This module does not: decide, ask policies, or write.
"""

from __future__ import annotations

from dataclasses import dataclass

from governance import budget_state
from governance.budget_state import BudgetState
from governance.errors import ForbiddenError, InvalidRequestError, NotFoundError, PolicyRevisionError
from governance.ledger import catalogue, policies
from governance.ledger.budgets import Scope
from governance.ledger.database import Connection, Database
from governance.model import Dataset, Population, Principal, Project, Role, TrainRequest
from governance.model_check import check_model
from governance.policy.bundles import ActivePolicies
from runner.model_spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``spec`` is the checked model; ``budget`` holds the population's budget and the quotas that bind this request."""

    requester: Principal
    project: Project
    dataset: Dataset
    population: Population
    pool_size: int  # units that may be sampled
    spec: ModelSpec
    active: ActivePolicies
    budget: BudgetState

    @property
    def quota_scopes(self) -> tuple[Scope, ...]:
        return (("project", self.project.id), ("researcher", self.requester.id))


def take(database: Database, principal: Principal, request: TrainRequest) -> Snapshot:
    """Raises ``ForbiddenError``, ``NotFoundError``, ``InvalidRequestError``, ``PolicyRevisionError``."""
    if principal.role is not Role.RESEARCHER:
        raise ForbiddenError("only researchers submit training requests")
    with database.read() as connection:
        dataset = catalogue.dataset_of_asset(connection, request.train_data_id)
        population = None if dataset is None else catalogue.population(connection, dataset.population_id)
        if dataset is None or population is None:
            raise NotFoundError(f"train_data_id: there is no data {request.train_data_id!r} that you can see")
        project = _project(connection, principal, request.project)
        active = policies.active(connection)
        if active is None:
            raise PolicyRevisionError("no policies are in force on this node; its operator activates them")
        scopes = (("project", project.id), ("researcher", principal.id))
        budget = budget_state.read(connection, population, scopes)
    pool_size = _pool_size(request, population)
    spec = check_model(request, dataset)
    return Snapshot(principal, project, dataset, population, pool_size, spec, active, budget)


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


def _pool_size(request: TrainRequest, population: Population) -> int:
    pool = population.declared_size if request.no_clients is None else request.no_clients
    if pool > population.declared_size:
        raise _out_of_range("no_clients", pool, f"the population has {population.declared_size} by declaration")
    if request.clients_per_round > pool:
        raise _out_of_range("clients_per_round", request.clients_per_round, f"at most the {pool} that take part")
    return pool


def _out_of_range(path: str, value: object, hint: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{path} is {value}: {hint}", [{"path": path, "message": f"{value} is out of range", "hint": hint}]
    )
