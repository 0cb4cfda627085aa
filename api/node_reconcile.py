"""``pysytff-server ledger reconcile``, but for printing: reads runners' files, asks the witnesses, and reconciles.

Invariants
- No witness knows of more than the mirror does, or of something else; one that cannot be asked stops the reconciliation
  unless the operator leaves it out by name (privacy rule 11: the head matches its witness).
- No other process keeps the log meanwhile.

This module does not: know what a reconciliation does (``governance/reconciliation.py``).
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from api.checkpointer import WITNESSES
from api.errors import NodeError
from api.settings import Settings
from api.witness_client import WitnessClient, WitnessConflictError, WitnessError, configured
from governance import log_keeper
from governance.errors import UnreconciledError
from governance.ledger.database import Database
from governance.log_keeper import LogKeeper, TamperedError
from governance.log_keys import KeyFile
from governance.reconciliation import Reconciled, reconcile
from governance.reported import read_reports
from runner.port import GrantReport


def reconciled(
    settings: Settings,
    database: Database,
    files: Mapping[str, Path],
    unreachable: Collection[str],
    *,
    without_witnesses: Collection[str] = (),
    mirror_lost: bool = False,
) -> Reconciled:
    """``files``: runner id -> what ``python -m runner report`` wrote. Raises ``UnreconciledError``, ``NodeError``."""
    reports = {runner_id: _reports(path) for runner_id, path in files.items()}
    keys = KeyFile(settings.log_key_file)
    with log_keeper.hold(settings.ledger_dir):
        if not mirror_lost:
            keeper = LogKeeper(database, settings.ledger_dir, keys)
            _ask_witnesses(settings, keeper, without_witnesses)
        return reconcile(
            database,
            LogKeeper(database, settings.ledger_dir, keys),
            settings.ledger_dir,
            by="operator",
            reports=reports,
            unreachable=set(unreachable),
            mirror_lost=mirror_lost,
        )


def _reports(path: Path) -> list[GrantReport]:
    try:
        return read_reports(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise NodeError(f"{path} cannot be read as a runner's report: {error}") from error


def _ask_witnesses(settings: Settings, keeper: LogKeeper, without: Collection[str]) -> None:
    """Each is shown the last checkpoint. It cosigns, or knows less, or the ledger stays closed."""
    witnesses = configured(settings.witnesses, settings.ledger_dir / WITNESSES)
    if unknown := set(without) - {one.key.name for one in witnesses}:
        raise NodeError(f"no witness is named {', '.join(sorted(unknown))}")
    asked = [one for one in witnesses if one.key.name not in without]
    if not asked:
        return
    try:
        keeper.open(verify=True)
    except TamperedError as error:
        raise UnreconciledError(f"what is kept outside the database cannot be trusted: {error}") from error
    if keeper.note is None or keeper.signed is None:
        return  # nothing was ever signed, so no witness has seen anything
    size = keeper.signed.size
    for address in asked:
        client = WitnessClient(address)
        try:
            client.ask(keeper.note, lambda old: _proof(old, size), time.monotonic())
        except _KnowsLessError:
            continue
        except WitnessConflictError as error:
            raise UnreconciledError(
                f"{error.reason}: {error.detail}. The log's folder is not the newest: restore a later backup of it"
            ) from error
        except WitnessError as error:
            raise UnreconciledError(
                f"the witness {address.key.name} could not be asked ({error}): start it, or leave it out with "
                f"--without-witness {address.key.name}"
            ) from error
        finally:
            client.close()


class _KnowsLessError(Exception):
    """The witness has seen less than the mirror: it cannot know of anything that is missing."""


def _proof(old: int, size: int) -> list[bytes]:
    if old in (0, size):
        return []
    raise _KnowsLessError
