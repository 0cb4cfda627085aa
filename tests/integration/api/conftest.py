"""The real application over a real database, for people of every role."""

from __future__ import annotations

import contextlib
import io
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api import logging
from api.app import create_app
from api.services import ApiOptions, Services
from governance.admission import Admission
from governance.audit.reader import Audit
from governance.identity import Identity
from governance.ledger.database import Database
from governance.model import Role
from governance.policy import bundles
from governance.policy.opa import PolicyEngine
from governance.policy.supervisor import OpaChild
from governance.queries import Queries
from governance.registry import Registry
from governance.results import ResultStore
from governance.settlement import Settlement
from governance.tokens import SigningKey
from governance.transparency import Transparency

CHEAP = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
PASSWORD = "correct horse battery"
POLICIES = Path(__file__).resolve().parents[3] / "policies"
POPULATION = {"name": "writers", "declared_size": 300, "epsilon": 8.0, "delta": 1e-5}
DATASET = {
    "name": "digits",
    "description": "handwritten digits",
    "policy": "digits",
    "max_examples_per_unit": 8,
    "version_handle": "ver_0123456789abcdef01234567",
    "holdout_handle": "ver_abcdef0123456789abcdef01",
    "assets": [
        {"name": "images", "dtype": "float32", "shape": [64], "minimum": 0, "maximum": 1},
        {"name": "labels", "dtype": "int64", "shape": [], "minimum": 0, "maximum": 9},
    ],
}
MODEL = {
    "schema": "pysytff.model/1",
    "input": {"shape": [64], "dtype": "float32"},
    "layers": [{"type": "dense", "name": "dense", "units": 10, "activation": "softmax"}],
}
NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens


@dataclass
class Node:
    """An application, its services, and logged-in people by name."""

    app: FastAPI
    services: Services
    client: httpx.Client
    log: io.StringIO
    tokens: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def join(self, name: str, role: Role) -> str:
        """Invites, accepts and logs in; returns the principal's id."""
        identity = self.services.identity
        if role is Role.RUNNER:
            credential = identity.create_runner_credential(name)
            self.tokens[name], self.ids[name] = credential.secret, credential.principal.id
            return credential.principal.id
        invitation = identity.invite(role, f"{name}@example.org", name.title())
        identity.accept(invitation.token, PASSWORD)
        session = identity.login(f"{name}@example.org", PASSWORD, address="192.0.2.1")
        self.tokens[name], self.ids[name] = session.access_token, session.principal.id
        return session.principal.id

    def call(self, who: str | None, method: str, path: str, **request: Any) -> Any:
        headers = dict(request.pop("headers", {}))
        if who is not None:
            headers["Authorization"] = f"Bearer {self.tokens[who]}"
        return self.client.request(method, path, headers=headers, **request)

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


MakeNode = Callable[..., Node]


def services_over(url: str, folder: Path, engine: PolicyEngine, options: ApiOptions | None = None) -> Services:
    database = Database.open(url)
    registry = Registry(database)
    results = ResultStore(folder / "results")
    key = SigningKey.load_or_create(folder / "secrets" / "token-signing-key")
    return Services(
        database=database,
        registry=registry,
        admission=Admission(database, engine),
        settlement=Settlement(database, results),
        queries=Queries(database, results),
        audit=Audit(database),
        identity=Identity(database, registry, key, hasher=CHEAP),
        engine=engine,
        transparency=Transparency(database, folder / "ledger"),
        options=options or ApiOptions(),
    )


@contextlib.contextmanager
def running_node(url: str, folder: Path, engine: PolicyEngine | None = None, **options: Any) -> Iterator[Node]:
    """By default no policy engine answers."""
    services = services_over(url, folder, engine or PolicyEngine(NOWHERE, "n" * 32), replace(ApiOptions(), **options))
    app = create_app(services)
    log = io.StringIO()
    logging.configure(log)
    with TestClient(app, base_url="http://127.0.0.1:8081") as client:
        yield Node(app, services, client, log)


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[MakeNode]:
    """``make_node(url, engine=…, limits=…)``: a node over the database at ``url``."""
    with contextlib.ExitStack() as stack:
        yield lambda url, engine=None, **options: stack.enter_context(running_node(url, tmp_path, engine, **options))


