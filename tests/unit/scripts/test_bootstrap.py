from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import bootstrap

CHECKOUT = Path(__file__).resolve().parents[3]


def make_environment(folder: Path, stamp: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    (folder / bootstrap.STAMP).write_text(stamp)
    return folder


def test_an_environment_is_current_until_its_lock_changes(tmp_path: Path) -> None:
    lock, folder = tmp_path / "dev.txt", tmp_path / ".venv"
    lock.write_text("a==1\n")
    make_environment(folder, bootstrap.fingerprint([lock], folder))
    assert bootstrap.is_current(folder, bootstrap.fingerprint([lock], folder))

    lock.write_text("a==2\n")
    assert not bootstrap.is_current(folder, bootstrap.fingerprint([lock], folder))


def test_a_moved_environment_is_not_current(tmp_path: Path) -> None:
    lock = tmp_path / "dev.txt"
    lock.write_text("a==1\n")
    folder = make_environment(tmp_path / "here", bootstrap.fingerprint([lock], tmp_path / "here"))
    moved = folder.rename(tmp_path / "there")

    assert not bootstrap.is_current(moved, bootstrap.fingerprint([lock], moved))


def test_an_environment_that_was_made_anew_by_others_is_not_current(tmp_path: Path) -> None:
    folder = make_environment(tmp_path / ".venv", "expected")
    (folder / bootstrap.STAMP).unlink()

    assert not bootstrap.is_current(folder, "expected")


def test_an_environment_whose_python_is_gone_is_not_current(tmp_path: Path) -> None:
    folder = make_environment(tmp_path / ".venv", "expected")
    (folder / "bin" / "python").unlink()

    assert not bootstrap.is_current(folder, "expected")


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("/nonexistent/python3.11", "PYTHON=/nonexistent/python3.11 does not start."),
        ("PRETENDED", "is Python 3.9.1."),
    ],
)
def test_a_missing_or_wrong_python_is_a_clear_error(tmp_path: Path, python: str, said: str) -> None:
    pretended = tmp_path / "python"
    pretended.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.1" && exit 0\nexit 1\n')
    pretended.chmod(0o755)
    command = ["/bin/sh", str(CHECKOUT / "scripts" / "setup.sh"), python.replace("PRETENDED", str(pretended))]
    answer = subprocess.run(command, capture_output=True, text=True)

    assert (1, "") == (answer.returncode, answer.stdout)
    assert f"PySyTFF needs Python 3.11: PYTHON={command[-1]}" in answer.stderr
    assert said in answer.stderr


def test_where_no_python_3_11_is_on_the_path_the_error_says_what_to_do(tmp_path: Path) -> None:
    for tool in ("dirname", "head"):
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}")
    command = ["/bin/sh", str(CHECKOUT / "scripts" / "setup.sh")]
    answer = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True)

    assert (1, "") == (answer.returncode, answer.stdout)
    assert "make setup PYTHON=/path/to/python3.11" in answer.stderr


def test_settings_for_pip_reach_uv_unless_uv_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    assert "https://mirror.example/simple" == bootstrap._installer_environment()["UV_DEFAULT_INDEX"]

    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://other.example/simple")
    assert "https://other.example/simple" == bootstrap._installer_environment()["UV_DEFAULT_INDEX"]
    assert os.environ["PATH"] == bootstrap._installer_environment()["PATH"]
