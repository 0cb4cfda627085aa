"""Step (4) of a reconciliation: what runners were permitted to run, by their own journals, against what the ledger has.

Invariants
- A round that a runner was permitted to run is debited, whether or not its entry survived (privacy rule 11): from the
  run's reservation where that still holds it, else as an adjustment of the population.
- Reports only add to what is spent. Reporting the same twice adds nothing.
- Every runner in service has reported, or counts as unreachable, and then its open runs are spent in full.

This module does not: recover entries, end runs, or open the ledger (``reconciliation.py``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from accountant.charge import charge
from accountant.codec import decode_event, encode_event
from accountant.curve import ACCOUNTANT
from accountant.errors import AccountantError
from accountant.events import PoissonGaussian
from governance import settlement_steps as steps
from governance.errors import UnreconciledError
from governance.ledger import budgets, catalogue, entries, recovery, run_store
from governance.ledger.database import Connection
from runner.port import GrantReport

MAX_FENCING_TOKEN = 2**48  # more grants than there will be; beyond it, tokens could not go on increasing


class Reported:
    """``granted_to``: runners that lost entries name. ``handles``: dataset version -> population."""

    def __init__(
        self, connection: Connection, granted_to: Collection[str], handles: Mapping[str, str], now: datetime
    ) -> None:
        self._connection = connection
        self._granted_to = set(granted_to)
        self._handles = handles
        self._now = now
        self._reports: list[GrantReport] = []
        self.digests: list[str] = []
        self.debited: dict[str, int] = {}  # run -> rounds

    def take(
        self,
        from_files: Mapping[str, Sequence[GrantReport]],
        unreachable: Collection[str],
        *,
        since: datetime | None,
    ) -> None:
        """``from_files``: runner id -> its report, instead of what it sent. ``since``: the last reconciliation; an
        earlier report came with a backup. Raises ``UnreconciledError`` while a runner has not reported."""
        sent = {
            runner_id: text
            for runner_id, (text, at) in run_store.reports(self._connection).items()
            if (since is None or at > since) and runner_id not in from_files and runner_id not in unreachable
        }
        expected = recovery.runners_in_service(self._connection) | self._granted_to
        if missing := expected - set(sent) - set(from_files) - set(unreachable):
            raise UnreconciledError(
                f"these runners have not reported since the ledger closed: {', '.join(sorted(missing))}. Start them "
                "and wait a minute, or give a journal's report with --report, or, if a journal is lost for good, name "
                "the runner with --unreachable: all rounds of its open runs count as spent then"
            )
        given = {
            runner_id: [GrantReport.from_json(one) for one in json.loads(text)] for runner_id, text in sent.items()
        }
        given |= {runner_id: list(reports) for runner_id, reports in from_files.items()}
        texts = [*sent.values(), *(json.dumps([one.to_json() for one in reports]) for reports in from_files.values())]
        self.digests = sorted(hashlib.sha256(text.encode()).hexdigest() for text in texts)
        for runner_id, reports in sorted(given.items()):
            for report in reports:
                self._check(runner_id, report)
            self._reports += reports

    def _check(self, runner_id: str, report: GrantReport) -> None:
        """Raises ``UnreconciledError`` for what this runner cannot have been permitted."""
        grant = run_store.grant_of(self._connection, report.run_id)
        if grant is not None and grant.runner_id != runner_id:
            what = f"run {report.run_id} was granted to another"
        elif report.fencing_token > MAX_FENCING_TOKEN:
            what = f"fencing token {report.fencing_token} was never handed out"
        else:
            return
        raise UnreconciledError(
            f"the report of runner {runner_id} cannot be: {what}. Give its journal's report with --report, or, if that "
            "is no better, name the runner with --unreachable"
        )

    def debit(self, unreachable: Collection[str]) -> None:
        for report in self._reports:
            with entries.locked(self._connection) as log:
                log.fence_beyond(report.fencing_token)
            self._debit(report.run_id, report.rounds_permitted, report)
        if unreachable:
            for run_id in recovery.may_have_run(self._connection, unreachable):
                self._debit(run_id, budgets.reservations_of(self._connection, run_id)[0].rounds, None)

    def _debit(self, run_id: str, permitted: int, report: GrantReport | None) -> None:
        """Debits what was permitted and is not debited yet: from the reservation, if it still holds it."""
        held = budgets.find_reservations(self._connection, run_id)
        known = held[0].rounds_debited if held else 0
        missing = permitted - known - self._adjusted(run_id)
        if missing <= 0:
            return
        if held and held[0].state != "closed":
            self._debit_held(held, missing, report)
        elif report is not None:
            self._adjust(report, missing)
        self.debited[run_id] = self.debited.get(run_id, 0) + missing

    def _debit_held(self, held: steps.Held, rounds: int, report: GrantReport | None) -> None:
        if rounds > held[0].undebited:
            raise UnreconciledError(
                f"a runner reports {held[0].rounds_debited + rounds} rounds of run {held[0].run_id}, which reserved "
                f"{held[0].rounds}: its journal is not of this ledger; go on without it by naming the runner with "
                "--unreachable"
            )
        grant_id, token = self._grant(held[0].run_id, report)
        first = held[0].rounds_debited
        facts: dict[str, Any] = {
            "grant": grant_id,
            "fencing_token": token,
            "first_round": first,
            "rounds": rounds,
            "rounds_debited": first + rounds,
            "reconciled": True,
        }
        with entries.locked(self._connection) as log:
            appended = steps.append(log, "debit", self._now, facts, held)
        for one, entry in zip(held, appended, strict=True):
            budgets.debit(self._connection, one, grant_id, first, rounds, entry)

    def _grant(self, run_id: str, report: GrantReport | None) -> tuple[str, int]:
        """The run's own grant; the reported one, if the entry that gave it is lost."""
        grant = run_store.grant_of(self._connection, run_id)
        if grant is not None:
            return grant.id, grant.fencing_token
        if report is None:  # queued as far as we know: no token of ours was ever given for it
            with entries.locked(self._connection) as log:
                return "grt_unknown", log.fencing_token()
        return report.grant_id, report.fencing_token

    def _adjust(self, report: GrantReport, rounds: int) -> None:
        """Rounds of a run that no entry tells of, or that had been released: charged to its populations as they ran."""
        known = budgets.find_reservations(self._connection, report.run_id)
        try:
            event = self._event(known, report, rounds)
            for population_id in sorted([one.population_id for one in known] or self._populations_of(report)):
                self._adjust_one(population_id, event, report.run_id)
        except AccountantError as error:
            raise UnreconciledError(f"what a runner reports of {report.run_id} cannot be charged: {error}") from error

    def _event(self, known: steps.Held, report: GrantReport, rounds: int) -> PoissonGaussian:
        """As it was charged, where the decision is known; else as the runner's journal has it."""
        if not known:
            return PoissonGaussian(report.sampling_probability, report.noise_multiplier, rounds)
        body = entries.body_at(self._connection, known[0].entry_index)
        event = decode_event(json.loads(body)["facts"]["charge"]["event"])
        if not isinstance(event, PoissonGaussian):
            raise UnreconciledError(f"run {report.run_id} is no sampled training: no part of it can be charged")
        return replace(event, rounds=rounds)

    def _adjust_one(self, population_id: str, event: PoissonGaussian, run_id: str) -> None:
        population = catalogue.population(self._connection, population_id)
        if population is None:
            raise UnreconciledError(f"population {population_id} of run {run_id} is not in this database")
        cost = charge(event, population.budget.orders, population.relation)
        facts = {
            "event": encode_event(event),
            "accountant": ACCOUNTANT,
            "units_per_round": [str(units) for units in cost.curve.units],
            "rounds": event.rounds,
            "run": run_id,
            "by": "reconciliation",
        }
        entry = entries.append(self._connection, "adjustment", self._now, facts, population_id=population_id)
        budgets.adjust(self._connection, population_id, cost.total, entry.index)

    def _populations_of(self, report: GrantReport) -> set[str]:
        unknown = [handle for handle in report.version_handles if handle not in self._handles]
        if unknown:
            raise UnreconciledError(
                f"a runner ran {report.run_id} on data that no entry registers ({', '.join(unknown)}): its mirror ends "
                "too early; give a later export with the log's folder"
            )
        return {self._handles[handle] for handle in report.version_handles}

    def _adjusted(self, run_id: str) -> int:
        """Rounds that an earlier reconciliation charged without a reservation."""
        by_population: dict[str | None, int] = {}
        for entry in entries.select_all(self._connection, kind="adjustment"):
            facts = json.loads(entry.body)["facts"]
            if facts["run"] == run_id:
                rounds = by_population.get(entry.population_id, 0)
                by_population[entry.population_id] = rounds + facts["rounds"]
        return max(by_population.values(), default=0)


def _parsed(text: str) -> list[GrantReport]:
    return [GrantReport.from_json(one) for one in json.loads(text)]


def read_reports(document: object) -> list[GrantReport]:
    """A report file's content. Raises ``UnreconciledError``."""
    try:
        if not isinstance(document, list) or not all(isinstance(one, dict) for one in document):
            raise TypeError("it must be a list of grants")
        return [GrantReport.from_json(one) for one in document]
    except (TypeError, ValueError) as error:
        raise UnreconciledError(f"this is not a runner's report: {error}") from error
