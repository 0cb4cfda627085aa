"""An auditor's account reads everything and changes nothing: over every route that the service documents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
import sqlalchemy as sa

from api.checkpointer import Checkpointer
from governance.ledger.database import metadata
from governance.log_keys import KeyFile

from .conftest import Node, Opa, everybody, govern, running_node, submit
from .test_route_role_table import World
from .test_runs import finished

SESSIONS = {"token_families", "refresh_tokens", "login_attempts"}  # what logging in and out leaves
OWN_SESSION = {"/v1/auth/token", "/v1/auth/logout", "/v1/users/accept"}  # anybody's, and about themselves
QUERIES: dict[str, Any] = {
    "population_id": "population_id",
    "format": "csv",
    "index": "0",
    "size": "1",
    "old": "1",
    "new": "2",
}


@pytest.fixture(scope="module")
def audited(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory, opa: Opa) -> Iterator[World]:
    """A node with a published run and a queued one."""
    folder = tmp_path_factory.mktemp("auditor")
    copyfile(sqlite_template, folder / "node.sqlite3")
    with running_node(f"sqlite:///{folder}/node.sqlite3", folder, opa.engine()) as node:
        everybody(node)
        ids = govern(node, opa)
        node.ids["other_member"] = node.ids["other_researcher"]
        run_id = finished(node, ids)
        submit(node, ids, "queued")
        Checkpointer(node.services.database, folder / "ledger", KeyFile(folder / "log-signing-key")).start()
        run = node.call("auditor", "GET", f"/v1/runs/{run_id}").json()
        yield World(
            node,
            ids
            | {
                "run_id": run_id,
                "decision_id": run["decision_id"],
                "project_id": run["project_id"],
                "population_id": ids["population"],
                "dataset_id": ids["dataset"],
                "user_id": node.ids["other_researcher"],
                "credential_id": "rcr_000000000000000000000000",
                "grant_id": "grt_000000000000000000000000",
            },
        )


def contents(node: Node) -> dict[str, list[Any]]:
    """Every row of every table, but for sessions."""
    with node.services.database.read() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(sa.select(table)).all()))
            for table in metadata.sorted_tables
            if table.name not in SESSIONS
        }


def operations(node: Node) -> list[tuple[str, str, dict[str, Any]]]:
    document = node.client.get("/openapi.json").json()
    return [
        (method.upper(), path, operation)
        for path, found in document["paths"].items()
        for method, operation in found.items()
    ]


def test_an_auditor_reads_every_route_that_reads(audited: World) -> None:
    before = contents(audited.node)
    for method, path, operation in operations(audited.node):
        if method != "GET":
            continue
        required = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query" and one["required"]]
        if path == "/v1/ledger/proofs/inclusion":
            required = ["index", "size"]
        query = {name: audited.ids.get(QUERIES[name], QUERIES[name]) for name in required}
        answer = audited.node.call("auditor", "GET", path.format(**audited.ids), params=query)
        assert 200 == answer.status_code, (path, answer.text)
    assert before == contents(audited.node)


def test_an_auditor_changes_nothing_whatever_is_sent(audited: World) -> None:
    before = contents(audited.node)
    for method, path, _ in operations(audited.node):
        if method == "GET" or path in OWN_SESSION:
            continue
        sent = audited.request(method, path)
        answer = audited.node.call("auditor", method, path.format(**audited.ids), **sent)
        assert 403 == answer.status_code, (method, path, answer.text)
    assert before == contents(audited.node)


def test_no_other_method_of_any_route_answers_an_auditor(audited: World) -> None:
    before = contents(audited.node)
    known = {(method, path) for method, path, _ in operations(audited.node)}
    for path in sorted({path for _, path in known}):
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            if (method, path) not in known:
                answer = audited.node.call("auditor", method, path.format(**audited.ids), json={})
                assert 405 == answer.status_code, (method, path)
    assert before == contents(audited.node)


def test_reading_as_an_auditor_is_reading_everybodys(audited: World) -> None:
    """What owners and researchers are shown, an auditor is shown too."""
    for path in ("/v1/runs", "/v1/ledger/entries", "/v1/populations", "/v1/datasets", "/v1/projects"):
        seen = {str(one) for one in audited.node.call("auditor", "GET", path).json()["items"]}
        for who in ("owner", "researcher", "other_researcher"):
            theirs = {str(one) for one in audited.node.call(who, "GET", path).json()["items"]}
            assert theirs <= seen, (path, who)
