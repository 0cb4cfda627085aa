"""An auditor with an account, an hour and the documents: what is taken home verifies, and what was changed is found."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from examples.digits.seed import AUDITOR
from tests.e2e.commands import operator, stranger
from tests.e2e.conftest import WitnessedNode
from tests.e2e.nodes import DemoNode, Json
from tests.e2e.programs import wait_until
from tests.e2e.test_command_line import Shell

Lines = list[bytes]
Damage = Callable[[Lines], Lines]


@dataclass(frozen=True)
class Audited:
    """A node's auditor at their own machine, and the runs that they look into."""

    shell: Shell
    node: DemoNode
    witnessed: WitnessedNode
    published: str  # runs
    clamped: str  # decisions
    refused: str

    def export(self, name: str) -> Path:
        """``ledger export``, once everything that is in the ledger now is signed and cosigned."""
        size = len(self.node.entries())
        file = self.shell.home / name
        beside = file.with_name(f"{name}.checkpoint")

        def complete() -> bool:
            made = self.shell.read("ledger", "export", "--out", name)
            cosigned = self.witnessed.witness.key.partition("+")[0] in beside.read_text()
            return bool(made["ledger_size"] >= size and cosigned)

        wait_until(complete, "everything is signed and cosigned")
        return file

    def verify(self, file: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
        given = ("--checkpoint", f"{file}.checkpoint", "--log-key", self.witnessed.log_key)
        return stranger(self.shell.home, "pysytff-verify", file, *given, *options)


@pytest.fixture(scope="module")
def audited(witnessed: WitnessedNode, tmp_path_factory: pytest.TempPathFactory) -> Audited:
    node = witnessed.node
    run_id = node.sam.submit(node.request(rounds=5), "auditor-published").json()["run_id"]
    wish = node.request(noise_multiplier=0.05, rounds=5, clients_per_round=2)
    clamped = node.sam.submit(wish, "auditor-clamped").json()
    refused = node.sam.submit(node.request(purpose="marketing"), "auditor-refused").json()["decision"]
    assert ("clamped", "refused") == (clamped["outcome"], refused["outcome"])
    assert 200 == node.sam.call("POST", f"/v1/runs/{clamped['run_id']}:cancel").status_code
    shell = Shell(tmp_path_factory.mktemp("auditor"))
    assert 0 == shell.log_in(node, AUDITOR).returncode
    node.wait_run(run_id, "published")
    return Audited(shell, node, witnessed, run_id, clamped["id"], refused["id"])


@pytest.fixture(scope="module")
def taken_home(audited: Audited) -> Path:
    return audited.export("ledger.jsonl")


def test_an_export_verifies_offline_and_shows_what_the_node_says_was_spent(audited: Audited, taken_home: Path) -> None:
    done = audited.verify(taken_home, "--witness-key", audited.witnessed.witness.key, "--full-curves")

    assert (0, "") == (done.returncode, done.stderr), done.stdout
    assert done.stdout.rstrip().endswith("Verified.")
    assert f"trusted: the pinned key {audited.witnessed.log_key}" in done.stdout
    assert "co-signed by witness.example.org/w1 at 20" in done.stdout
    (row,) = [line.split() for line in done.stdout.splitlines() if audited.node.population_id in line]
    budget = audited.node.budget()
    spent, committed = (f"{budget[name]:.4f}" for name in ("spent_epsilon", "committed_epsilon"))
    assert ["8", "1e-05", spent, committed, "2", "1", "1"] == row[1:]
    assert "0.0000" != spent


def changed_byte(lines: Lines) -> Lines:
    at = next(index for index, line in enumerate(lines) if b'"kind":"publication"' in line)
    return [*lines[:at], lines[at].replace(b'"rounds":5', b'"rounds":6'), *lines[at + 1 :]]


def dropped(lines: Lines) -> Lines:
    return [line for line in lines if b'"kind":"debit"' not in line]


def swapped(lines: Lines) -> Lines:
    return [*lines[:-2], lines[-1], lines[-2]]


def appended(lines: Lines) -> Lines:
    last = json.loads(lines[-1])
    more = lines[-1].replace(b'"index":%d,' % last["index"], b'"index":%d,' % (last["index"] + 1))
    return [*lines, more]


def cut_short(lines: Lines) -> Lines:
    return lines[:-1]


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (changed_byte, "root_mismatch"),
        (dropped, "missing_entry"),
        (swapped, "reordered_entry"),
        (appended, "unsigned_entry"),
        (cut_short, "missing_entry"),
    ],
)
def test_whatever_is_done_to_an_export_is_found_and_named(
    audited: Audited, taken_home: Path, damage: Damage, named: str
) -> None:
    before = taken_home.read_bytes().splitlines(keepends=True)
    after = damage(before)
    assert before != after
    damaged = audited.shell.home / "damaged.jsonl"
    damaged.write_bytes(b"".join(after))
    damaged.with_name("damaged.jsonl.checkpoint").write_bytes(Path(f"{taken_home}.checkpoint").read_bytes())
    done = audited.verify(damaged)

    assert (1, "") == (done.returncode, done.stderr)
    assert "NOT verified" in done.stdout
    assert named in done.stdout


