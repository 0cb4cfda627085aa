"""The supervisor with real processes: nothing outlives it, whichever way it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.processes.nodes import CHECKOUT, wait_gone

# Each child writes its number down, then waits for TERM; "stubborn" ignores TERM, "fragile" ends by itself when told,
# "stillborn" before it was ready.
CHILD = """
import os, pathlib, signal, sys, time
kind, folder = sys.argv[1], pathlib.Path(sys.argv[2])
if kind == "stillborn":
    sys.exit(7)
if kind == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if kind == "stubborn":  # a grandchild that would be left behind
    import subprocess
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (folder / "grandchild.pid").write_text(str(grandchild.pid))
print("this is", kind, flush=True)
(folder / f"{kind}.pid").write_text(str(os.getpid()))
while True:
    time.sleep(0.05)
    if (folder / f"{kind}.end").exists():
        sys.exit(7)
"""

PARENT = """
import os, pathlib, sys
from api.errors import ProcessError
from api.processes import OwnProcess, Supervisor
folder, program, kinds = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
def child(kind):
    return OwnProcess(kind, [sys.executable, "-c", program, kind, str(folder)], os.environ, folder / f"{kind}.log",
                      ready=lambda: "ready" if (folder / f"{kind}.pid").exists() else None,
                      ready_timeout_s=20.0, stop_timeout_s=1.0)
tell = lambda name, text: print(name, text, flush=True)
try:
    Supervisor(tell).run([child(kind) for kind in kinds], up=lambda: tell("all", "up"), tick=lambda: None)
except ProcessError as error:
    sys.exit(f"error: {error}")
"""


class Parent:
    def __init__(self, folder: Path, *kinds: str) -> None:
        self.folder = folder
        command = [sys.executable, "-c", PARENT, str(folder), CHILD, *kinds]
        self.process = subprocess.Popen(
            command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
        )

    def wait_up(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line == "all up\n":
                return
        raise AssertionError(self.process.communicate()[1])

    def pid(self, name: str) -> int:
        return int((self.folder / f"{name}.pid").read_text())

    def ended(self) -> tuple[int, str, str]:
        output, errors = self.process.communicate(timeout=60)
        return self.process.returncode, output, errors


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Parent]]:
    parents: list[Parent] = []

    def start_parent(*kinds: str) -> Parent:
        parents.append(Parent(tmp_path, *kinds))
        return parents[-1]

    yield start_parent
    for parent in parents:
        if parent.process.poll() is None:
            parent.process.kill()
            parent.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_children_in_reverse_order_with_status_0(
    start: Callable[..., Parent], number: signal.Signals
) -> None:
    parent = start("first", "second")
    parent.wait_up()
    os.kill(parent.process.pid, number)
    status, output, errors = parent.ended()

    assert (0, "second ended\nfirst ended\n", "") == (status, output, errors)
    wait_gone([parent.pid("first"), parent.pid("second")])


def test_a_child_that_ends_by_itself_ends_all_and_its_last_words_are_shown(start: Callable[..., Parent]) -> None:
    parent = start("first", "fragile")
    parent.wait_up()
    (parent.folder / "fragile.end").touch()
    status, _, errors = parent.ended()

    assert status == 1
    assert "fragile ended with status 7; the last lines of" in errors
    assert "    this is fragile" in errors
    wait_gone([parent.pid("first")])


def test_a_child_that_is_killed_ends_all_and_the_signal_is_named(start: Callable[..., Parent]) -> None:
    parent = start("first", "second")
    parent.wait_up()
    os.kill(parent.pid("first"), signal.SIGKILL)
    status, _, errors = parent.ended()

    assert (1, True) == (status, "first ended by signal SIGKILL" in errors)
    wait_gone([parent.pid("second")])


def test_no_child_outlives_a_parent_that_is_killed(start: Callable[..., Parent]) -> None:
    parent = start("first", "second")
    parent.wait_up()
    parent.process.kill()
    parent.process.communicate()

    wait_gone([parent.pid("first"), parent.pid("second")])


def test_a_child_that_ignores_the_request_to_end_is_killed_with_its_own_children(start: Callable[..., Parent]) -> None:
    parent = start("stubborn")
    parent.wait_up()
    os.kill(parent.process.pid, signal.SIGTERM)
    status, _, _ = parent.ended()

    assert status == 0
    wait_gone([parent.pid("stubborn"), parent.pid("grandchild")])


def test_a_child_that_ends_before_it_is_ready_is_an_error_and_the_earlier_ones_end(
    start: Callable[..., Parent],
) -> None:
    parent = start("first", "stillborn")
    status, output, errors = parent.ended()

    assert (1, True) == (status, "stillborn ended with status 7" in errors)
    assert "first ended" in output
    wait_gone([parent.pid("first")])
