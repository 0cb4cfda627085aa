"""Three nodes for the whole session: one that trains, one without a runner, where requests stay requests, and one that
trains and whose log has a witness."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from api import node as nodes_on_disk
from api.cli_common import load_settings
from examples.digits import seed
from tests.e2e.commands import Witness, log_key
from tests.e2e.nodes import DemoNode, Person
from tests.e2e.programs import server_program

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoNode]:
    """What ``make serve DEMO=1`` starts, on a free port and in a folder of its own."""
    folder = tmp_path_factory.mktemp("training")
    program = server_program(folder / "node", "up", "--init", "--demo", "--port", "0", log=folder / "up.log")
    try:
        with contextlib.closing(DemoNode(folder / "node", program)) as node:
            yield node
    finally:
        program.stop()


@dataclass(frozen=True)
class QuietNode:
    """``pysytff-server serve``: decides and records, but nothing runs. ``eve`` is another researcher."""

    node: DemoNode
    eve: Person


@pytest.fixture(scope="session")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietNode]:
    folder = tmp_path_factory.mktemp("quiet")
    password = make_demo_node(folder / "node")
    program = server_program(folder / "node", "serve", "--port", "0", log=folder / "serve.log")
    try:
        with contextlib.closing(DemoNode(folder / "node", program)) as node:
            admin = Person(node.url, "admin@stargate.net", password)
            eve = _invited(node, admin)
            with contextlib.closing(admin.client), contextlib.closing(eve.client):
                yield QuietNode(node, eve)
    finally:
        program.stop()


@dataclass(frozen=True)
class WitnessedNode:
    """What ``pysytff-server up`` starts; ``log_key`` is the one that an auditor noted at the beginning."""

    node: DemoNode
    witness: Witness
    log_key: str


@pytest.fixture(scope="session")
def witnessed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WitnessedNode]:
    folder = tmp_path_factory.mktemp("witnessed")
    make_demo_node(folder / "node")
    key = log_key(folder / "node")
    with contextlib.ExitStack() as ends:
        witness = Witness(folder / "witness", key)
        ends.callback(witness.stop)
        variables = {"PYSYTFF_WITNESSES": f"{witness.key} {witness.url}"}
        program = server_program(folder / "node", "up", "--port", "0", log=folder / "up.log", **variables)
        ends.callback(program.stop)
        node = ends.enter_context(contextlib.closing(DemoNode(folder / "node", program)))
        yield WitnessedNode(node, witness, key)


def make_demo_node(folder: Path, **variables: str) -> str:
    """The admin's password."""
    with pytest.MonkeyPatch.context() as environment:
        for name in os.environ:
            if name == "DATABASE_URL" or (name.startswith("PYSYTFF_") and name != "PYSYTFF_OPA_PATH"):
                environment.delenv(name)
        for name, value in variables.items():
            environment.setenv(name, value)
        settings = load_settings(folder)
        admin = nodes_on_disk.create(settings, "admin@stargate.net", demo=True)
        seed.seed(settings)
    return admin.password


def _invited(node: DemoNode, admin: Person) -> Person:
    """Invites a second researcher, who accepts."""
    email, password = "eve@stargate.net", secrets.token_urlsafe(16)
    user = {"email": email, "role": "researcher", "display_name": "Eve"}
    invited = admin.call("POST", "/v1/users", json=user)
    assert 201 == invited.status_code, invited.text
    acceptance = {"invitation_token": invited.json()["invitation_token"], "password": password}
    assert 204 == node.sam.client.post("/v1/users/accept", json=acceptance).status_code
    return Person(node.url, email, password)
