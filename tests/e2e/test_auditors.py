"""An auditor with a deadline: the commands of the guide against a whole node, and the verifier on what they wrote."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from accountant.codec import canonical_bytes
from examples.digits.seed import AUDITOR
from tests.e2e.nodes import DemoNode
from tests.e2e.test_command_line import Shell

VERIFY = (sys.executable, "-c", "from governance.ledger.verify_main import app; app()")


@pytest.fixture(scope="module")
def history(node: DemoNode) -> dict[str, str]:
    """A published run and a refusal."""
    run_id = node.sam.submit(node.request(rounds=5), "auditors-published").json()["run_id"]
    refused = node.sam.submit(node.request(purpose="marketing"), "auditors-refused").json()["decision"]["id"]
    node.wait_run(run_id, "published")
    return {"run": run_id, "refused": refused}


def test_an_auditors_hour(node: DemoNode, history: dict[str, str], tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    assert 0 == shell.log_in(node, AUDITOR).returncode

    odometer = shell.read("ledger", "odometer", node.population_id)
    assert node.budget()["spent_epsilon"] == odometer["items"][0]["spent_epsilon"]
    looser = shell.read("ledger", "odometer", node.population_id, "--delta", "1e-3")
    assert looser["items"][0]["spent_epsilon"] < odometer["items"][0]["spent_epsilon"]
    assert "refused: " in shell.said("ledger", "why", history["refused"])
    assert "more runs like" in shell.said("ledger", "remaining", node.population_id)
    kinds = {entry["kind"] for entry in shell.read("ledger", "--run", history["run"])}
    assert {"decision", "granted", "debit", "publication"} == kinds

    told = shell.read("runs", "statement", history["run"], "--html", "statement.html")
    assert [True] == [place["matches"] for place in told["ledger"]]
    digest = hashlib.sha256(canonical_bytes(told["statement"])).hexdigest()
    assert digest == told["ledger"][0]["statement_sha256"]
    assert "The ledger confirms this statement" in (tmp_path / "statement.html").read_text()

    exported = shell.read("ledger", "export", "--out", "ledger.jsonl")
    assert "ledger.jsonl.checkpoint" == exported["checkpoint"]
    command = [*VERIFY, "ledger.jsonl", "--checkpoint", "ledger.jsonl.checkpoint", "--json"]
    verified = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    report = json.loads(verified.stdout)
    (population,) = (one for one in report["populations"] if one["id"] == node.population_id)
    assert node.budget()["spent_epsilon"] == population["spent_epsilon"]
    shell.read("ledger", "export", "--format", "parquet", "--kind", "debit", "--out", "debits.parquet")
    assert {"debit"} == set(pq.read_table(tmp_path / "debits.parquet")["kind"].to_pylist())
