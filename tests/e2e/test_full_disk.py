"""A disk without room: the API's own writes fail, by a limit of the kernel, and work again when there is room.

Every file of the API's is affected: the database, its log, and results. The runner's full disk is in
``test_killed_processes.py``.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3

import numpy as np
import pytest
from safetensors.numpy import save

from examples.digits.seed import PASSWORD
from tests.e2e.conftest import QuietNode
from tests.e2e.nodes import DemoNode, unchanging
from tests.e2e.programs import no_room_for


@pytest.fixture
def node(quiet: QuietNode) -> DemoNode:
    return quiet.node


def full_disk(node: DemoNode) -> contextlib.AbstractContextManager[None]:
    return no_room_for(node.child("api.cli serve --descriptor"))


def test_a_full_disk_is_a_problem_that_says_so_and_nothing_half_written_is_left(node: DemoNode) -> None:
    entries, budget, runs = node.entries(), node.budget(), node.sam.read("/v1/runs")
    with full_disk(node):
        answers = [node.sam.submit(node.request(), "full-disk") for _ in range(3)]
        answers.append(node.sam.call("POST", "/v1/projects", json={"name": "no room"}))
        form = {"grant_type": "password", "username": node.sam.email, "password": PASSWORD}
        answers.append(node.sam.client.post("/v1/auth/token", data=form))
        assert (entries, budget, runs) == (node.entries(), node.budget(), node.sam.read("/v1/runs"))

    assert [(503, "storage_unavailable", "application/problem+json")] * len(answers) == [
        (answer.status_code, answer.json()["code"], answer.headers["Content-Type"]) for answer in answers
    ]
    assert all(answer.headers["Retry-After"] for answer in answers)
    assert (entries, budget, runs) == (node.entries(), node.budget(), node.sam.read("/v1/runs"))
    assert "no room" not in [project["name"] for project in node.sam.read("/v1/projects")["items"]]


def test_what_only_reads_goes_on_while_the_disk_is_full(node: DemoNode) -> None:
    with full_disk(node):
        preview = node.sam.preview(node.request())
        assert (200, "approved") == (preview.status_code, preview.json()["outcome"])
        assert node.is_ready()


def test_when_there_is_room_again_the_same_key_is_decided_and_the_database_is_whole(node: DemoNode) -> None:
    with full_disk(node):
        assert 503 == node.sam.submit(node.request(), "room-again").status_code
    before = node.entries()
    answer = node.sam.submit(node.request(), "room-again")
    after = node.entries()

    assert (201, "approved") == (answer.status_code, answer.json()["outcome"])
    assert [*before, after[-1]] == after
    with contextlib.closing(sqlite3.connect(f"file:{node.folder / 'node.sqlite3'}?mode=ro", uri=True)) as database:
        assert [("ok",)] == database.execute("PRAGMA integrity_check").fetchall()
    assert 200 == node.sam.call("POST", f"/v1/runs/{answer.json()['run_id']}:cancel").status_code


def test_a_result_that_finds_no_room_is_not_published_and_not_lost(node: DemoNode) -> None:
    """The runner's side of REST by hand: claim, debit, and an upload that is repeated once there is room."""
    for run in node.sam.read("/v1/runs", state="reserved")["items"]:
        node.sam.call("POST", f"/v1/runs/{run['id']}:cancel")
    run_id = node.sam.submit(node.request(rounds=5), "no-room-for-a-result").json()["run_id"]
    credential = (node.folder / "secrets" / "runner-credential").read_text().strip()
    runner = {"Authorization": f"Bearer {credential}"}
    grant = node.sam.client.post("/v1/runner/claim", headers=runner).json()
    assert run_id == grant["run_id"]
    path = f"/v1/runner/grants/{grant['grant_id']}"
    debit = {"fencing_token": grant["fencing_token"], "first_round": 0, "rounds": 5}
    assert node.sam.client.post(f"{path}/debit", headers=runner, json=debit).json()["permitted"]
    layer = grant["model"]["layers"][1]["name"]
    weights = save({f"{layer}/kernel": np.zeros((64, 10), np.float32), f"{layer}/bias": np.zeros(10, np.float32)})
    headers = runner | {
        "Fencing-Token": str(grant["fencing_token"]),
        "Content-Type": "application/octet-stream",
        "Result-Meta": '{"rounds": 5, "public_metrics": {}, "generator": "none", "runner_version": "by hand"}',
    }
    budget = node.budget()
    with full_disk(node):
        refused = node.sam.client.put(f"{path}/result", headers=headers, content=weights)
        assert (503, "storage_unavailable") == (refused.status_code, refused.json()["code"])
    assert "running" == node.run(run_id)["state"]
    assert [] == [name for name in os.listdir(node.folder / "results") if run_id in name]
    assert unchanging(budget) == unchanging(node.budget())

    assert 2 == node.sam.client.put(f"{path}/result", headers=headers, content=weights).status_code // 100
    assert "published" == node.run(run_id)["state"]
    assert weights == node.sam.call("GET", f"/v1/runs/{run_id}/weights").content
