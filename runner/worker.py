"""The runner's long-lived process: claims grants, and runs one after another (``grant_run.py``).

When the ledger is closed after a restore, it reports all that its journal holds, and waits.

Invariants
- It never imports TensorFlow and never opens data.
- One worker at a time uses a journal and a scratch directory; what a crashed one left of its jobs is removed.
- Nothing is claimed while the journal cannot be written.
- Logs hold ids and round counts.

This module does not: decide about budget, or know what a round is.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

import structlog

from runner.errors import GovernorUnreachableError, LedgerClosedError
from runner.grant_run import JOB_PREFIX, GrantRun
from runner.journal import Journal, lock
from runner.port import Governor, Grant
from runner.reporting import Reporter

JOB: Final = (sys.executable, "-P", "-m", "runner.job")  # -P: nothing is imported from where it is started

_log = structlog.get_logger("runner.worker")


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """``job_seconds``: wall-clock limit of one job. ``poll_seconds``: the longest pause between two claims, and
    ``closed_poll_seconds`` while the ledger is closed. ``journal``: None for a directory of that name beside scratch.
    """

    data_root: Path
    scratch: Path
    job_seconds: float = 24 * 3600.0
    poll_seconds: float = 2.0
    journal: Path | None = None
    closed_poll_seconds: float = 15.0

    @property
    def journal_directory(self) -> Path:
        return self.journal or self.scratch.parent / "journal"


class Worker:
    """Call ``run`` on a process's main thread: its jobs die with the thread that started them.

    Raises ``JournalError`` where another worker uses the journal or scratch directory, or the journal is damaged.
    """

    def __init__(self, governor: Governor, settings: WorkerSettings, job: Sequence[str] = JOB) -> None:
        self._governor = governor
        self._settings = settings
        self._command = tuple(job)
        self._stopping = threading.Event()
        self._scratch_fd = _lock_scratch(settings.scratch)
        try:
            self._journal = Journal(settings.journal_directory)
        except BaseException:
            os.close(self._scratch_fd)
            raise
        self._reporter = Reporter(governor, self._journal)
        for left in settings.scratch.glob(f"{JOB_PREFIX}*"):  # of a worker that was killed
            shutil.rmtree(left, ignore_errors=True)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Another worker may use journal and scratch now."""
        self._journal.close()
        os.close(self._scratch_fd)

    def stop(self) -> None:
        """May be called from a signal handler. The job under way is killed, and ``run`` returns."""
        self._stopping.set()

    def run(self) -> None:
        """Until ``stop``. Raises ``GovernorRefusedError`` if the service refuses this runner's credential."""
        pause, trouble = 0.1, ""
        while not self._stopping.is_set():
            grant, before = None, trouble
            try:
                trouble = "" if self._journal.heal() else "journal_not_writable"
                if not trouble:
                    grant = self._governor.claim()
                    self._reporter.ledger_is_open()
            except LedgerClosedError:
                trouble = "ledger_closed"
                self._reporter.ledger_is_closed()
            except GovernorUnreachableError as error:
                trouble = "service_unreachable"
                if trouble != before:
                    _log.warning(trouble, why=error.why)
            if trouble in ("ledger_closed", "journal_not_writable") and trouble != before:
                _log.warning(trouble)
            elif before and not trouble:
                _log.info("service_reached", after=before)
            if grant is None:
                closed = trouble == "ledger_closed"
                self._stopping.wait(self._settings.closed_poll_seconds if closed else pause)
                pause = min(pause * 1.5, self._settings.poll_seconds)
                continue
            pause = 0.1
            self.run_grant(grant)

    def run_grant(self, grant: Grant) -> None:
        """From claim to publication or failure. Raises nothing: every end is reported to the service."""
        settings = self._settings
        run = GrantRun(
            self._governor,
            self._journal,
            self._reporter,
            grant,
            self._command,
            self._stopping,
            data_root=settings.data_root,
            scratch=settings.scratch,
            job_seconds=settings.job_seconds,
        )
        run.run()


def _lock_scratch(scratch: Path) -> int:
    fd = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        lock(fd, scratch)
    except BaseException:
        os.close(fd)
        raise
    return fd
