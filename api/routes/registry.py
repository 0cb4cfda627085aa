"""Projects, populations with their quotas, and datasets."""

from __future__ import annotations

from api.answers import (
    DatasetOut,
    DatasetsOut,
    PopulationOut,
    PopulationsOut,
    ProjectOut,
    ProjectsOut,
    QuotaOut,
    QuotasOut,
)
from api.auth import PrincipalDep
from api.routes import router
from api.schemas import DatasetIn, Id, MemberIn, PopulationIn, ProjectIn, QuotaIn
from api.services import ServicesDep

routes = router("registry")


@routes.get("/v1/projects", summary="Projects that I am part of")
def projects(services: ServicesDep, principal: PrincipalDep) -> ProjectsOut:
    return ProjectsOut(items=[ProjectOut.model_validate(one) for one in services.registry.projects(principal)])


@routes.post("/v1/projects", status_code=201, summary="Create a project")
def create_project(services: ServicesDep, principal: PrincipalDep, body: ProjectIn) -> ProjectOut:
    return ProjectOut.model_validate(services.registry.create_project(principal, body.name))


@routes.get("/v1/projects/{project_id}", summary="One project")
def project(services: ServicesDep, principal: PrincipalDep, project_id: Id) -> ProjectOut:
    return ProjectOut.model_validate(services.registry.project(principal, project_id))


@routes.post("/v1/projects/{project_id}/members", summary="Add a researcher to a project")
def add_member(services: ServicesDep, principal: PrincipalDep, project_id: Id, body: MemberIn) -> ProjectOut:
    return ProjectOut.model_validate(services.registry.add_member(principal, project_id, body.principal_id))


@routes.get("/v1/populations", summary="Populations that I can see")
def populations(services: ServicesDep, principal: PrincipalDep) -> PopulationsOut:
    return PopulationsOut(items=[PopulationOut.model_validate(one) for one in services.registry.populations(principal)])


@routes.post("/v1/populations", status_code=201, summary="Open a population and its budget, for life")
def open_population(services: ServicesDep, principal: PrincipalDep, body: PopulationIn) -> PopulationOut:
    return PopulationOut.model_validate(
        services.registry.open_population(
            principal,
            body.name,
            body.declared_size,
            body.epsilon,
            body.delta,
            relation=body.relation,
            planned_use=None if body.planned_use is None else body.planned_use.to_domain(),
        )
    )


@routes.get("/v1/populations/{population_id}", summary="One population")
def population(services: ServicesDep, principal: PrincipalDep, population_id: Id) -> PopulationOut:
    return PopulationOut.model_validate(services.registry.population(principal, population_id))


@routes.get("/v1/populations/{population_id}/quotas", summary="Quotas under a population")
def quotas(services: ServicesDep, principal: PrincipalDep, population_id: Id) -> QuotasOut:
    found = services.registry.quotas(principal, population_id)
    return QuotasOut(items=[QuotaOut.model_validate(one) for one in found])


@routes.put(
    "/v1/populations/{population_id}/quotas",
    summary="Set the quota of a project or a researcher, or the population's window",
)
def set_quota(services: ServicesDep, principal: PrincipalDep, population_id: Id, body: QuotaIn) -> QuotaOut:
    return QuotaOut.model_validate(
        services.registry.set_quota(
            principal,
            population_id,
            body.scope,
            body.scope_id,
            body.epsilon,
            None if body.schedule is None else body.schedule.to_domain(),
        )
    )


@routes.get("/v1/datasets", summary="Datasets that I can see: metadata, never content")
def datasets(services: ServicesDep, principal: PrincipalDep) -> DatasetsOut:
    known = {one.id: one for one in services.registry.populations(principal)}
    found = services.registry.datasets(principal)
    return DatasetsOut(items=[DatasetOut.of(one, known[one.population_id]) for one in found])


@routes.post("/v1/datasets", status_code=201, summary="Register a dataset whose data has been laid out")
def register_dataset(services: ServicesDep, principal: PrincipalDep, body: DatasetIn) -> DatasetOut:
    dataset = services.registry.register_dataset(
        principal,
        population_id=body.population_id,
        name=body.name,
        description=body.description,
        policy_id=body.policy,
        assets=[asset.to_domain() for asset in body.assets],
        version_handle=body.version_handle,
        holdout_handle=body.holdout_handle,
        max_examples_per_unit=body.max_examples_per_unit,
    )
    return DatasetOut.of(dataset, services.registry.population(principal, dataset.population_id))


@routes.get("/v1/datasets/{dataset_id}", summary="One dataset")
def dataset(services: ServicesDep, principal: PrincipalDep, dataset_id: Id) -> DatasetOut:
    found = services.registry.dataset(principal, dataset_id)
    return DatasetOut.of(found, services.registry.population(principal, found.population_id))
