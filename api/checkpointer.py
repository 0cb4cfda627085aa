"""One thread for each node that keeps the log: mirrors, signs, asks witnesses, and closes the ledger where it must.

At start, before the API serves: (1) take the log's lock; whoever has it does the work, other API processes of the node
do without; (2) enrol the log's first key, if it has none; (3) open mirror and checkpoint; (4) look at everything new,
and again at all rows of a small log; (5) ask the witnesses. Then (4) and (5) again within a second of every change.

Invariants
- What was tampered with closes the ledger, with a reason and an error in the log; a failure of this machine (a full
  disk, a database that is away) closes nothing and is tried again.
- A witness that is down delays no decision.
- While the ledger is closed nobody has the lock, so that a reconciliation can take it; what that left is read anew.

This module does not: decide what tampering is (``governance/log_keeper.py``), or reconcile.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from api import logging
from api.errors import NodeError
from api.settings import Settings
from api.witness_client import WitnessAddress, WitnessClient, WitnessConflictError, WitnessError, configured
from governance import log_keeper
from governance.errors import GovernanceError
from governance.ledger import entries
from governance.ledger.database import Database
from governance.log_files import try_lock
from governance.log_keeper import LogKeeper, TamperedError
from governance.log_keys import KeyFile

POLL_S = 0.5
SCRUB_ROWS = 200  # of each poll: a million rows in less than an hour, for a hundredth of a core
SCRUBBED_AT_START = 20_000
BY_NODE = "node"
WITNESSES = "witnesses"  # the file in the log's folder


class Checkpointer:
    """``start`` once, then ``tick`` again and again, from one thread at a time."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        keys: KeyFile,
        witnesses: Sequence[WitnessAddress] = (),
        origin: str | None = None,
    ) -> None:
        self._database = database
        self._folder = folder
        self._keys = keys
        self._origin = origin
        self._witnesses = [WitnessClient(one) for one in witnesses]
        self._open = False
        self.keeper = LogKeeper(database, folder, keys)

    def start(self) -> None:
        """(2) to (5). Raises ``GovernanceError``, ``OSError`` where the machine does not let it; tampering does not."""
        with self._closing_if_tampered():
            log_keeper.begin(self._database, self._folder, self._keys, BY_NODE, self._origin)
        self.tick(scrub_rows=SCRUBBED_AT_START)

    def tick(self, scrub_rows: int = SCRUB_ROWS) -> None:
        """(3) where that failed before, (4), (5). Raises ``GovernanceError``, ``OSError``."""
        with self._closing_if_tampered():
            if not self._open:
                self._open_keeper()
            self.keeper.look()
            self.keeper.scrub(scrub_rows)
            self._ask_witnesses()

    def is_closed(self) -> bool:
        """Whether the ledger is. Raises ``StorageError``."""
        with self._database.read() as connection:
            return entries.head(connection).closed is not None

    def let_go(self) -> None:
        """Somebody else may write to the folder from here on: the next ``tick`` opens it anew."""
        self._open = False

    def close(self) -> None:
        for witness in self._witnesses:
            witness.close()

    def _open_keeper(self) -> None:
        self.keeper.open()
        self._open = True
        if self.keeper.mirror_rebuilt:
            logging.logger().error("log_mirror_rebuilt", why="it did not lead to the signed root; the database does")

    def _ask_witnesses(self) -> None:
        """Those whose signature the checkpoint lacks, and at the start everyone: they know what was, we may not."""
        note, found = self.keeper.note, []
        if note is None or self.keeper.closed:
            return
        for witness in self._witnesses:
            now = time.monotonic()
            if not witness.should_be_asked(note, now):
                continue
            try:
                found.append(witness.ask(note, self.keeper.proof_from, now))
            except WitnessError as error:
                logging.logger().warning("log_not_cosigned", witness=witness.key.name, why=str(error))
        self.keeper.add_cosignatures(found)

    @contextlib.contextmanager
    def _closing_if_tampered(self) -> Iterator[None]:
        try:
            yield
        except (TamperedError, WitnessConflictError) as error:
            if self.keeper.close_ledger(error.reason):
                logging.logger().error("ledger_closed", reason=error.reason, detail=error.detail)


@contextlib.contextmanager
def running(settings: Settings, database: Database) -> Iterator[None]:
    """Keeps the node's log while the block runs. Returns to the block when the first check is done.

    Raises ``NodeError`` if it cannot be done: without it nothing would be tamper-evident.
    """
    witnesses = configured(settings.witnesses, settings.ledger_dir / WITNESSES)
    worker = Checkpointer(
        database, settings.ledger_dir, KeyFile(settings.log_key_file), witnesses, settings.log_origin or None
    )
    thread = _Thread(worker, settings.ledger_dir)
    try:
        thread.take_over()
    except (GovernanceError, OSError) as error:
        thread.stop()
        raise NodeError(f"the log cannot be kept: {error}") from error
    thread.start()
    try:
        yield
    finally:
        thread.stop()


class _Thread(threading.Thread):
    def __init__(self, worker: Checkpointer, folder: Path) -> None:
        super().__init__(name="checkpointer", daemon=True)
        self._worker = worker
        self._folder = folder
        self._lock: int | None = None
        self._asked_to_end = threading.Event()

    def take_over(self) -> bool:
        """(1), and the first check. False if another process keeps the log."""
        if self._lock is None:
            self._lock = try_lock(self._folder / log_keeper.LOCK)
            if self._lock is None:
                return False
            self._worker.start()
            self._let_go_if_closed()
        return self._lock is not None

    def _let_go_if_closed(self) -> None:
        if self._lock is not None and self._worker.keeper.closed:
            self._worker.let_go()
            os.close(self._lock)
            self._lock = None

    def run(self) -> None:
        while not self._asked_to_end.wait(POLL_S):
            try:
                if self._lock is None and self._worker.is_closed():
                    continue
                if self.take_over():
                    self._worker.tick()
                    self._let_go_if_closed()
            except GovernanceError as error:
                logging.logger().warning("log_not_kept", code=error.code)
            except Exception as error:
                logging.logger().error("log_not_kept", **logging.failure(error))

    def stop(self) -> None:
        """The kernel would free the lock at the end too."""
        self._asked_to_end.set()
        if self.is_alive():
            self.join(timeout=10.0)
        self._worker.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
