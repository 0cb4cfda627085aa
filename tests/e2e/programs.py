"""Programs that tests start and surely end, and a look at the processes that belong to them.

Invariants
- Every program asks the kernel for TERM when the test session dies, so a killed pytest leaves no node behind.
- Waiting is polling with an end; what was waited for is in the message.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from api.processes import die_with
from tests.integration.processes.nodes import CHECKOUT, command_line, environment, is_gone

PATIENCE_S = 150.0  # of a machine that is busy with other things; what is waited for takes seconds
STOP_S = 60.0
SERVER = (sys.executable, "-m", "api.cli")


class Program:
    """A running command in a session of its own; its output goes to ``log``."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=CHECKOUT,
                env=dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with(os.getpid()),
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_said(self, wanted: str) -> None:
        def said() -> bool:
            ended = self.process.poll()
            found = wanted in self.said()
            assert found or ended is None, f"ended with status {ended}:\n{self.said()}"
            return found

        wait_until(said, f"it says {wanted!r}")

    def stop(self) -> int:
        """Asks it to end, and kills it if it does not; its status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()


def server_program(folder: Path, *arguments: str, log: Path, **variables: str) -> Program:
    """``pysytff-server`` with these arguments, for the node in ``folder``."""
    settings = environment(folder) | variables | {"PYTHONUNBUFFERED": "1"}
    return Program([*SERVER, *arguments], settings, log)


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    left = [pid]
    while left:
        for task in Path(f"/proc/{left.pop()}/task").glob("*/children"):
            try:
                children = [int(child) for child in task.read_text().split()]
            except OSError:  # it ended meanwhile
                continue
            found += children
            left += children
    return found


def matching(pid: int, of: str) -> list[int]:
    """The living descendants whose command line holds ``of``."""
    return [child for child in descendants(pid) if of in command_line(child) and not is_gone(child)]


@contextlib.contextmanager
def no_room_for(pid: int) -> Iterator[None]:
    """Writes to files by this process, and by those that it starts meanwhile, fail as on a full disk."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # it may have ended of it
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def wait_until(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"not so after {patience_s:.0f} s: {what}"
        time.sleep(0.05)


def wait_gone(pids: Sequence[int]) -> None:
    wait_until(lambda: all(is_gone(pid) for pid in pids), f"{pids} are gone")