def test_neither_another_log_nor_another_witness_is_believed(audited: Audited, taken_home: Path) -> None:
    other = stranger(
        audited.shell.home, "pysytff-witness", "init", "--dir", "other", "--name", "witness.example.org/w2"
    )
    by_witness = audited.verify(taken_home, "--witness-key", other.stdout.strip(), "--json")
    name, _, _ = audited.witnessed.log_key.partition("+")
    another = f"{name}+00000000+AZ{'A' * 42}"
    by_log = stranger(
        audited.shell.home,
        "pysytff-verify", taken_home, "--checkpoint", f"{taken_home}.checkpoint", "--log-key", another,
    )  # fmt: skip
    wrong = stranger(audited.shell.home, "pysytff-verify", taken_home)

    assert (1, {"witness_missing": 1}) == (by_witness.returncode, json.loads(by_witness.stdout)["findings_by_code"])
    assert (2, True) == (by_log.returncode, "--log-key" in by_log.stderr)  # its id is not that of its bytes
    assert (2, True) == (wrong.returncode, "--checkpoint" in wrong.stderr)


def test_the_odometer_is_read_at_any_delta_and_as_of_any_entry(audited: Audited) -> None:
    population = audited.node.population_id
    (published,) = audited.node.entries(run_id=audited.published, kind="publication")
    (decided,) = audited.node.entries(run_id=audited.published, kind="decision")

    def spent(*options: str) -> float:
        answer = audited.shell.read("ledger", "odometer", "digit writers", "--scope", "population", *options)
        assert (population, 8.0, 1e-5) == (answer["population_id"], *answer["guarantee"].values())
        (reading,) = answer["items"]
        return float(reading["spent_epsilon"])

    assert 0.0 == spent("--as-of", str(decided["index"]))
    now, then = spent(), spent("--as-of", str(published["index"]))
    assert now == then == audited.node.budget()["spent_epsilon"]
    assert spent("--delta", "1e-3") < now < spent("--delta", "1e-7")
    shown = audited.shell.said("ledger", "odometer", "digit writers", "--delta", "1e-3")
    assert "odometer readings at δ = 0.001" in shown
    assert "guarantee: ε = 8 at δ = 1e-05" in shown


def test_why_a_request_was_refused_or_clamped_and_what_remains_is_told(audited: Audited) -> None:
    refused = audited.shell.said("ledger", "why", audited.refused)
    clamped = audited.shell.said("ledger", "why", audited.clamped)
    remaining = audited.shell.read("ledger", "remaining", "digit writers", "--like", audited.published)

    assert "The people gave their handwriting for research, not for marketing." in refused
    assert "purpose_not_permitted, by owner:digits" in refused
    assert re.search(r"noise_multiplier +0\.05 +0\.8", clamped)
    assert (audited.published, True) == (remaining["like_run"], remaining["runs"] > 100)
    assert f"about {remaining['runs']} more runs like {audited.published}" in remaining["sentence"]


def test_the_statement_of_a_model_is_confirmed_by_the_ledger_and_written_as_a_page(audited: Audited) -> None:
    shown = audited.shell.said("runs", "statement", audited.published, "--html", "statement.html")
    page = (audited.shell.home / "statement.html").read_text()
    (publication,) = audited.node.entries(run_id=audited.published, kind="publication")

    assert f"confirmed by entry {publication['index']}" in shown
    assert page.startswith("<!doctype html>")
    assert publication["body"]["facts"]["statement_sha256"] in page
    assert [] == re.findall(r"<script|https?://(?!\S*w3\.org)", page)


