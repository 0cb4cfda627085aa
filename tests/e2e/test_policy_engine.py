"""The policy engine dies, dawdles, or serves other policies: doubt refuses, and the same key is decided afterwards.

The supervisor is stopped (SIGSTOP) while a test looks, because it repairs all of this within about a second.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.conftest import QuietNode
from tests.e2e.nodes import DemoNode, Json
from tests.e2e.programs import SERVER, wait_until
from tests.integration.processes.nodes import CHECKOUT, environment, is_gone

ENGINE = "run --server"


@pytest.fixture
def node(quiet: QuietNode) -> Iterator[DemoNode]:
    yield quiet.node
    wait_until(quiet.node.is_ready, "the node decides again")
    for run in quiet.node.sam.read("/v1/runs", state="reserved")["items"]:
        assert 200 == quiet.node.sam.call("POST", f"/v1/runs/{run['id']}:cancel").status_code


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def refused_and_recorded(node: DemoNode, key: str, code: str) -> None:
    """No trustworthy answer is no approval; the refusal is a decision, and nothing is charged."""
    before, budget = node.entries(), node.budget()
    answer = node.sam.submit(node.request(), key)
    after = node.entries()
    facts = after[-1]["body"]["facts"]

    assert (503, code, "application/problem+json") == (
        answer.status_code,
        answer.json()["code"],
        answer.headers["Content-Type"],
    )
    assert [*before, after[-1]] == after
    assert ("refused", [{"code": code, "source": "system"}], None, None) == (
        facts["outcome"],
        facts["reasons"],
        facts["charge"],
        facts["opa_decision_id"],
    )
    assert budget["committed_epsilon"] == node.budget()["committed_epsilon"]
    assert (503, code) == _told(node.sam.preview(node.request()))
    assert (503, code) == _told(node.sam.client.get("/v1/ready"))
    assert after == node.entries()


def _told(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def decided_at_last(node: DemoNode, key: str) -> None:
    wait_until(node.is_ready, "the node decides again")
    answer = node.sam.submit(node.request(), key)
    assert (201, "approved") == (answer.status_code, answer.json()["outcome"])
    assert answer.json()["opa_decision_id"]


def approvals(node: DemoNode) -> list[Json]:
    facts = [entry["body"]["facts"] for entry in node.entries(kind="decision")]
    return [one for one in facts if one["outcome"] != "refused"]


def test_a_dead_engine_refuses_and_is_revived_within_seconds(node: DemoNode) -> None:
    engine = node.child(ENGINE)
    with stopped(node.program.pid):
        os.kill(engine, signal.SIGKILL)
        wait_until(lambda: is_gone(engine), "the engine is gone")
        refused_and_recorded(node, "engine-dead", "policy_engine_unreachable")
    decided_at_last(node, "engine-dead")

    assert engine != node.child(ENGINE)


def test_while_it_is_revived_every_answer_is_a_refusal_or_a_real_decision(node: DemoNode) -> None:
    os.kill(node.child(ENGINE), signal.SIGKILL)
    answers: list[httpx.Response] = []

    def decides_again() -> bool:
        answers.append(node.sam.submit(node.request(), f"reviving-{len(answers)}"))
        return answers[-1].status_code == 201

    wait_until(decides_again, "a request is decided again")
    assert {503} >= {answer.status_code for answer in answers[:-1]}
    assert all(answer.json()["code"].startswith("policy_") for answer in answers[:-1])
    assert all(approval["opa_decision_id"] and approval["charge"] for approval in approvals(node))


def test_a_slow_engine_refuses(node: DemoNode) -> None:
    with stopped(node.child(ENGINE)):
        refused_and_recorded(node, "engine-slow", "policy_engine_timeout")
    decided_at_last(node, "engine-slow")


def test_an_engine_of_another_revision_refuses_until_it_serves_what_is_in_force(node: DemoNode) -> None:
    revision = node.sam.client.get("/v1/ready").json()["policy_revision"]
    policy = str(CHECKOUT / "policies" / "demo" / "standard.rego")
    with stopped(node.program.pid):
        activated = subprocess.run(
            [*SERVER, "policy", "activate", policy, "--id", "standard"],
            cwd=CHECKOUT,
            env=environment(node.folder),
            capture_output=True,
            text=True,
        )
        assert (0, "") == (activated.returncode, activated.stderr)
        refused_and_recorded(node, "engine-behind", "policy_revision_mismatch")
    decided_at_last(node, "engine-behind")

    assert revision != node.sam.client.get("/v1/ready").json()["policy_revision"]
