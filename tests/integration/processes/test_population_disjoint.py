"""Two populations are declared disjoint by comparing who is in them, on a real node with laid-out data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.integration.processes.nodes import CHECKOUT, Node, pysytff_server

PASSWORD = "correct horse battery"
EMAIL = "owner@example.org"


class Owner:
    """An owner at the command line of a node's host."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        (folder.parent / "assets.json").write_text(json.dumps([{"name": "x", "dtype": "float32"}]))

    def run(self, *arguments: str) -> tuple[int, str]:
        done = pysytff_server(self.folder, *arguments, "--email", EMAIL, "--url", self.url, PYSYTFF_PASSWORD=PASSWORD)
        return done.returncode, done.stdout + done.stderr

    def open(self, name: str) -> None:
        options = ("--size", "1000", "--epsilon", "1", "--delta", "1e-6")
        status, said = self.run("dataset", "open-population", name, *options)
        assert 0 == status, said

    def add(self, population: str, name: str, who: Sequence[int]) -> None:
        source = self.folder.parent / f"{name}.npz"
        np.savez(source, who=np.array(who), x=np.zeros(len(who), np.float32))
        options = ["--file", str(source), "--unit-column", "who", "--assets", str(self.folder.parent / "assets.json")]
        options += ["--population", population, "--policy", "digits", "--max-examples-per-unit", "5"]
        status, said = self.run("dataset", "add", name, *options)
        assert 0 == status, said

    def declared(self) -> list[dict[str, Any]]:
        """The facts of every declaration in the ledger."""
        with httpx.Client(base_url=self.url, timeout=20) as client:
            form = {"grant_type": "password", "username": EMAIL, "password": PASSWORD}
            token = client.post("/v1/auth/token", data=form).json()["access_token"]
            entries = client.get(
                "/v1/ledger/entries?kind=populations_disjoint", headers={"Authorization": f"Bearer {token}"}
            ).json()["items"]
        return [entry["body"]["facts"] for entry in entries]


@pytest.fixture
def owner(node: Path) -> Iterator[Owner]:
    policy = CHECKOUT / "policies" / "demo" / "digits.rego"
    assert 0 == pysytff_server(node, "policy", "activate", str(policy), "--id", "digits").returncode
    invited = pysytff_server(node, "user", "invite", EMAIL, "--role", "owner")
    (token,) = re.findall(r"pysi_\S+", invited.stdout)
    up = Node(node).wait_up()
    try:
        body = {"invitation_token": token, "password": PASSWORD}
        assert httpx.post(f"{up.url}/v1/users/accept", json=body, timeout=20).is_success
        yield Owner(node, up.url)
    finally:
        up.process.terminate()
        up.process.communicate(timeout=60)


def test_populations_are_declared_disjoint_only_where_no_version_shares_anybody(owner: Owner) -> None:
    for name in ("north", "south", "empty"):
        owner.open(name)
    owner.add("north", "north-a", [1, 2, 3])
    owner.add("north", "north-b", [3, 4])
    owner.add("south", "south-a", [5, 6])

    assert (0, "north and south share nobody; declared\n") == owner.run("population", "disjoint", "north", "south")
    (declared,) = owner.declared()
    assert 2 == len(declared["populations"])
    assert {1} == set(declared["versions"].values())
    assert 3 == len(declared["versions"])

    owner.add("south", "south-b", [7, 4])
    status, said = owner.run("population", "disjoint", "south", "north")
    assert (1, True) == (status, "somebody is in both populations" in said)
    assert "4" not in said  # nor how many, nor who
    status, said = owner.run("population", "disjoint", "north", "empty")
    assert (1, True) == (status, "has no datasets yet" in said)

    manifest = next((owner.folder / "data" / "datasets").glob("*/manifest.json"))
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"unit_key_id": None}))
    status, said = owner.run("population", "disjoint", "north", "south")
    assert (1, True, True) == (status, "lay it out again" in said, "nothing was declared" in said)
    assert [declared] == owner.declared()
