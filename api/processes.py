"""Child processes of ``pysytff-server up`` and ``serve``: started in order, watched, and ended together.

Invariants
- No child outlives this process, however it ends. Each child asks the kernel for a signal at its parent's death
  (``PR_SET_PDEATHSIG``), so that even ``kill -9`` of this process ends them, API and runner in good order.
- A child is started when the one before it is ready, and ended in reverse order: TERM to it, a bounded wait, then
  KILL to its whole process group, so that its own children are gone too.
- The first child that ends by itself ends all, unless it says how it can be revived (the policy engine does).

This module does not: know what the children do, or keep their state (each is free to crash at any point).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from api.errors import ProcessError

POLL_S = 0.1
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)  # before any fork: a child may not load libraries


class Child(Protocol):
    """A supervised process. Implementations: ``OwnProcess`` here, and the policy engine's in ``api/up.py``."""

    name: str

    def start(self, asked_to_end: Callable[[], bool]) -> str:
        """Starts it and waits until it is ready. Returns what to tell about it. Raises ``ProcessError``."""

    def check(self) -> None:
        """Raises ``ProcessError`` if it has ended and cannot be revived."""

    def stop(self, in_a_hurry: Callable[[], bool]) -> None:
        """Ends it, and returns when it is gone."""


@dataclass
class OwnProcess:
    """A Python process of ours. ``ready`` is asked until it gives a text; it may raise ``ProcessError``."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    ready: Callable[[], str | None]
    pass_fds: tuple[int, ...] = ()
    working_directory: Path | None = None
    ready_timeout_s: float = 60.0
    stop_timeout_s: float = 15.0

    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self, asked_to_end: Callable[[], bool]) -> str:
        # Opened for appending: the log of the run that failed is still there after the next start.
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                cwd=self.working_directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=self.pass_fds,
                start_new_session=True,
                preexec_fn=die_with(os.getpid()),
            )
        deadline = time.monotonic() + self.ready_timeout_s
        while time.monotonic() < deadline and not asked_to_end():
            self.check()
            told = self.ready()
            if told is not None:
                return told
            time.sleep(POLL_S)
        raise ProcessError(f"{self.name} was not ready within {self.ready_timeout_s:.0f} s{self._evidence()}")

    def check(self) -> None:
        ended = self._ended()
        if ended is None:
            return
        status = ended.si_status
        by_itself = ended.si_code == os.CLD_EXITED
        how = f"with status {status}" if by_itself else f"by signal {signal.Signals(status).name}"
        raise ProcessError(f"{self.name} ended {how}{self._evidence()}")

    def stop(self, in_a_hurry: Callable[[], bool]) -> None:
        if self._process is None:
            return
        os.kill(self._process.pid, signal.SIGTERM)  # not Popen.terminate, which reaps
        deadline = time.monotonic() + self.stop_timeout_s
        while self._ended() is None and time.monotonic() < deadline and not in_a_hurry():
            time.sleep(POLL_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def _ended(self) -> os.waitid_result | None:
        """Looks without reaping, so that the number stays ours until ``stop`` has signalled the group by it."""
        if self._process is None:
            return None
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)

    def _evidence(self) -> str:
        lines = last_lines(self.log)
        return f"; the last lines of {self.log}:\n{lines}" if lines else f"; see {self.log}"


def die_with(parent: int) -> Callable[[], None]:
    """For ``preexec_fn``: the new process gets SIGTERM when ``parent`` dies, also if it died a moment ago.

    The kernel means the parent *thread*; processes are therefore started from the main thread only.
    """

    def ask_the_kernel() -> None:
        if _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0 or os.getppid() != parent:
            os._exit(1)

    return ask_the_kernel


class Supervisor:
    """Runs children until one ends, or until a signal asks. Use in the main thread, once."""

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        self._tell = tell  # (name of the child, one line)
        self._signals: list[int] = []
        self._asked = threading.Event()

    @property
    def asked_to_end(self) -> bool:
        return self._asked.is_set()

    def run(self, children: Sequence[Child], *, up: Callable[[], None], tick: Callable[[], None]) -> None:
        """Returns after a signal has ended all children in good order. Raises ``ProcessError`` after a child ended.

        ``up`` is called once, when all are ready; ``tick`` about every second, and may raise ``ProcessError`` too.
        """
        started: list[Child] = []
        with self._handling_signals():
            try:
                for child in children:
                    started.append(child)
                    self._tell(child.name, child.start(lambda: self.asked_to_end))
                    if self.asked_to_end:
                        return
                up()
                self._watch(children, tick)
            except ProcessError:
                if not self.asked_to_end:  # a child that a signal interrupted in its start is no failure
                    raise
            finally:
                self._stop(started)

    def _watch(self, children: Sequence[Child], tick: Callable[[], None]) -> None:
        next_tick = time.monotonic()
        while not self._asked.wait(POLL_S):
            for child in children:
                child.check()
            if time.monotonic() >= next_tick:
                tick()
                next_tick = time.monotonic() + 1.0

    def _stop(self, started: Sequence[Child]) -> None:
        for child in reversed(started):
            child.stop(lambda: len(self._signals) > 1)  # asked twice
            self._tell(child.name, "ended")

    @contextlib.contextmanager
    def _handling_signals(self) -> Iterator[None]:
        def note(number: int, _frame: FrameType | None) -> None:
            self._signals.append(number)
            self._asked.set()

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def last_lines(log: Path, count: int = 8) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in lines[-count:])
