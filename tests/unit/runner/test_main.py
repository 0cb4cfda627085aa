"""The worker's settings: what is missing or unsafe is named, and the credential is shown nowhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.__main__ import SettingsError, read_settings


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
