"""Tells a closed ledger what this runner was ever permitted to run, whoever meets it closed: the loop or a run.

Invariants
- The whole journal goes, every time; the service keeps the newest report.
- Once is enough while the ledger stays closed, except now and again: it may have been restored once more.
- A report that was not delivered is tried again at the next meeting. It never ends a run or the worker.

This module does not: decide whether the ledger is closed, or wait until it opens. One thread uses it.
"""

from __future__ import annotations

import time
from typing import Final

import structlog

from runner.errors import GovernorRefusedError, GovernorUnreachableError, GrantRevokedError
from runner.journal import Journal
from runner.port import Governor

AGAIN_SECONDS: Final = 600.0

_log = structlog.get_logger("runner.worker")


class Reporter:
    def __init__(self, governor: Governor, journal: Journal) -> None:
        self._governor = governor
        self._journal = journal
        self._delivered_at: float | None = None  # since the ledger was seen open

    def ledger_is_open(self) -> None:
        self._delivered_at = None

    def ledger_is_closed(self) -> None:
        now = time.monotonic()
        if self._delivered_at is not None and now - self._delivered_at < AGAIN_SECONDS:
            return
        reports = self._journal.reports()
        try:
            self._governor.report(reports)
        except GovernorUnreachableError as error:
            _log.warning("report_not_delivered", why=error.why)
        except GovernorRefusedError as error:
            _log.error("report_refused", status=error.status, code=error.code, instead="python -m runner report")
        except GrantRevokedError:
            _log.error("report_refused", instead="python -m runner report")  # no answer that a report can have
        else:
            self._delivered_at = now
            _log.info("report_delivered", grants=len(reports))
