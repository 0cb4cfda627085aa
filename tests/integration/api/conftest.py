"""The real application over a real database, for people of every role."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api import logging
from api.app import create_app
from api.services import ApiOptions, Services
from governance.admission import Admission
from governance.identity import Identity
from governance.ledger.database import Database
from governance.model import Role
from governance.policy.opa import PolicyEngine
from governance.queries import Queries
from governance.registry import Registry
from governance.results import ResultStore
from governance.settlement import Settlement
from governance.tokens import SigningKey

CHEAP = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
PASSWORD = "correct horse battery"
NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens


@dataclass
class Node:
    """An application, its services, and logged-in people by name."""

    app: FastAPI
    services: Services
    client: TestClient
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
        identity=Identity(database, registry, key, hasher=CHEAP),
        engine=engine,
        options=options or ApiOptions(),
    )


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[MakeNode]:
    """``make_node(url, engine=…, limits=…)``: a node over the database at ``url``; by default no engine answers."""
    open_clients: list[TestClient] = []

    def make(url: str, engine: PolicyEngine | None = None, **options: Any) -> Node:
        services = services_over(
            url, tmp_path, engine or PolicyEngine(NOWHERE, "nobody"), replace(ApiOptions(), **options)
        )
        app = create_app(services)
        log = io.StringIO()
        logging.configure(log)
        client = TestClient(app, base_url="http://127.0.0.1:8081")
        client.__enter__()
        open_clients.append(client)
        return Node(app, services, client, log)

    yield make
    for client in open_clients:
        client.__exit__(None, None, None)


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
