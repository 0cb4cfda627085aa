"""One grant, from claim to publication or failure: starts its job, and speaks for it to governance.

(0) writes down that this runner has it;
(1) starts the job in a session of its own, with a bare environment, a scratch directory and two pipes;
(2) extends the lease from a thread of its own, and kills the job when the lease is lost, revoked or stopped;
(3) passes the job's debits on, in order and within the grant, and the answers back, each permission after it was
    written down;
(4) reports progress, at most twice a second;
(5) checks what a finished job left, and publishes it once; or reports the failure;
(6) kills whatever is left of the job's process group, removes its scratch directory, and writes down that it ended.

Invariants
- It never imports TensorFlow and never opens data. The job never sees the credential.
- ``touched_data`` is True from the moment the job asks for its first debit: every doubt counts as touched (privacy
  rule 12).
- A round runs only after its own debit was permitted, once, and the permission is in the journal. A permission whose
  answer was lost is no permission, and a grant that comes a second time does not run (privacy rule 11).
- A job that is gone, silent for too long, or says anything unexpected has failed. Nothing is published then.
- Logs hold ids and round counts.

This module does not: decide about budget, or know what a round is.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from runner import result_check
from runner.errors import (
    DataLayoutError,
    GovernorRefusedError,
    GovernorUnreachableError,
    GrantReplayedError,
    GrantRevokedError,
    JournalError,
    LedgerClosedError,
    PortError,
    RunnerError,
)
from runner.journal import Journal
from runner.pipe import Pipe, expect, field
from runner.port import Governor, Grant, RunResult
from runner.reporting import Reporter
from runner.silos import version_directory

JOB_PREFIX: Final = "job_"  # of a job's scratch directory
PROGRESS_SECONDS: Final = 0.5
REPORT_SECONDS: Final = 5.0  # how long a failure is tried to be reported; the lease's end says the same, later
KEPT_LOGS: Final = 100
_TICK: Final = 0.2
_PAUSE: Final = 0.5

T = TypeVar("T")
_log = structlog.get_logger("runner.worker")


class GrantRun:
    def __init__(
        self,
        governor: Governor,
        journal: Journal,
        reporter: Reporter,
        grant: Grant,
        command: tuple[str, ...],
        stopping: threading.Event,
        *,
        data_root: Path,
        scratch: Path,
        job_seconds: float,
    ) -> None:
        self._governor = governor
        self._journal = journal
        self._reporter = reporter
        self._grant = grant
        self._command = command
        self._stopping = stopping
        self._data_root, self._scratch, self._job_seconds = data_root, scratch, job_seconds
        self._in_journal = False
        self._log = _log.bind(run_id=grant.run_id, grant_id=grant.grant_id)
        self._ended = threading.Event()
        self._abort: str | None = None  # why the job was killed; set once, before the kill
        self._lease_until = time.monotonic() + grant.lease_seconds
        self._lock = threading.Lock()
        self._job: subprocess.Popen[bytes] | None = None
        self._reaped = False
        self._touched_data = False
        self._debited = 0
        self._done = 0
        self._reported = (0, 0.0)  # rounds, and when

    def run(self) -> None:
        self._log.info("grant_claimed", rounds=self._grant.parameters.rounds)
        scratch: Path | None = None
        heart = threading.Thread(target=self._keep_lease, name="lease", daemon=True)
        try:
            self._journal.claimed(self._grant)
            self._in_journal = True
            scratch = Path(tempfile.mkdtemp(prefix=JOB_PREFIX, dir=self._scratch))
            heart.start()
            self._publish(self._converse(scratch), scratch)
        except GrantRevokedError:
            self._log.warning("grant_revoked")
        except GrantReplayedError as error:
            self._touched_data = True  # by whatever ran under it before
            self._report_failure(error)
        except (RunnerError, OSError, ValueError) as error:
            self._reap()
            self._report_failure(error)
        finally:
            self._ended.set()
            self._reap()
            if heart.ident is not None:
                heart.join()
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)
            self._note_end()

    def _note_end(self) -> None:
        if self._in_journal:
            try:
                self._journal.ended(self._grant.grant_id)
            except JournalError as error:
                # It counts as open until the next start, which errs towards caution.
                self._log.error("end_not_in_journal", why=error.why)

    def _converse(self, scratch: Path) -> dict[str, Any]:
        """Steps (1), (3) and (4). Returns the job's last message."""
        grant, deadline = self._grant, time.monotonic() + self._job_seconds
        training = version_directory(self._data_root, grant.data.version_handle)
        joined = [version_directory(self._data_root, one.version_handle) for one in grant.data.joined]
        handle = grant.data.holdout_handle
        holdout = None if handle is None else version_directory(self._data_root, handle)
        pipe = self._start()
        try:
            ready = expect(self._next(pipe, deadline), "ready")
            if not field(ready, "private_network", bool):
                self._log.warning("job_shares_network", why="this host allows no user namespaces")
            pipe.send(
                "start",
                grant=grant.to_json(),
                training=str(training),
                joined=[str(directory) for directory in joined],
                holdout=None if holdout is None else str(holdout),
                scratch=str(scratch),
            )
            while True:
                message = self._next(pipe, deadline)
                match message["type"]:
                    case "debit":
                        self._debit(pipe, field(message, "first_round", int), field(message, "rounds", int))
                    case "progress":
                        self._progress(field(message, "rounds_done", int))
                    case "finished":
                        return message
                    case "failed":
                        raise PortError("the job failed; its log says why")
                    case other:
                        raise PortError(f"the job sent a {other!r} message")
        finally:
            pipe.close()

    def _start(self) -> Pipe:
        from_worker, to_job = os.pipe()
        from_job, to_worker = os.pipe()
        fds = [f"--read-fd={from_worker}", f"--write-fd={to_worker}"]
        try:
            with self._open_log() as log:
                self._job = subprocess.Popen(
                    [*self._command, *fds, f"--parent={os.getpid()}"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env=_bare_environment(),
                    pass_fds=(from_worker, to_worker),
                    start_new_session=True,
                )
        except BaseException:
            os.close(to_job)
            os.close(from_job)
            raise
        finally:
            os.close(from_worker)
            os.close(to_worker)
        return Pipe(from_job, to_job)

    def _open_log(self) -> Any:
        """The operator's: it may hold anything that TensorFlow prints."""
        directory = self._scratch / "logs"
        directory.mkdir(mode=0o700, exist_ok=True)
        for old in sorted(directory.glob("*.log"), key=lambda path: path.stat().st_mtime)[: -KEPT_LOGS + 1]:
            old.unlink(missing_ok=True)
        fd = os.open(directory / f"{self._grant.grant_id}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(fd, "ab")

    def _next(self, pipe: Pipe, deadline: float) -> dict[str, Any]:
        """The next message. Raises ``PortError`` when the job was killed or its time is up, ``EOFError`` when it is
        gone.
        """
        while True:
            if self._stopping.is_set():
                self._end_job("the worker is stopping")
            elif time.monotonic() > deadline:
                self._end_job("the job took too long")
            try:
                message = pipe.receive(_TICK)
            except EOFError as error:
                raise PortError(self._abort or "the job ended unexpectedly; its log may say why") from error
            if self._abort is not None:
                raise PortError(self._abort)
            if message is not None:
                return message

    def _debit(self, pipe: Pipe, first_round: int, rounds: int) -> None:
        grant = self._grant
        in_order = first_round == self._debited == self._done
        if not in_order or not 1 <= rounds <= min(grant.rounds_per_debit, grant.parameters.rounds - first_round):
            raise PortError(f"the job asked for rounds {first_round} + {rounds}, which are not the next ones")
        self._touched_data = True  # before the call: its answer may be lost
        answer = self._insist(lambda: self._governor.debit(grant.grant_id, grant.fencing_token, first_round, rounds))
        if answer.permitted:
            self._journal.permitted(grant.grant_id, first_round, rounds)  # durable before the job hears of it
            self._debited += rounds
        pipe.send("debit_answer", permitted=answer.permitted)

    def _progress(self, rounds_done: int) -> None:
        if rounds_done != self._done + 1 or rounds_done > self._debited:
            raise PortError(f"the job says {rounds_done} rounds, which it cannot have done")
        self._done = rounds_done
        rounds, at = self._reported
        last = rounds_done == self._grant.parameters.rounds
        if rounds_done > rounds and (last or time.monotonic() - at >= PROGRESS_SECONDS):
            self._reported = (rounds_done, time.monotonic())
            # Only a display: it is not worth a retry, let alone the run.
            with suppress(GovernorUnreachableError, GovernorRefusedError):
                self._governor.progress(self._grant.grant_id, self._grant.fencing_token, rounds_done)

    def _publish(self, finished: dict[str, Any], scratch: Path) -> None:
        grant = self._grant
        rounds = field(finished, "rounds", int)
        if not rounds == self._done == self._debited == grant.parameters.rounds:
            raise PortError("the job says that it finished, but not every round was run")
        result = RunResult(
            weights=result_check.read_weights(scratch, field(finished, "weights", str), grant.model),
            rounds=rounds,
            public_metrics=result_check.public_metrics(field(finished, "public_metrics", dict), grant.data),
            generator=field(finished, "generator", str),
            runner_version=_version(),
        )
        self._insist(lambda: self._governor.publish(grant.grant_id, grant.fencing_token, result))
        self._log.info("run_published", rounds=rounds)

    def _insist(self, call: Callable[[], T]) -> T:
        """Repeats a call that got no answer while the lease lasts. Raises ``PortError`` once the grant is lost."""
        pause = 0.2
        while True:
            if self._abort is not None:
                raise PortError(self._abort)
            try:
                answer = call()
                self._reporter.ledger_is_open()
                return answer
            except GovernorUnreachableError as error:
                if isinstance(error, LedgerClosedError):
                    # Whoever reconciles waits for this: also for what the run under way was permitted.
                    self._reporter.ledger_is_closed()
                if self._stopping.is_set() or time.monotonic() + pause > self._lease_until:
                    raise
                self._log.warning("service_unreachable", call=error.call, why=error.why)
            self._ended.wait(pause)
            pause = min(2 * pause, 5.0)

    def _keep_lease(self) -> None:
        """Step (2), on a thread of its own."""
        grant = self._grant
        pause = grant.lease_seconds / 3
        while not self._ended.wait(pause):
            sent = time.monotonic()
            try:
                answer = self._governor.heartbeat(grant.grant_id, grant.fencing_token)
            except GovernorUnreachableError as error:
                self._log.warning("service_unreachable", call=error.call, why=error.why)
                pause = min(1.0, grant.lease_seconds / 10)
                if time.monotonic() + pause >= self._lease_until:
                    return self._end_job("the lease ran out")
            except GrantRevokedError:
                return self._end_job("the grant was revoked")
            except GovernorRefusedError as error:
                return self._end_job(f"the heartbeat was refused: {error.code or error.status}")
            else:
                if answer.stop:
                    return self._end_job("the run was cancelled")
                # Counted from before the call: the service cannot have counted from earlier.
                self._lease_until = sent + answer.lease_seconds
                pause = answer.lease_seconds / 3

    def _end_job(self, why: str) -> None:
        self._abort = self._abort or why
        self._kill()

    def _kill(self) -> None:
        """SIGKILL for everything in the job's process group. Idempotent, and safe from any thread."""
        with self._lock:
            # Until it is reaped, the job's id cannot belong to anyone else.
            if self._job is not None and not self._reaped:
                with suppress(ProcessLookupError):
                    os.killpg(self._job.pid, signal.SIGKILL)

    def _reap(self) -> None:
        self._kill()
        if self._job is not None:
            self._job.wait()
            with self._lock:
                self._reaped = True

    def _report_failure(self, error: Exception) -> None:
        why = str(error) if isinstance(error, PortError | DataLayoutError | JournalError) else type(error).__name__
        self._log.warning("run_failed", why=why, touched_data=self._touched_data, rounds_done=self._done)
        grant, deadline = self._grant, min(self._lease_until, time.monotonic() + REPORT_SECONDS)
        while True:
            try:
                self._governor.fail(grant.grant_id, grant.fencing_token, touched_data=self._touched_data)
            except (GrantRevokedError, GovernorRefusedError):
                pass  # the service has closed the grant itself
            except GovernorUnreachableError as unreachable:
                if time.monotonic() + _PAUSE < deadline:
                    time.sleep(_PAUSE)
                    continue
                # The lease runs out, and the service quarantines what was held.
                self._log.warning("failure_not_reported", why=unreachable.why)
            return


def _bare_environment() -> dict[str, str]:
    """Nothing of the worker's own environment but where to find programs and our packages."""
    ours = str(Path(__file__).resolve().parent.parent)
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": ours,
        "LANG": "C.UTF-8",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def _version() -> str:
    try:
        return f"pysytff-server {metadata.version('pysytff-server')}"
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "pysytff-server, not installed"
