"""A governed node without HTTP: registry, admission with a real OPA, settlement and queries over each database."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from accountant.events import Event
from accountant.pld import PldStatement
from governance.admission import Admission, Engine
from governance.ledger.database import Database
from governance.model import Asset, Dataset, Decision, Population, Principal, Role, TrainRequest
from governance.queries import Queries
from governance.registry import Registry
from governance.results import ResultStore
from governance.settlement import Settlement
from runner.model_spec import parse
from runner.port import Grant, RunResult
from tests.integration.opa_fixtures import ServedPolicies

MODEL = {
    "schema": "pysytff.model/1",
    "input": {"shape": [64]},
    "layers": [{"type": "dense", "units": 10, "activation": "softmax"}],
}


def no_pld(event: Event, delta: float, relation: str) -> PldStatement:
    """It takes seconds; ``test_settlement.py`` has the real one."""
    return PldStatement(None, why="not asked for here")


@dataclass
class Clock:
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class Governed:
    database: Database
    policies: ServedPolicies
    results: ResultStore
    clock: Clock
    folder: Path
    requests: int = 0
    registry: Registry = field(init=False)
    admission: Admission = field(init=False)
    settlement: Settlement = field(init=False)
    queries: Queries = field(init=False)
    owner: Principal = field(init=False)
    researcher: Principal = field(init=False)
    auditor: Principal = field(init=False)
    runner: Principal = field(init=False)
    population: Population = field(init=False)
    dataset: Dataset = field(init=False)

    def __post_init__(self) -> None:
        self.registry = Registry(self.database, clock=self.clock)
        self.admission = self.admission_with(self.policies.engine)
        self.settlement = Settlement(self.database, self.results, clock=self.clock, pld=no_pld)
        self.queries = Queries(self.database, self.results)
        self.policies.activate(self.registry)
        self.owner = self.registry.create_principal(Role.OWNER, "owner@example.org")
        self.researcher = self.registry.create_principal(Role.RESEARCHER, "researcher@example.org")
        self.auditor = self.registry.create_principal(Role.AUDITOR, "auditor@example.org")
        self.runner = Principal("rnr_test", Role.RUNNER)
        self.population = self.registry.open_population(self.owner, "people", 300, 8.0, 1e-5)
        self.dataset = self.registry.register_dataset(
            self.owner,
            population_id=self.population.id,
            name="digits",
            description="",
            policy_id="digits",
            assets=[Asset("", "images", "float32", (64,)), Asset("", "labels", "int64", (), "", 0, 9)],
            version_handle="ver_" + "a" * 24,
            holdout_handle=None,
            max_examples_per_unit=10,
        )

    def admission_with(self, engine: Engine) -> Admission:
        return Admission(self.database, engine, clock=self.clock)

    def request(self, **changes: Any) -> TrainRequest:
        sensible: dict[str, Any] = {
            "rounds": 20,
            "clients_per_round": 30,
            "noise_multiplier": 2.0,
            "train_data_id": self.dataset.assets[0].id,
            "label_data_id": self.dataset.assets[1].id,
            "model": MODEL,
            "purpose": "research",
        }
        return TrainRequest(**(sensible | changes))

    def admit(self, key: str | None = None, by: Principal | None = None, **changes: Any) -> Decision:
        self.requests += 1
        request = self.request(**changes)
        return self.admission.admit(
            by or self.researcher,
            request,
            idempotency_key=key or f"key-{self.requests}",
            request_digest=hashlib.sha256(json.dumps(changes, sort_keys=True, default=str).encode()).digest(),
        )

    def started(self, **changes: Any) -> Grant:
        self.admit(**changes)
        grant = self.settlement.claim(self.runner)
        assert grant is not None
        return grant

    def debit_all(self, grant: Grant) -> None:
        self.settlement.debit(self.runner, grant.grant_id, grant.fencing_token, 0, grant.parameters.rounds)

    def result_of(self, grant: Grant, **changes: Any) -> RunResult:
        tensors = {name: np.full(shape, 0.5, np.float32) for name, shape in parse(grant.model).weights()}
        result = RunResult(safetensors.numpy.save(tensors), grant.parameters.rounds, {}, "generator/1", "1")
        return replace(result, **changes)

    def publish(self, grant: Grant, **changes: Any) -> None:
        self.settlement.publish(self.runner, grant.grant_id, grant.fencing_token, self.result_of(grant, **changes))

    def committed(self) -> float:
        return self.queries.budget(self.auditor, self.population.id)[0].committed_epsilon

    def spent(self) -> float:
        return self.queries.budget(self.auditor, self.population.id)[0].spent_epsilon

    def kinds(self) -> list[str]:
        return [entry.kind for entry in self.queries.entries(self.auditor, limit=1000)[0]]


MakeGoverned = Callable[[Database], Governed]


@pytest.fixture
def governed(database: Database, served_policies: ServedPolicies, tmp_path: Path) -> Governed:
    return Governed(database, served_policies, ResultStore(tmp_path / "results"), Clock(), tmp_path)
