"""The command ``pysytff-verify``: its exit status, what it prints, and what it does without."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from governance.ledger import verify_main
from governance.ledger.findings import MEANINGS
from governance.ledger.notes import SignerKey
from governance.ledger.verify_main import app
from tests.unit.governance.ledger.made_ledger import LOG_KEY, WITNESS, Made, every_end, export, signed

ROOT = Path(__file__).resolve().parents[4]
PINNED = ("--log-key", LOG_KEY.verifier.encode())
WITNESSED = ("--witness-key", WITNESS.verifier.encode())

# Imports that an auditor's machine need not have; whoever asks for one fails.
WITHOUT = """
import importlib.abc, sys

ABSENT = ("sqlalchemy", "alembic", "psycopg", "tensorflow", "tensorflow_federated", "httpx", "fastapi", "starlette",
          "pyarrow", "structlog", "uvicorn", "dp_accounting", "api", "runner", "migrations",
          "governance.model", "governance.ledger.tables", "governance.ledger.database")

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ABSENT or name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"{name} is not here", name=name)

def offline(event, arguments):
    if event.startswith("socket."):
        raise OSError("there is no network here")

sys.meta_path.insert(0, Absent())
sys.addaudithook(offline)
from governance.ledger.verify_main import app
app(prog_name="pysytff-verify")
"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def written(folder: Path, made: Made, *keys: SignerKey) -> tuple[Path, Path]:
    bodies = made.bodies()
    ledger, checkpoint = folder / "ledger.jsonl", folder / "checkpoint"
    ledger.write_bytes(export(bodies).read())
    checkpoint.write_text(signed(bodies, *keys or (LOG_KEY, WITNESS)).note.encode(), encoding="utf-8")
    return ledger, checkpoint


def test_a_whole_ledger_is_verified_with_status_0(tmp_path: Path) -> None:
    ledger, checkpoint = written(tmp_path, every_end())
    found = call(ledger, "--checkpoint", checkpoint, *PINNED, *WITNESSED)

    assert 0 == found.exit_code
    assert "Verified." in found.output
    assert "pop_1" in found.output
    assert "co-signed by witness.example.org at 2027-01-15" in found.output
    assert "WARNING" not in found.output


def test_what_was_found_is_shown_with_its_entry_and_meaning_and_status_1(tmp_path: Path) -> None:
    made = every_end()
    made.rows.pop(8)
    ledger, checkpoint = written(tmp_path, made)
    found = call(ledger, "--checkpoint", checkpoint, *PINNED)

    assert 1 == found.exit_code
    assert "publication_without_debits" in found.output
    assert "was published whose rounds were not all debited" in found.output
    assert "NOT verified" in found.output


def test_json_holds_the_whole_report(tmp_path: Path) -> None:
    made = every_end()
    made.rows.pop(8)
    ledger, checkpoint = written(tmp_path, made)
    found = call(ledger, "--checkpoint", checkpoint, *PINNED, "--json")
    report = json.loads(found.output)

    assert (1, False, 31) == (found.exit_code, report["verified"], report["entries"])
    assert {"publication_without_debits": 1} == report["findings_by_code"]
    assert [8] == [one["index"] for one in report["findings"]]
    assert MEANINGS["publication_without_debits"] == report["findings"][0]["meaning"]
    assert "pop_1" == report["populations"][0]["id"]


def test_a_key_that_was_not_pinned_is_warned_about(tmp_path: Path) -> None:
    ledger, checkpoint = written(tmp_path, every_end())
    found = call(ledger, "--checkpoint", checkpoint)
    assert 0 == found.exit_code
    assert "WARNING: no --log-key was given" in found.output


def test_without_a_checkpoint_it_has_to_be_said_and_is_warned_about(tmp_path: Path) -> None:
    ledger, _ = written(tmp_path, every_end())
    assert 2 == call(ledger).exit_code
    found = call(ledger, "--without-checkpoint")
    assert 0 == found.exit_code
    assert "WARNING: no checkpoint was given" in found.output


def test_an_earlier_export_and_an_earlier_checkpoint_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    old_ledger, old_checkpoint = written(tmp_path / "old", every_end())
    made = every_end()
    made.whole_run("run_7")
    ledger, checkpoint = written(tmp_path, made)
    arguments = (ledger, "--checkpoint", checkpoint, *PINNED)
    backwards = (old_ledger, "--checkpoint", old_checkpoint, *PINNED, "--json")

    assert 0 == call(*arguments, "--previous", old_ledger, "--previous", old_checkpoint).exit_code
    for newer in (ledger, checkpoint):
        found = call(*backwards, "--previous", newer)
        assert (1, {"rolled_back": 1}) == (found.exit_code, json.loads(found.output)["findings_by_code"])


