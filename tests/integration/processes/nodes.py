"""Runs ``pysytff-server`` as a person would, and looks at its processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

CHECKOUT = Path(__file__).resolve().parents[3]
PATIENCE_S = 60.0


def environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    clean = {
        name: value for name, value in kept.items() if not name.startswith("PYSYTFF_") or name == "PYSYTFF_OPA_PATH"
    }
    return clean | {"PYSYTFF_DATA_DIR": str(folder)}


def pysytff_server(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "api.cli", *arguments]
    settings = environment(folder) | variables
    return subprocess.run(command, cwd=CHECKOUT, env=settings, stdin=subprocess.DEVNULL, capture_output=True, text=True)


class Node:
    """``pysytff-server up`` on a free port."""

    def __init__(self, folder: Path, *options: str) -> None:
        command = [sys.executable, "-m", "api.cli", "up", "--port", "0", *options]
        self.process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.url = ""

    def wait_up(self) -> Node:
        for line in self.lines():
            found = re.match(r"node +is up at (\S+)", line)
            if found:
                self.url = found[1]
                return self
        raise AssertionError(self.process.communicate()[1])

    def wait_line(self, wanted: str) -> None:
        for line in self.lines():
            if wanted in line:
                return
        raise AssertionError(self.process.communicate()[1])

    def lines(self) -> IO[str]:
        """Line by line, as they come."""
        assert self.process.stdout is not None
        return self.process.stdout

    def child(self, of: str) -> int:
        """The process of ours whose command line holds ``of``."""
        return next(pid for pid in self.descendants() if of in command_line(pid))

    def descendants(self) -> list[int]:
        found: list[int] = []
        left = [self.process.pid]
        while left:
            pid = left.pop()
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                children = [int(child) for child in task.read_text().split()]
                found += children
                left += children
        return found

    def ended(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, errors


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"  # it has ended; whoever adopted it reaps it


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not so after {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.05)


def wait_gone(pids: list[int]) -> None:
    wait_until(lambda: all(is_gone(pid) for pid in pids), f"{pids} are gone")


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/v1/ready", timeout=10) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
