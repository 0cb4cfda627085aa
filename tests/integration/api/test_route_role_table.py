"""Every route × every role. A route that is missing from the table fails here, and so does one that is too many.

The statuses are written out, not derived from ``api.access``: this is the second opinion.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest

from api.app import api_routes
from governance.model import Role

from .conftest import PASSWORD, Node, Opa, everybody, govern, request_for, running_node, submit

WHO = (
    "anonymous",
    "researcher",
    "other_researcher",
    "owner",
    "other_owner",
    "auditor",
    "admin",
    "runner",
)
# ``researcher`` owns the run and the project; ``owner`` owns the population.
TABLE: Mapping[tuple[str, str], tuple[int, ...]] = {
    # (method, path): anonymous, researcher, other_researcher, owner, other_owner, auditor, admin, runner
    ("GET", "/"): (200, 200, 200, 200, 200, 200, 200, 200),
    ("GET", "/v1/health"): (200, 200, 200, 200, 200, 200, 200, 200),
    ("GET", "/v1/ready"): (200, 200, 200, 200, 200, 200, 200, 200),
    ("POST", "/v1/auth/token"): (200, 200, 200, 200, 200, 200, 200, 200),
    ("POST", "/v1/auth/logout"): (401, 204, 204, 204, 204, 204, 204, 403),
    ("GET", "/v1/auth/me"): (401, 200, 200, 200, 200, 200, 200, 403),
    ("POST", "/v1/users/accept"): (401, 401, 401, 401, 401, 401, 401, 401),  # the invitation in it is a wrong one
    ("GET", "/v1/users"): (401, 403, 403, 403, 403, 200, 200, 403),
    ("POST", "/v1/users"): (401, 403, 403, 403, 403, 403, 201, 403),
    ("POST", "/v1/users/{user_id}:disable"): (401, 403, 403, 403, 403, 403, 204, 403),
    ("POST", "/v1/runner-credentials"): (401, 403, 403, 403, 403, 403, 201, 403),
    ("DELETE", "/v1/runner-credentials/{credential_id}"): (401, 403, 403, 403, 403, 403, 404, 403),
    ("GET", "/v1/projects"): (401, 200, 200, 200, 200, 200, 200, 403),
    ("POST", "/v1/projects"): (401, 201, 201, 201, 201, 403, 201, 403),
    ("GET", "/v1/projects/{project_id}"): (401, 200, 404, 404, 404, 200, 200, 403),
    ("POST", "/v1/projects/{project_id}/members"): (401, 200, 404, 404, 404, 403, 200, 403),
    ("GET", "/v1/populations"): (401, 200, 200, 200, 200, 200, 200, 403),
    ("POST", "/v1/populations"): (401, 403, 403, 201, 201, 403, 403, 403),
    ("GET", "/v1/populations/{population_id}"): (401, 200, 200, 200, 404, 200, 200, 403),
    ("GET", "/v1/populations/{population_id}/quotas"): (401, 200, 200, 200, 404, 200, 200, 403),
    ("PUT", "/v1/populations/{population_id}/quotas"): (401, 403, 403, 200, 404, 403, 403, 403),
    ("GET", "/v1/datasets"): (401, 200, 200, 200, 200, 200, 200, 403),
    ("POST", "/v1/datasets"): (401, 403, 403, 201, 404, 403, 403, 403),
    ("GET", "/v1/datasets/{dataset_id}"): (401, 200, 200, 200, 404, 200, 200, 403),
    ("POST", "/v1/train-requests"): (401, 201, 201, 403, 403, 403, 403, 403),
    ("POST", "/v1/train-requests:preview"): (401, 200, 200, 403, 403, 403, 403, 403),
    ("GET", "/v1/runs"): (401, 200, 200, 200, 200, 200, 200, 403),
    ("GET", "/v1/runs/{run_id}"): (401, 200, 404, 200, 404, 200, 200, 403),
    ("POST", "/v1/runs/{run_id}:cancel"): (401, 200, 404, 200, 404, 403, 200, 403),
    ("POST", "/v1/runs/{run_id}:resolve"): (401, 403, 403, 403, 403, 403, 409, 403),  # not quarantined
    ("GET", "/v1/runs/{run_id}/events"): (401, 200, 404, 200, 404, 200, 200, 403),
    ("GET", "/v1/runs/{run_id}/result"): (401, 409, 404, 409, 404, 409, 409, 403),  # not published
    ("GET", "/v1/runs/{run_id}/weights"): (401, 409, 404, 409, 404, 409, 409, 403),
    ("GET", "/v1/runs/{run_id}/statement"): (401, 409, 404, 409, 404, 409, 409, 403),
    ("GET", "/v1/decisions/{decision_id}"): (401, 200, 404, 200, 404, 200, 200, 403),
    ("GET", "/v1/decisions/{decision_id}/explanation"): (401, 200, 404, 200, 404, 200, 200, 403),
    ("GET", "/v1/ledger/entries"): (401, 200, 200, 200, 200, 200, 200, 403),
    ("GET", "/v1/ledger/odometer"): (401, 200, 200, 200, 404, 200, 200, 403),
    ("GET", "/v1/ledger/remaining"): (401, 200, 404, 200, 404, 200, 200, 403),  # of their own runs, or population
    ("GET", "/v1/ledger/export"): (401, 403, 403, 200, 200, 200, 200, 403),
    ("GET", "/v1/ledger/budget"): (401, 200, 200, 200, 404, 200, 200, 403),
    ("GET", "/v1/ledger/checkpoint"): (
        401,
        404,
        404,
        404,
        404,
        404,
        404,
        403,
    ),  # no keeper runs here: nothing is signed
    ("GET", "/v1/ledger/keys"): (401, 200, 200, 200, 200, 200, 200, 403),
    ("GET", "/v1/ledger/proofs/inclusion"): (401, 200, 200, 200, 200, 200, 200, 403),
    ("GET", "/v1/ledger/proofs/consistency"): (401, 200, 200, 200, 200, 200, 200, 403),
    ("POST", "/v1/runner/claim"): (401, 403, 403, 403, 403, 403, 403, 204),
    ("POST", "/v1/runner/grants/{grant_id}/heartbeat"): (401, 403, 403, 403, 403, 403, 403, 404),  # no such grant
    ("POST", "/v1/runner/grants/{grant_id}/debit"): (401, 403, 403, 403, 403, 403, 403, 404),
    ("POST", "/v1/runner/grants/{grant_id}/progress"): (401, 403, 403, 403, 403, 403, 403, 404),
    ("POST", "/v1/runner/grants/{grant_id}/fail"): (401, 403, 403, 403, 403, 403, 403, 404),
    ("PUT", "/v1/runner/grants/{grant_id}/result"): (401, 403, 403, 403, 403, 403, 403, 404),
    ("POST", "/v1/runner/reports"): (401, 403, 403, 403, 403, 403, 403, 204),
}


class World:
    """A node with one of everything, and how each route is called there."""

    def __init__(self, node: Node, ids: dict[str, str]) -> None:
        self.node, self.ids = node, ids
        self._count = 0

    def call(self, who: str, method: str, path: str) -> Any:
        self._count += 1
        caller = None if who == "anonymous" else who
        if path == "/v1/auth/logout" and who not in ("anonymous", "runner"):
            session = self.node.services.identity.login(f"{who}@example.org", PASSWORD, address="192.0.2.1")
            self.node.tokens["leaving"] = session.access_token
            caller = "leaving"
        if method == "POST" and path == "/v1/runner/claim":
            self._cancel_queued()
        concrete = path.format(**self.ids)
        if path.startswith("/v1/ledger/proofs/"):
            concrete += "?index=0&size=1" if path.endswith("inclusion") else "?old=1&new=2"
        if path in ("/v1/ledger/budget", "/v1/ledger/odometer", "/v1/ledger/remaining"):
            concrete += f"?population_id={self.ids['population_id']}"
        if path == "/v1/ledger/export":
            concrete += "?format=csv"
        return self.node.call(caller, method, concrete, **self.request(method, path))

    def request(self, method: str, path: str) -> dict[str, Any]:
        fenced = {"fencing_token": 1}
        bodies: dict[tuple[str, str], dict[str, Any]] = {
            ("POST", "/v1/users/accept"): {"invitation_token": "pysi_wrong", "password": PASSWORD},
            ("POST", "/v1/users"): {
                "email": f"new{self._count}@example.org",
                "role": "researcher",
                "display_name": "New",
            },
            ("POST", "/v1/runner-credentials"): {"name": "gpu"},
            ("POST", "/v1/projects"): {"name": "A project"},
            ("POST", "/v1/projects/{project_id}/members"): {"principal_id": self.node.ids["other_member"]},
            ("POST", "/v1/populations"): {
                "name": f"people {self._count}",
                "declared_size": 1000,
                "epsilon": 1,
                "delta": 1e-6,
            },
            ("PUT", "/v1/populations/{population_id}/quotas"): {
                "scope": "researcher",
                "scope_id": self.node.ids["other_member"],
                "epsilon": 1,
            },
            ("POST", "/v1/datasets"): {
                "population_id": self.ids["population_id"],
                "name": f"data {self._count}",
                "description": "",
                "policy": "digits",
                "max_examples_per_unit": 1,
                "version_handle": f"ver_{self._count:024x}",
                "assets": [{"name": "x", "dtype": "float32", "shape": [1]}],
            },
            ("POST", "/v1/runs/{run_id}:resolve"): {"kind": "host_lost", "statement": "the host lost its power"},
            ("POST", "/v1/train-requests"): request_for(self.ids),
            ("POST", "/v1/train-requests:preview"): request_for(self.ids),
            ("POST", "/v1/runner/grants/{grant_id}/heartbeat"): fenced,
            ("POST", "/v1/runner/grants/{grant_id}/debit"): fenced | {"first_round": 0, "rounds": 1},
            ("POST", "/v1/runner/grants/{grant_id}/progress"): fenced | {"rounds_done": 1},
            ("POST", "/v1/runner/grants/{grant_id}/fail"): fenced | {"touched_data": False},
        }
        request: dict[str, Any] = {}
        if (method, path) in bodies:
            request["json"] = bodies[(method, path)]
        if path == "/v1/runner/reports":
            request["json"] = []
        if path == "/v1/auth/token":
            request["data"] = {"grant_type": "password", "username": "admin@example.org", "password": PASSWORD}
        if path == "/v1/train-requests":
            request["headers"] = {"Idempotency-Key": f"key {self._count}"}
        if method == "PUT" and path.endswith("/result"):
            meta = {"rounds": 1, "public_metrics": {}, "generator": "g", "runner_version": "v"}
            request["headers"] = {"Fencing-Token": "1", "Result-Meta": json.dumps(meta)}
            request["content"] = b""
        return request

    def _cancel_queued(self) -> None:
        for who in ("researcher", "other_researcher"):
            for run in self.node.call(who, "GET", "/v1/runs?state=reserved").json()["items"]:
                self.node.call(who, "POST", f"/v1/runs/{run['id']}:cancel")


@pytest.fixture(scope="module")
def world(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory, opa: Opa) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("table")
    copyfile(sqlite_template, folder / "node.sqlite3")
    with running_node(f"sqlite:///{folder}/node.sqlite3", folder, opa.engine()) as node:
        everybody(node)
        node.join("other_member", Role.RESEARCHER)
        ids = govern(node, opa)
        decided = submit(node, ids, "the run").json()
        run_id = decided["run_id"]
        node.call("researcher", "POST", f"/v1/runs/{run_id}:cancel")
        project = node.call("researcher", "POST", "/v1/projects", json={"name": "Mine"}).json()
        yield World(
            node,
            ids
            | {
                "run_id": run_id,
                "decision_id": decided["id"],
                "project_id": project["id"],
                "population_id": ids["population"],
                "dataset_id": ids["dataset"],
                "user_id": node.join("leaver", Role.AUDITOR),
                "credential_id": "rcr_000000000000000000000000",
                "grant_id": "grt_000000000000000000000000",
            },
        )


def test_the_table_has_every_route_and_no_other(world: World) -> None:
    assert sorted(TABLE) == sorted(api_routes(world.node.app))


def test_the_documentation_routes_are_the_only_others(world: World) -> None:
    others = {getattr(route, "path", "") for route in world.node.app.routes} - {path for _, path in TABLE} - {""}
    assert {"/openapi.json", "/docs"} == others


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize(("method", "path"), sorted(TABLE))
def test_a_role_on_a_route(world: World, method: str, path: str, who: str) -> None:
    answer = world.call(who, method, path)
    assert TABLE[(method, path)][WHO.index(who)] == answer.status_code, answer.text


@pytest.mark.parametrize("who", WHO[1:-1])
def test_lists_hold_only_what_one_may_see(world: World, who: str) -> None:
    seen = {
        kind: world.ids[f"{kind}_id"] in {one["id"] for one in world.node.call(who, "GET", path).json()["items"]}
        for kind, path in (
            ("run", "/v1/runs?limit=200"),
            ("project", "/v1/projects"),
            ("population", "/v1/populations"),
            ("dataset", "/v1/datasets"),
        )
    }
    everything = {"run": True, "project": True, "population": True, "dataset": True}
    expected = {
        "researcher": everything,
        "other_researcher": everything | {"run": False, "project": False},
        "owner": everything | {"project": False},
        "other_owner": dict.fromkeys(everything, False),
        "auditor": everything,
        "admin": everything,
    }
    assert expected[who] == seen


@pytest.mark.parametrize(
    ("who", "sees"), [("researcher", True), ("other_researcher", False), ("owner", True), ("other_owner", False)]
)
def test_ledger_entries_of_a_run_are_seen_by_those_it_concerns(world: World, who: str, sees: bool) -> None:
    found = world.node.call(who, "GET", f"/v1/ledger/entries?run_id={world.ids['run_id']}").json()["items"]
    assert sees == bool(found)
