"""The commands that the README names, as processes of their own: an operator's, an auditor's, and a witness's.

Invariants
- A command is what ``[project.scripts]`` says, so that a document and an installed package mean the same.
- Nothing of the tests' environment but the path reaches an auditor or a witness.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.e2e.programs import Program
from tests.integration.processes.nodes import CHECKOUT, pysytff_server

_SCRIPTS: dict[str, str] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["scripts"]
_KEY = r"\S+\+[0-9a-f]{8}\+\S+"


def script(name: str) -> list[str]:
    """What the installed program of this name does."""
    module, _, function = _SCRIPTS[name].partition(":")
    return [sys.executable, "-c", f"import sys; from {module} import {function}; sys.exit({function}())"]


def stranger(folder: Path, name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command in somebody's folder, who has no node."""
    command = [*script(name), *map(str, arguments)]
    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(folder)}
    return subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def operator(folder: Path, *arguments: str, **variables: str) -> str:
    """What ``pysytff-server`` says on the node's host, where it has to succeed."""
    done = pysytff_server(folder, *arguments, **variables)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def log_key(folder: Path, **variables: str) -> str:
    """The key in force, as the node's operator reads it."""
    (found,) = re.findall(rf"^key: ({_KEY})$", operator(folder, "ledger", "status", **variables), re.MULTILINE)
    return str(found)


class Witness:
    """``pysytff-witness`` of somebody else on this machine."""

    def __init__(self, folder: Path, log: str) -> None:
        self.folder = folder
        folder.mkdir()
        self.key = self._said("init", "--name", "witness.example.org/w1", "--log", log).strip()
        log_file = folder / "serve.log"
        environment = {
            "PATH": os.environ["PATH"],
            "PYSYTFF_WITNESS_DIR": str(folder / "state"),
            "PYTHONUNBUFFERED": "1",
        }
        self._program = Program([*script("pysytff-witness"), "serve", "--port", "0"], environment, log_file)
        self._program.wait_said("listens on")
        (port,) = re.findall(r"listens on 127\.0\.0\.1 port (\d+)", self._program.said())
        self.url = f"http://127.0.0.1:{port}"

    def trust(self, key: str) -> None:
        self._said("trust", key)

    def stop(self) -> None:
        self._program.stop()

    def _said(self, *arguments: str) -> str:
        done = stranger(self.folder, "pysytff-witness", arguments[0], "--dir", self.folder / "state", *arguments[1:])
        assert (0, "") == (done.returncode, done.stderr)
        return done.stdout
