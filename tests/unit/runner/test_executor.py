"""TFF's worker process starts without TensorFlow in ours, and ends with its parent, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner.errors import ExecutorError
from runner.executor import Executor, worker_binary


def test_it_starts_listens_and_stops(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        executor = Executor.start(log)
        executor.wait_ready()
        executor.stop()
    assert -signal.SIGKILL == executor.process.returncode


def test_one_that_ends_early_is_reported_and_not_waited_for(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        executor = Executor.start(log)
        executor.stop()
    with pytest.raises(ExecutorError, match="ended with status"):
        executor.wait_ready()


def test_it_is_found_without_importing_tensorflow_federated() -> None:
    check = (
        "import sys; from runner.executor import worker_binary; worker_binary(); "
        "sys.exit('tensorflow_federated' in sys.modules)"
    )
    assert 0 == subprocess.run([sys.executable, "-c", check], check=False).returncode
    assert worker_binary().is_file()


def test_it_dies_when_its_parent_is_killed() -> None:
    program = (
        "import time; from runner.executor import Executor; "
        "print(Executor.start(2).process.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
    assert Path(f"/proc/{child}").exists()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and _is_alive(child):
        time.sleep(0.02)
    assert not _is_alive(child)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
