"""Runs OPA as a tool: ``check``, ``parse``, ``test``, ``build``, ``eval``. Each run is a process of its own with
bounds.

Invariants
- Time, memory and output are bounded, because what OPA reads here may have been written to exhaust it.
- OPA gets no environment but its memory target: no token, no proxy, no credential.

This module does not: interpret what OPA says.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from governance.errors import PolicyEngineError

TIMEOUT_S = 20.0
ADDRESS_SPACE = 2 * 2**30  # Go reserves most of a GiB before it does anything
MAX_OUTPUT_BYTES = 8 * 2**20
_CONFINE = Path(__file__).with_name("confine.py")


@dataclass(frozen=True, slots=True)
class Ran:
    status: int
    output: str
    errors: str
    timed_out: bool = False

    @property
    def succeeded(self) -> bool:
        return self.status == 0 and not self.timed_out

    @property
    def exhausted(self) -> bool:
        """Whether a bound on time or memory ended it (Go reports that memory ran out, and ends by itself)."""
        return self.timed_out or self.status < 0 or "fatal error: out of memory" in self.errors


def run_opa(opa: Path, arguments: list[str], *, directory: Path, timeout_s: float = TIMEOUT_S) -> Ran:
    """Raises ``PolicyEngineError`` only where OPA could not be started at all."""
    specification = {
        "executable": str(opa),
        "arguments": arguments,
        "address_space": ADDRESS_SPACE,
        "cpu_seconds": int(2 * timeout_s) + 1,
        "parent": os.getpid(),
    }
    # Files, not pipes: a pipe would have to be drained while it is bounded.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                confined(specification),
                cwd=directory,
                env={"GOMEMLIMIT": "512MiB"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        except OSError as error:
            raise PolicyEngineError(f"OPA could not be started: {error.strerror}.") from error
        timed_out = False
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return Ran(process.returncode, _read(output), _read(errors), timed_out)


def confined(specification: dict[str, object]) -> list[str]:
    return [sys.executable, "-I", "-S", str(_CONFINE), json.dumps(specification)]


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(MAX_OUTPUT_BYTES).decode("utf-8", "replace")
