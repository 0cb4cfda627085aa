"""A researcher's shell: every command of ``pysytff`` against a whole node, in a home of its own."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from examples.digits.seed import AUDITOR, PASSWORD, RESEARCHER
from tests.e2e.nodes import MODEL, DemoNode
from tests.integration.processes.nodes import CHECKOUT

PYSYTFF = Path(sys.executable).parent / "pysytff"
COLUMNS = ("--train-data", "digits/images", "--label-data", "digits/labels")
CHEAP = ("--rounds", "10", "--clients-per-round", "3", "--noise-multiplier", "2", "--purpose", "research")


@dataclass(frozen=True)
class Shell:
    """One person's terminal."""

    home: Path

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8"} | variables
        environment |= {"XDG_STATE_HOME": str(self.home / "state"), "COLUMNS": "200"}
        command = [str(PYSYTFF), *arguments]
        return subprocess.run(
            command, cwd=self.home, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )

    def said(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert (0, "") == (done.returncode, done.stderr)
        return done.stdout

    def read(self, *arguments: str) -> Any:
        return json.loads(self.said(*arguments, "--json"))

    def log_in(self, node: DemoNode, email: str) -> subprocess.CompletedProcess[str]:
        return self.run("login", "--email", email, "--port", node.url.rpartition(":")[2], PYSYTFF_PASSWORD=PASSWORD)

    @property
    def session_file(self) -> Path:
        return self.home / "state" / "pysytff" / "session.json"


@pytest.fixture
def shell(node: DemoNode, tmp_path: Path) -> Shell:
    """The researcher's, logged in, with a model's document and a Keras model's JSON beside it."""
    shell = Shell(tmp_path)
    assert 0 == shell.log_in(node, RESEARCHER).returncode
    (tmp_path / "model.json").write_text(json.dumps(MODEL))
    return shell


def test_a_login_is_kept_for_its_owner_alone_and_without_the_password(node: DemoNode, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    done = shell.log_in(node, RESEARCHER)

    assert (0, f"Logged in to {node.url} as Sam (researcher).\n", "") == (done.returncode, done.stdout, done.stderr)
    assert 0o600 == stat.S_IMODE(shell.session_file.stat().st_mode)
    assert PASSWORD not in shell.session_file.read_text()
    assert (RESEARCHER, "researcher") == tuple(shell.read("whoami")[name] for name in ("email", "role"))


def test_a_wrong_password_is_status_4_and_leaves_no_session(node: DemoNode, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    port = node.url.rpartition(":")[2]
    done = shell.run("login", "--email", RESEARCHER, "--port", port, PYSYTFF_PASSWORD="guess")

    assert (4, True, False) == (done.returncode, "[unauthenticated" in done.stderr, shell.session_file.exists())


def test_datasets_show_what_is_declared_and_nothing_of_the_data(node: DemoNode, shell: Shell) -> None:
    (dataset,) = shell.read("datasets")

    assert ("digits", "digits", 1, 300) == (
        dataset["name"],
        dataset["policy"],
        dataset["version"],
        dataset["population"]["declared_size"],
    )
    assert node.assets == {asset["name"]: asset["id"] for asset in dataset["assets"]}
    assert "ver_" not in json.dumps(dataset)
    assert node.assets["images"] in shell.said("datasets", "digits")


def test_a_preview_says_what_would_be_decided_and_records_nothing(node: DemoNode, shell: Shell) -> None:
    before = node.entries()
    decision = shell.read("preview", "--model", "model.json", *COLUMNS, *CHEAP)
    refused = shell.run("preview", "--model", "model.json", *COLUMNS, *CHEAP[:-1], "marketing")

    assert ("approved", None) == (decision["outcome"], decision["run_id"])
    assert 3 == refused.returncode
    assert "purpose_not_permitted" in refused.stdout
    assert before == node.entries()


def test_train_waits_and_writes_the_weights_that_the_ledger_names(node: DemoNode, shell: Shell) -> None:
    done = shell.run("train", "--model", "model.json", *COLUMNS, *CHEAP, "--output", "weights.safetensors", "--json")
    assert 0 == done.returncode, done.stderr
    result = json.loads(done.stdout)
    weights = shell.home / "weights.safetensors"
    (publication,) = node.entries(run_id=result["run_id"], kind="publication")

    assert {(64, 10), (10,)} == {tensor.shape for tensor in load_file(weights).values()}
    assert all(np.isfinite(tensor).all() for tensor in load_file(weights).values())
    assert publication["body"]["facts"]["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert {"holdout_loss", "holdout_accuracy", "holdout_examples"} == set(result["metrics"])

    listed: Mapping[str, Mapping[str, Any]] = {run["id"]: run for run in shell.read("runs", "list")}
    assert ("published", 10) == (listed[result["run_id"]]["state"], listed[result["run_id"]]["rounds_done"])
    assert "published" in shell.said("runs", "show", result["run_id"])
    assert 0 == shell.run("runs", "watch", result["run_id"]).returncode
    again = shell.read("runs", "result", result["run_id"])
    assert (result["metrics"], result["privacy_statement"]) == (again["metrics"], again["privacy_statement"])


def test_a_refused_training_is_status_3_with_its_reasons(shell: Shell) -> None:
    refused = shell.run("train", "--model", "model.json", *COLUMNS, *CHEAP[:-1], "marketing")

    assert (3, "") == (refused.returncode, refused.stdout)
    assert "The people gave their handwriting for research, not for marketing." in refused.stderr
    assert "purpose_not_permitted" in refused.stderr


def test_a_parameter_that_cannot_be_is_status_2_and_is_named(node: DemoNode, shell: Shell) -> None:
    before = node.entries()
    unfit = [
        shell.run("train", "--model", "model.json", *COLUMNS, *CHEAP, "--set", pair)
        for pair in ("local_epochs=NaN", "local_epochs=-1", "sigma=1", "batch_size=big")
    ]

    assert [2, 2, 2, 2] == [one.returncode for one in unfit]
    names = ("local_epochs", "local_epochs", "noise_multiplier", "batch_size")
    assert all(name in one.stderr for name, one in zip(names, unfit, strict=True))
    assert before == node.entries()


def test_budget_and_ledger_show_the_same_as_rest(node: DemoNode, shell: Shell) -> None:
    (reading,) = [one for one in shell.read("budget") if one["scope"] == "population"]
    ours = node.sam.read("/v1/ledger/entries", limit=1000)["items"]

    assert node.budget() == reading
    assert [entry["leaf_hash"] for entry in ours] == [
        entry["leaf_hash"] for entry in shell.read("ledger", "--limit", "1000")
    ]
    assert "decision" in shell.said("ledger", "--kind", "decision")


def test_an_auditor_reads_the_whole_ledger_and_trains_nothing(node: DemoNode, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.log_in(node, AUDITOR)
    (tmp_path / "model.json").write_text(json.dumps(MODEL))
    forbidden = shell.run("train", "--model", "model.json", *COLUMNS, *CHEAP)

    assert [entry["index"] for entry in node.entries()] == [
        entry["index"] for entry in shell.read("ledger", "--limit", "1000")
    ]
    assert (1, True) == (forbidden.returncode, "[forbidden" in forbidden.stderr)


def test_after_a_logout_every_command_says_how_to_log_in(shell: Shell) -> None:
    shell.said("logout")
    done = shell.run("runs", "list")

    assert (4, "", "Error: You are not logged in: run `pysytff login`.\n") == (
        done.returncode,
        done.stdout,
        done.stderr,
    )


def test_plain_http_to_another_machine_is_refused_before_the_password_leaves(tmp_path: Path) -> None:
    done = Shell(tmp_path).run("login", "--email", "a@b.c", "--url", "http://192.0.2.1:8081", PYSYTFF_PASSWORD="x")

    assert (1, True) == (done.returncode, "plain HTTP to another machine" in done.stderr)


def test_the_program_comes_with_the_sdk_and_starts_from_anywhere(tmp_path: Path) -> None:
    assert CHECKOUT not in tmp_path.parents
    assert Shell(tmp_path).said("--version").strip()
