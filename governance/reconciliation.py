"""Opens a ledger again that was closed, after a restore from backup: nothing that was spent is forgotten.

The steps, in one transaction: (1) what the database still has is what was mirrored outside it; (2) the mirror's
entries replay without a finding; (3) the entries that the database lost are appended again, byte for byte, and
balances, reservations and runs are set to what the replay gives; (4) every runner in service has reported what it was
permitted to run since the ledger closed, and what the ledger lacks of it is debited now (``reported.py``); (5) no grant
from before is worth anything: running runs are quarantined, and those that came back without their request are
released; (6) a ``reconciled`` entry says all this, and the ledger is open.

Invariants
- All of it happens, or nothing. Until then the ledger stays closed.
- Nothing is ever taken off a budget here, but for undebited rounds of runs that no runner was given (privacy rule 12).
- A runner that cannot report any more costs its open runs all of their rounds.

This module does not: find out that something is wrong (``log_keeper.py``), or talk to runners.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from governance import log_keeper, log_keys, reconciled_mark
from governance import settlement_steps as steps
from governance.errors import UnreconciledError
from governance.ledger import budgets, catalogue, entries, recovery, run_store, tree_store
from governance.ledger.budgets import Balance
from governance.ledger.database import Connection, Database
from governance.ledger.derived import RESERVATION_STATES
from governance.ledger.entries import Log
from governance.ledger.merkle import EMPTY_ROOT, Frontier
from governance.ledger.replay import Replay, replay
from governance.log_keeper import LogKeeper, TamperedError
from governance.model import RunState, utc_now
from governance.reported import Reported
from runner.port import GrantReport

_BATCH = 1000
_RUN_STATES = {  # of a replayed run, where the entries know better than the backup
    "running": RunState.RUNNING,
    "quarantined": RunState.QUARANTINED,
    "resolved": RunState.QUARANTINED,
    "released": RunState.CANCELLED,
    "published": RunState.PUBLISHED,
}


@dataclass(frozen=True, slots=True)
class Reconciled:
    stored: int  # entries that the database had
    recovered: int  # entries that it had lost
    debited: tuple[tuple[str, int], ...]  # (run, rounds) that runners had run, and of which no entry was left
    quarantined: tuple[str, ...]
    released: tuple[str, ...]
    policies_lost: bool  # an activation came back without its Rego: activate again
    datasets_lost: tuple[str, ...]  # came back without columns: register their data again
    results_lost: tuple[str, ...]  # runs whose publication came back without its metrics and statement


def reconcile(
    database: Database,
    keeper: LogKeeper,
    folder: Path,
    *,
    by: str,
    reports: Mapping[str, Sequence[GrantReport]] | None = None,
    unreachable: Collection[str] = (),
    mirror_lost: bool = False,
    clock: Callable[[], datetime] = utc_now,
) -> Reconciled:
    """``folder``: the keeper's. ``reports``: by runner id, from files, instead of what they sent. ``unreachable``:
    runners whose journal is lost for good. ``mirror_lost``: the log's folder is lost for good too, so the database's
    entries are all there is; only a witness could still tell that some are missing.

    Raises ``UnreconciledError`` with nothing changed.
    """
    _open(database, keeper, mirror_lost)
    _close_first(database, keeper)
    with database.write() as connection:
        now = clock()
        work = _Work(connection, keeper, now)
        work.compare()  # (1)
        work.replay()  # (2)
        work.recover()  # (3)
        reported = Reported(connection, work.granted_to, work.handles, now)
        reported.take(reports or {}, unreachable, since=reconciled_mark.read(folder))  # (4)
        reported.debit(unreachable)
        work.end_runs()  # (5)
        work.finish(by, reported)  # (6)
        reconciled_mark.write(folder, now)  # before the commit: if that fails, runners only have to report again
        return work.done(reported)


def _open(database: Database, keeper: LogKeeper, mirror_lost: bool) -> None:
    try:
        keeper.open(verify=True)
    except TamperedError as error:
        if error.reason != "mirror_missing":
            raise UnreconciledError(f"what is kept outside the database cannot be trusted: {error}") from error
        if not mirror_lost:
            raise UnreconciledError(
                f"{error}. Restore the log's folder from its backup; if there is none, say --mirror-lost: then only a "
                "witness can still tell whether the database is complete"
            ) from error
        with database.read() as connection:
            keeper.adopt(log_keys.enrolled(connection)[-1].origin)
        keeper.open(verify=True)


def _close_first(database: Database, keeper: LogKeeper) -> None:
    """A ledger that is still open, and behind, is closed now: what runners reported before that does not count."""
    with database.write() as connection:
        head = entries.head(connection)
        if head.closed is not None:
            return
        if head.size >= keeper.mirror.size:
            raise UnreconciledError("the ledger is open and nothing of it is missing: there is nothing to reconcile")
        entries.close(connection, "rolled_back")


class _Work:
    """One reconciliation, inside its transaction."""

    def __init__(self, connection: Connection, keeper: LogKeeper, now: datetime) -> None:
        budgets.lock_everything(
            connection
        )  # in everybody's order, before the head: no rival waits for us, nor we for one
        self._connection = connection
        self._mirror = keeper.mirror
        self._signed = keeper.signed
        self._now = now
        self._log = Log(connection, even_if_closed=True)
        self._stored = self._log.head.size
        self._replayed = Replay()
        self._lost: list[dict[str, Any]] = []
        self.handles: dict[str, str] = {}  # version handle -> population
        self._quarantined: list[str] = []
        self._released: list[str] = []

    @property
    def granted_to(self) -> set[str]:
        """Runners that lost entries name."""
        return {entry["facts"]["runner"] for entry in self._lost if entry["kind"] == "granted"}

    def done(self, reported: Reported) -> Reconciled:
        kinds = {entry["kind"] for entry in self._lost}
        found = catalogue.select_datasets(self._connection)
        return Reconciled(
            self._stored,
            len(self._lost),
            tuple(sorted(reported.debited.items())),
            tuple(self._quarantined),
            tuple(self._released),
            "policy_activated" in kinds,
            tuple(dataset.id for dataset in found if not dataset.assets),
            tuple(sorted({entry["subjects"]["run_id"] for entry in self._lost if entry["kind"] == "publication"})),
        )

    def compare(self) -> None:
        """(1) Row by row. What the mirror had not seen when the ledger closed, it takes in.

        Raises ``UnreconciledError`` unless the stored entries begin the mirrored ones, or continue them.
        """
        frontier = Frontier.empty()
        unseen: list[bytes] = []
        mirrored = self._mirror.bodies()
        for row in tree_store.rows(self._connection, 0, self._stored):
            try:
                frontier = log_keeper.checked(frontier, row)
            except TamperedError as error:
                raise self._rewritten(str(error)) from error
            body = next(mirrored, None)
            if body is None:
                unseen.append(row.body)
                if len(unseen) == _BATCH:
                    self._mirror.append(unseen)
                    unseen = []
            elif body != row.body:
                raise self._rewritten(f"entry {row.index} is not what was recorded outside the database")
        if frontier != self._log.head.frontier:
            raise self._rewritten("the stored tree is not that of the stored entries")
        if unseen:
            self._mirror.append(unseen)

    def _rewritten(self, what: str) -> UnreconciledError:
        return UnreconciledError(f"{what}: restore a backup of the database from before that, and reconcile then")

    def replay(self) -> None:
        """(2)"""
        self._replayed = replay(self._mirror.bodies())
        # An earlier reconciliation may have found more spent than the budget allows: that is said, and stays so.
        for found in self._replayed.findings.kept:
            if found.code != "budget_exceeded":
                what = f"{found.code} at entry {found.index}: {found.message}"
                raise UnreconciledError(f"the mirrored entries do not replay: {what}")
        for entry in self._entries(0):
            if entry["kind"] == "dataset_registered":
                self.handles[entry["facts"]["version_handle"]] = entry["subjects"]["population_id"]

    def _entries(self, start: int) -> Iterator[dict[str, Any]]:
        return (json.loads(body) for body in islice(self._mirror.bodies(), start, None))

    def recover(self) -> None:
        """(3)"""
        for body in islice(self._mirror.bodies(), self._stored, None):
            self._log.restore(body)
            entry = json.loads(body)
            recovery.redo(self._connection, entry)
            self._lost.append(entry)
            if entry["kind"] == "granted":
                self._log.fence_beyond(entry["facts"]["fencing_token"])
        self._set_balances()
        self._set_runs()
        self._log.reopen()  # from here on the ordinary steps append; a failure leaves nothing of this transaction
        self._log.store()

    def _set_balances(self) -> None:
        changed = {entry["subjects"].get("population_id"): entry["index"] for entry in self._lost}
        for (population_id, scope, scope_id), (committed, debited) in self._replayed.balances.items():
            if population_id in changed:
                balance = Balance(committed, debited, changed[population_id])
                budgets.overwrite_balance(self._connection, population_id, (scope, scope_id), balance)

    def _set_runs(self) -> None:
        ended: dict[tuple[str, str], int] = {}
        touched: dict[tuple[str, str], None] = {}
        for entry in self._lost:
            run = entry["subjects"].get("run_id")
            key = (run, entry["subjects"].get("population_id"))
            if run is not None and key in self._replayed.runs:
                touched[key] = None
                if entry["kind"] in ("release", "quarantine_resolved", "publication"):
                    ended[key] = entry["index"]
        for key in touched:
            run = self._replayed.runs[key]
            state = _RUN_STATES.get(run.state)
            recovery.set_counts(
                self._connection,
                *key,
                debited=run.rounds_debited,
                released=run.rounds_released,
                state=RESERVATION_STATES[run.state],
                closed_entry=ended.get(key),
            )
            if state is not None:
                run_store.set_state(self._connection, run.id, state, self._now, recovery.RESTORED)
            if state not in (None, RunState.RUNNING):
                run_store.end_grants(self._connection, run.id)

    # --- (5) and (6) -------------------------------------------------------------------------------------------------

    def end_runs(self) -> None:
        """Whatever a runner may have had in its hands is held; what nobody can be given is released."""
        begun = {grant.run_id for grant in run_store.active_grants(self._connection)}
        lost = set(recovery.runs_without_request(self._connection))
        for run_id in recovery.open_runs(self._connection):
            held = budgets.reservations_of(self._connection, run_id)
            if run_id in begun or held[0].rounds_debited:
                steps.quarantine(self._connection, held, self._now)
                self._quarantined.append(run_id)
            elif run_id in lost:
                steps.release(self._connection, held, RunState.CANCELLED, "restored", "reconciliation", self._now)
                self._released.append(run_id)

    def finish(self, by: str, reported: Reported) -> None:
        size, root = (0, EMPTY_ROOT) if self._signed is None else (self._signed.size, self._signed.root)
        facts = {
            "witness": {"size": size, "root": root.hex()},
            "recovered_entries": len(self._lost),
            "debited": [{"run": run_id, "rounds": rounds} for run_id, rounds in sorted(reported.debited.items())],
            "reports": reported.digests,
            "by": by,
        }
        entries.append(self._connection, "reconciled", self._now, facts)
        run_store.forget_reports(self._connection)
