"""The worker's settings: what is missing or unsafe is named, and the credential is shown nowhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner.__main__ import SettingsError, main, read_settings
from runner.journal import Journal
from tests.integration.runner.made_data import grant


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    credential = tmp_path / "credential"
    credential.write_text("pysr_secret\n")
    credential.chmod(0o600)
    (tmp_path / "data").mkdir()
    return {
        "PYSYTFF_API_URL": "http://127.0.0.1:8081",
        "PYSYTFF_RUNNER_CREDENTIAL_FILE": str(credential),
        "PYSYTFF_DATA_ROOT": str(tmp_path / "data"),
        "PYSYTFF_SCRATCH_DIR": str(tmp_path / "scratch"),
    }


def test_settings_come_from_the_environment(environment: dict[str, str], tmp_path: Path) -> None:
    settings = read_settings(environment | {"PYSYTFF_JOB_SECONDS": "60"})
    assert ("pysr_secret", 60.0) == (settings.credential, settings.worker.job_seconds)
    assert 0o700 == os.stat(tmp_path / "scratch").st_mode & 0o777


def test_the_credential_is_not_shown(environment: dict[str, str]) -> None:
    assert "pysr_secret" not in repr(read_settings(environment))


@pytest.mark.parametrize(
    "name",
    ["PYSYTFF_API_URL", "PYSYTFF_RUNNER_CREDENTIAL_FILE", "PYSYTFF_DATA_ROOT", "PYSYTFF_SCRATCH_DIR"],
)
def test_a_missing_setting_is_named(environment: dict[str, str], name: str) -> None:
    del environment[name]
    with pytest.raises(SettingsError, match=f"{name} is not set"):
        read_settings(environment)


def test_a_credential_that_others_can_read_is_refused(environment: dict[str, str]) -> None:
    os.chmod(environment["PYSYTFF_RUNNER_CREDENTIAL_FILE"], 0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        read_settings(environment)


@pytest.mark.parametrize("seconds", ["soon", "0", "-1", "nan", "inf"])
def test_a_time_limit_that_is_none_is_refused(environment: dict[str, str], seconds: str) -> None:
    with pytest.raises(SettingsError, match="PYSYTFF_JOB_SECONDS"):
        read_settings(environment | {"PYSYTFF_JOB_SECONDS": seconds})


def test_a_data_root_or_credential_that_is_not_there_is_named(environment: dict[str, str]) -> None:
    for name in ("PYSYTFF_DATA_ROOT", "PYSYTFF_RUNNER_CREDENTIAL_FILE"):
        with pytest.raises(SettingsError, match=name):
            read_settings(environment | {name: "/nowhere"})


def test_the_journal_is_beside_the_scratch_directory_unless_it_is_said_where(
    environment: dict[str, str], tmp_path: Path
) -> None:
    assert tmp_path / "journal" == read_settings(environment).worker.journal_directory
    elsewhere = environment | {"PYSYTFF_JOURNAL_DIR": str(tmp_path / "kept")}
    assert tmp_path / "kept" == read_settings(elsewhere).worker.journal_directory


def test_a_report_is_what_the_worker_would_post_and_is_never_written_over(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "report.json"
    assert 2 == main(["report", "--out", str(out)])
    assert "journal.jsonl: cannot be read" in capsys.readouterr().err
    journal = Journal(tmp_path / "journal")  # and it stays open, as a worker's
    journal.claimed(grant())
    journal.permitted("gra_1", 0, 2)
    assert 0 == main(["report", "--out", str(out)])
    assert [one.to_json() for one in journal.reports()] == json.loads(out.read_text())
    assert 2 == main(["report", "--out", str(out)])


def test_a_second_worker_on_one_journal_says_so_and_ends(environment: dict[str, str], tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    second = subprocess.run(
        [sys.executable, "-m", "runner"], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    journal.close()
    assert 4 == second.returncode
    assert "another worker has it" in json.loads(second.stderr)["why"]
