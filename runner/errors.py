"""What can go wrong in a runner.

Invariants
- Facts are attributes; a message may name files, columns and counts of rows, because it stays with the operator's
  logs.
- Nothing of it travels to a researcher: towards governance every fault is ``fail(touched_data=…)`` and no more.
"""

from __future__ import annotations

from pathlib import Path


class RunnerError(Exception):
    """The base of everything that this package raises on purpose."""


class GrantRevokedError(RunnerError):
    """The service no longer honours this grant's fencing token: stop at once and publish nothing."""

    def __init__(self, grant_id: str) -> None:
        super().__init__(f"grant {grant_id} is revoked")
        self.grant_id = grant_id


class GovernorUnreachableError(RunnerError):
    """The service did not answer, or not in a way that can be relied on. Whether it acted is unknown."""

    def __init__(self, call: str, why: str) -> None:
        super().__init__(f"{call}: {why}")
        self.call = call
        self.why = why


class GovernorRefusedError(RunnerError):
    """The service answered, and said no. Asking again would not help."""

    def __init__(self, call: str, status: int, code: str) -> None:
        super().__init__(f"{call}: refused with status {status}, code {code!r}")
        self.call = call
        self.status = status
        self.code = code


class LedgerClosedError(GovernorUnreachableError):
    """The ledger was restored and admits nothing until it is reconciled: it needs what this runner's journal holds."""


class GrantReplayedError(RunnerError):
    """The service handed out a grant that this runner had before. Its rounds may have run, so none runs again."""

    def __init__(self, grant_id: str) -> None:
        super().__init__(f"grant {grant_id} was claimed before")
        self.grant_id = grant_id


class JournalError(RunnerError):
    """The journal of permitted rounds cannot be relied on, so nothing may run."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


class DebitRefusedError(RunnerError):
    """These rounds may not run: they were debited before, so another process may have run them."""

    def __init__(self, first_round: int, rounds: int) -> None:
        super().__init__(f"rounds {first_round} to {first_round + rounds - 1} may not run")
        self.first_round = first_round
        self.rounds = rounds


class PortError(RunnerError):
    """A message between worker and job was not what the other side may say."""


class DataLayoutError(RunnerError):
    """A dataset version on disk is not what its manifest says, or not there."""

    def __init__(self, version_handle: str, why: str) -> None:
        super().__init__(f"dataset version {version_handle}: {why}")
        self.version_handle = version_handle
        self.why = why


class IngestError(RunnerError):
    """A source cannot become a dataset version. ``column`` is the offending one, where there is one."""

    def __init__(self, why: str, *, column: str | None = None, rows: int | None = None) -> None:
        where = f"column {column!r}: " if column else ""
        count = f" ({rows} row{'' if rows == 1 else 's'})" if rows is not None else ""
        super().__init__(f"{where}{why}{count}")
        self.column = column
        self.rows = rows
        self.why = why


class IncompatibleError(RunnerError):
    """Model, loss and data do not fit together."""


class ExecutorError(RunnerError):
    """TFF's worker process did not start or ended unexpectedly."""
