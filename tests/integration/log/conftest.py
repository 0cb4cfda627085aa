"""A log with its first key, and witnesses that are processes of their own."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from api import witness_client, witness_state
from api.witness_client import WitnessAddress
from governance.ledger.notes import VerifierKey

CHECKOUT = Path(__file__).resolve().parents[3]


@dataclass
class WitnessProcess:
    """``pysytff-witness serve`` on a free port of loopback."""

    folder: Path
    process: subprocess.Popen[str]
    key: VerifierKey
    url: str

    @property
    def address(self) -> WitnessAddress:
        return WitnessAddress(self.key, self.url)

    def size(self, origin: str) -> int:
        return witness_state.last_cosigned(self.folder, origin).size

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)


def start_witness(folder: Path, log: VerifierKey) -> WitnessProcess:
    if not (folder / witness_state.KEY).exists():
        witness_state.init(folder, "witness.example/w1")
    witness_state.trust(folder, log.encode())
    process = subprocess.Popen(
        [sys.executable, "-m", "api.witness", "serve", "--port", "0", "--dir", str(folder)],
        cwd=CHECKOUT,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYSYTFF_")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"listens on \S+ port (\d+)", line):
            key = witness_state.show(folder)[0]
            return WitnessProcess(folder, process, key, f"http://127.0.0.1:{found[1]}")
    raise AssertionError(f"the witness ended with status {process.wait()}")


StartWitness = Callable[[Path, VerifierKey], WitnessProcess]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness_client, "TIMEOUT_S", 60.0)  # a busy machine is no witness that is down


@pytest.fixture
def witness_process() -> Iterator[StartWitness]:
    """``witness_process(folder, log's key)``; it ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(folder: Path, log: VerifierKey) -> WitnessProcess:
            made = start_witness(folder, log)
            stack.callback(made.stop)
            return made

        yield start