def test_entries_are_found_and_exported_for_a_spreadsheet(audited: Audited) -> None:
    audited.shell.said("ledger", "export", "--format", "csv", "--run", audited.published, "--out", "run.csv")
    with (audited.shell.home / "run.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    assert ["decision", "granted", "debit", "publication"] == [row["kind"] for row in rows]
    expected = audited.node.entries(run_id=audited.published)
    assert [entry["leaf_hash"] for entry in expected] == [row["leaf_hash"] for row in rows]


def test_an_auditors_account_changes_nothing(audited: Audited) -> None:
    node, auditor = audited.node, audited.node.auditor
    before, budget = node.entries(), node.budget()
    dataset_id = node.sam.read("/v1/datasets")["items"][0]["id"]
    attempts: list[tuple[str, str, Json]] = [
        ("POST", "/v1/train-requests", node.request()),
        ("POST", f"/v1/runs/{audited.published}:cancel", {}),
        ("POST", f"/v1/runs/{audited.published}:resolve", {"kind": "host_lost", "statement": "gone"}),
        ("POST", "/v1/projects", {"name": "mine"}),
        ("POST", "/v1/populations", {"name": "mine", "declared_size": 9, "epsilon": 1.0, "delta": 1e-6}),
        ("PUT", f"/v1/populations/{node.population_id}/quotas", {"scope": "population", "epsilon": 1.0}),
        ("POST", "/v1/datasets", {"population_id": node.population_id, "name": dataset_id}),
        ("POST", "/v1/users", {"email": "x@y.org", "role": "auditor"}),
        ("POST", "/v1/runner/claim", {}),
    ]
    answers = [
        auditor.call(method, path, json=body, headers={"Idempotency-Key": "a"}) for method, path, body in attempts
    ]

    assert [(403, "forbidden")] * len(attempts) == [(one.status_code, one.json()["code"]) for one in answers]
    assert (before, budget) == (node.entries(), node.budget())


def test_after_a_change_of_key_whoever_knows_the_old_one_gets_to_the_new_one(
    audited: Audited, taken_home: Path
) -> None:
    said = operator(audited.node.folder, "ledger", "rotate-key")
    (new_key,) = re.findall(r"^ +(\S+)$", said, re.MULTILINE)
    audited.witnessed.witness.trust(new_key)
    wait_until(lambda: signed_by(audited.node) == new_key, "the new key has signed")
    answer = audited.node.sam.submit(audited.node.request(purpose="marketing"), "after-the-rotation")
    assert 403 == answer.status_code
    later = audited.export("later.jsonl")
    (rotation,) = audited.shell.home.glob("later.jsonl.rotation-*")
    since = ("--witness-key", audited.witnessed.witness.key, "--previous", taken_home)
    followed = audited.verify(later, *since, "--previous", f"{taken_home}.checkpoint", "--checkpoint", rotation)
    unproved = audited.verify(later, *since, "--json")

    operator(audited.node.folder, "ledger", "export", "--out", str(audited.shell.home / "by-hand"))
    by_hand = audited.shell.home / "by-hand" / "ledger.jsonl"
    handed = audited.verify(by_hand, "--checkpoint", by_hand.with_name(rotation.name.replace("later", "ledger")))

    assert (0, True) == (followed.returncode, "Verified." in followed.stdout), followed.stdout
    assert (0, True) == (handed.returncode, "Verified." in handed.stdout), handed.stdout
    assert (1, {"unproved_rotation": 1}) == (unproved.returncode, json.loads(unproved.stdout)["findings_by_code"])
    assert audited.witnessed.log_key != new_key


def signed_by(node: DemoNode) -> str:
    """The key in force for the last checkpoint."""
    size = int(node.auditor.call("GET", "/v1/ledger/checkpoint").text.splitlines()[1])
    keys: list[dict[str, Any]] = node.auditor.read("/v1/ledger/keys")["items"]
    return str([key["verifier_key"] for key in keys if key["from_index"] < size][-1])