@dataclass(frozen=True)
class Opa:
    """A running policy engine with the organisation's policies and the digits owner's."""

    url: str
    token: str
    digests: Mapping[str, str]
    sources: Mapping[str, str]

    def engine(self) -> PolicyEngine:
        return PolicyEngine(self.url, self.token)


@pytest.fixture(scope="session")
def opa(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opa]:
    """It serves the first activation of these policies: what ``governed`` puts in force in a fresh database."""
    sources = {"digits": (POLICIES / "demo" / "digits.rego").read_text()}
    digests = bundles.digest_sources(POLICIES, sources)
    bundle = tmp_path_factory.mktemp("bundle") / "bundle.tar.gz"
    bundles.build(POLICIES, sources, bundles.revision_name(1, digests), bundle)
    child, token = OpaChild(), secrets.token_urlsafe(32)
    child.start(bundle, token)
    try:
        child.wait_ready()
        yield Opa(child.url, token, digests, sources)
    finally:
        child.stop()


def govern(node: Node, opa: Opa) -> dict[str, str]:
    """Policies in force, and the owner's digits: ids by name."""
    node.services.registry.activate_policies(None, opa.digests, opa.sources)
    population = node.call("owner", "POST", "/v1/populations", json=POPULATION).json()
    dataset = node.call("owner", "POST", "/v1/datasets", json=DATASET | {"population_id": population["id"]}).json()
    images, labels = dataset["assets"]
    return {
        "population": population["id"],
        "dataset": dataset["id"],
        "images": images["id"],
        "labels": labels["id"],
    }


@pytest.fixture
def governed(make_node: MakeNode, database_url: str, opa: Opa) -> tuple[Node, dict[str, str]]:
    """A node on each database with real policies and a dataset, and the ids of what it holds."""
    node = make_node(database_url, opa.engine())
    everybody(node)
    return node, govern(node, opa)


@pytest.fixture
def governed_sqlite(make_node: MakeNode, sqlite_url: str, opa: Opa) -> tuple[Node, dict[str, str]]:
    """As ``governed``, where the database makes no difference."""
    node = make_node(sqlite_url, opa.engine())
    everybody(node)
    return node, govern(node, opa)


def request_for(ids: Mapping[str, str], **changes: Any) -> dict[str, Any]:
    """A train request that the policies approve."""
    return {
        "rounds": 10,
        "clients_per_round": 30,
        "noise_multiplier": 1.5,
        "train_data_id": ids["images"],
        "label_data_id": ids["labels"],
        "model": MODEL,
        "purpose": "research on handwriting",
    } | changes


def submit(node: Node, ids: Mapping[str, str], key: str, who: str = "researcher", **changes: Any) -> Any:
    body = request_for(ids, **changes)
    return node.call(who, "POST", "/v1/train-requests", json=body, headers={"Idempotency-Key": key})


@pytest.fixture
def node(make_node: MakeNode, sqlite_url: str) -> Node:
    """A node on SQLite with one person of each role, and a second researcher and owner."""
    made = make_node(sqlite_url)
    everybody(made)
    return made


@pytest.fixture
def node_on_each(make_node: MakeNode, database_url: str) -> Node:
    """As ``node``, on SQLite and on PostgreSQL in turn."""
    made = make_node(database_url)
    everybody(made)
    return made


def everybody(node: Node) -> None:
    for name, role in (
        ("admin", Role.ADMIN),
        ("auditor", Role.AUDITOR),
        ("owner", Role.OWNER),
        ("other_owner", Role.OWNER),
        ("researcher", Role.RESEARCHER),
        ("other_researcher", Role.RESEARCHER),
        ("runner", Role.RUNNER),
    ):
        node.join(name, role)
