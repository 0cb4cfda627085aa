from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from api.errors import SettingsError
from api.settings import load


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("PYSYTFF_") or name == "DATABASE_URL":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_without_any_variable_everything_lies_under_one_absolute_folder(tmp_path: Path) -> None:
    settings = load()

    assert tmp_path / "pysytff-data" == settings.data_dir
    assert tmp_path / "pysytff-data" / "data" == settings.data_root
    assert f"sqlite:///{tmp_path}/pysytff-data/node.sqlite3" == settings.database_url
    assert tmp_path / "pysytff-data" / "secrets" / "runner-credential" == settings.runner_credential_file


def test_the_data_dir_moves_what_is_not_set_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSYTFF_DATA_DIR", "/srv/node")
    monkeypatch.setenv("PYSYTFF_DATA_ROOT", "/mnt/data")
    settings = load()

    assert Path("/mnt/data") == settings.data_root
    assert Path("/srv/node/scratch") == settings.scratch_dir


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSYTFF_PORT", "")

    assert load().port == 8081


def test_a_commands_option_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSYTFF_PORT", "9000")

    assert load(port=9001, host=None).port == 9001


def test_settings_are_frozen() -> None:
    settings = load()

    with pytest.raises(ValidationError):
        settings.port = 1


def test_every_unfit_variable_is_named_once_without_its_consequences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSYTFF_PORT", "70000")
    monkeypatch.setenv("PYSYTFF_OPA_URL", "ftp://x")
    with pytest.raises(SettingsError) as caught:
        load()

    assert [
        "PYSYTFF_PORT: Input should be less than or equal to 65535",
        "PYSYTFF_OPA_URL: must be an http:// or https:// address without query or fragment",
    ] == str(caught.value).splitlines()


def test_an_opa_url_without_its_token_is_refused() -> None:
    with pytest.raises(SettingsError, match="PYSYTFF_OPA_URL and PYSYTFF_OPA_TOKEN are set together"):
        load(opa_url="http://opa:8181")


def test_a_child_that_gets_the_environment_reads_equal_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(data_dir="elsewhere", port=9001, opa_url="http://127.0.0.1:8181/", opa_token="secret")
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir("/")

    assert settings == load()


def test_neither_token_nor_database_password_shows_in_the_representation() -> None:
    settings = load(opa_url="http://opa", opa_token="hush-1", database_url="postgresql://u:hush-2@h/d")

    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:8081"),
        ("0.0.0.0", "http://127.0.0.1:8081"),
        ("::", "http://[::1]:8081"),
        ("node.example", "http://node.example:8081"),
    ],
)
def test_the_runner_reaches_the_api_where_it_listens(host: str, expected: str) -> None:
    assert expected == load(host=host).runner_url


def test_a_runner_elsewhere_is_told_where_the_api_is() -> None:
    settings = load(api_url="https://gate.example/")

    assert ("https://gate.example", "http://127.0.0.1:8081") == (settings.runner_url, settings.own_url)


def test_a_host_header_may_name_loopback_and_the_names_given_or_else_the_address_listened_on() -> None:
    assert ("127.0.0.1", "localhost", "[::1]", "node.example") == load(host="node.example").host_names
    assert ("127.0.0.1", "localhost", "[::1]", "gate.example") == load(
        host="0.0.0.0", allowed_hosts=" Gate.example ,"
    ).host_names