def test_full_curves_are_computed_again(tmp_path: Path) -> None:
    made = Made()
    made.key(LOG_KEY)
    made.policies()
    made.opened()
    made.decided("run_1")
    charge = made.rows[-1].facts["charge"]
    charge["units_per_round"] = [str(2 * int(units)) for units in charge["units_per_round"]]
    ledger, checkpoint = written(tmp_path, made)
    arguments = (ledger, "--checkpoint", checkpoint, *PINNED)

    assert 0 == call(*arguments).exit_code
    assert "curve_mismatch" in call(*arguments, "--full-curves").output


@pytest.mark.parametrize("content", ["", "nonsense", "a\n1\nAAAA\n\n\u2014 a AAAA\n"])
def test_a_file_that_is_no_checkpoint_is_a_finding(tmp_path: Path, content: str) -> None:
    ledger, checkpoint = written(tmp_path, every_end())
    checkpoint.write_text(content, encoding="utf-8")
    found = call(ledger, "--checkpoint", checkpoint, *PINNED)
    assert 1 == found.exit_code
    assert "bad_checkpoint" in found.output


def test_wrong_usage_and_unreadable_files_are_status_2(tmp_path: Path) -> None:
    ledger, checkpoint = written(tmp_path, every_end())
    assert [2] * 7 == [
        call().exit_code,
        call(tmp_path / "absent", "--checkpoint", checkpoint).exit_code,
        call(tmp_path, "--checkpoint", checkpoint).exit_code,
        call(ledger, "--checkpoint", tmp_path / "absent").exit_code,
        call(ledger, "--checkpoint", checkpoint, "--log-key", "nonsense").exit_code,
        call(ledger, "--checkpoint", checkpoint, "--witness-key", "a+00000000+AAAA").exit_code,
        call(ledger, "--checkpoint", checkpoint, "--previous", ledger, "--previous", ledger).exit_code,
    ]


def test_anchors_that_nothing_is_checked_against_are_wrong_usage(tmp_path: Path) -> None:
    ledger, _ = written(tmp_path, every_end())
    assert [2, 2] == [call(ledger, "--without-checkpoint", *one).exit_code for one in (PINNED, WITNESSED)]


class Unreadable(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        raise OSError(errno.EIO, "the disk is broken")


def test_a_file_that_opens_and_cannot_be_read_is_status_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, checkpoint = written(tmp_path, every_end())
    opened = verify_main._opened
    broken = tmp_path / "broken"
    monkeypatch.setattr(verify_main, "_opened", lambda path: Unreadable() if path == broken else opened(path))
    for arguments in (("--checkpoint", broken), ("--checkpoint", checkpoint, "--previous", broken)):
        found = call(ledger, *arguments)
        assert 2 == found.exit_code
        assert "broken cannot be read: the disk is broken" in found.output


def test_a_terminal_without_greek_letters_gets_the_report_too(tmp_path: Path) -> None:
    made = every_end()
    made.quota("project", "prj_\u03b5")
    ledger, checkpoint = written(tmp_path, made)
    command = [sys.executable, "-m", "governance.ledger.verify_main", str(ledger), "--checkpoint", str(checkpoint)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=120, check=False)
    assert (0, b"") == (found.returncode, found.stderr)
    assert b"spent epsilon" in found.stdout
    assert b"prj_\\u03b5" in found.stdout


def test_a_hostile_ledger_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    made = every_end()
    made.rows[2].subjects["population_id"] = "\x1b[2J[red]x"
    ledger, checkpoint = written(tmp_path, made)
    found = call(ledger, "--checkpoint", checkpoint, *PINNED)
    assert "\x1b[2J" not in found.output
    assert "\\x1b[2J[red]x" in found.output


def test_it_runs_where_no_database_no_tensorflow_and_no_network_can_be_imported(tmp_path: Path) -> None:
    ledger, checkpoint = written(tmp_path, every_end())
    command = [sys.executable, "-c", WITHOUT, str(ledger), "--checkpoint", str(checkpoint), *PINNED, *WITNESSED]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (0, "") == (found.returncode, found.stderr)
    assert "Verified." in found.stdout


def test_help_says_what_it_needs_and_what_its_status_means() -> None:
    found = call("--help")
    assert 0 == found.exit_code
    for word in ("--checkpoint", "--log-key", "--witness-key", "--previous", "--full-curves", "--json", "Exit status"):
        assert word in found.output
