"""Past runs for a ledger: one real run, from request to publication, and thousands of copies of what it left.

Each copy has ids, indexes, a fencing token and leaves of its own, in one Merkle tree with all before it, and its amount
is on the balances: what a ledger looks like that many runs went through, made in seconds by one insertion a table.
Neither admission nor the verifier knows the difference.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy
import sqlalchemy as sa

from accountant.codec import canonical_bytes
from api.schemas import TrainRequestIn
from benchmarks.stage import Opa, Site
from governance import snapshot
from governance.admission import Admission
from governance.ledger import budgets, chain, entries, tables, vectors
from governance.model import Principal, Role, new_id, utc_now
from governance.results import ResultStore
from governance.settlement import Settlement
from runner.model_spec import parse
from runner.port import Grant, RunResult

ENTRIES_PER_RUN = 5  # decision, grant, two debits, publication
_BATCH = 2_000
_RUNNER = Principal("rnr_past", Role.RUNNER)
_TOKEN = re.compile(rb'"fencing_token":\d+')

Row = dict[str, Any]


def add_entries(site: Site, opa: Opa, least: int) -> None:
    """Published runs with as many entries together, or a few more. Raises as ``add_runs`` does."""
    add_runs(site, opa, -(-least // ENTRIES_PER_RUN))


def add_runs(site: Site, opa: Opa, runs: int) -> None:
    """``runs`` published ones. Raises ``RuntimeError`` if they fill more than half of the budget."""
    grant, decision_id = _finished_run(site, opa)
    with site.database.write() as connection:
        original = _Original(connection, grant, decision_id)
        for first in range(1, runs, _BATCH):
            copies = [original.copy() for _ in range(first, min(first + _BATCH, runs))]
            for table in original.rows:
                connection.execute(table.insert(), [row for copy in copies for row in copy[table]])
        connection.execute(tables.log_head.update().values(original.head()))
        _move_balances(connection, grant.run_id, runs, original.frontier.size - 1)
    request = TrainRequestIn.model_validate(site.request()).to_domain()
    reading = snapshot.take(site.database, site.researcher, request, utc_now()).budgets[0].readings()[0]
    if reading.committed_epsilon > reading.guarantee_epsilon / 2:
        raise RuntimeError(f"the population is too small for {runs} runs: {reading}")


def _finished_run(site: Site, opa: Opa) -> tuple[Grant, str]:
    engine = opa.engine()
    try:
        request = TrainRequestIn.model_validate(site.request()).to_domain()
        decision = Admission(site.database, engine).admit(
            site.researcher, request, idempotency_key=secrets.token_hex(12), request_digest=bytes(32)
        )
    finally:
        engine.close()
    settlement = Settlement(site.database, ResultStore(site.settings.results_dir))
    grant = settlement.claim(_RUNNER)
    if grant is None or grant.run_id != decision.run_id:
        raise RuntimeError(f"the past run was not queued: {decision}")
    token = grant.grant_id, grant.fencing_token
    rounds = grant.parameters.rounds
    for first in range(0, rounds, grant.rounds_per_debit):
        settlement.debit(_RUNNER, *token, first, min(grant.rounds_per_debit, rounds - first))
    tensors = {name: np.zeros(shape, np.float32) for name, shape in parse(grant.model).weights()}
    settlement.publish(_RUNNER, *token, RunResult(safetensors.numpy.save(tensors), rounds, {}, "generator", "1"))
    return grant, decision.id


class _Original:
    """The rows of a finished run, and copies of them with ids and numbers of their own."""

    def __init__(self, connection: sa.Connection, grant: Grant, decision_id: str) -> None:
        self._ids = {grant.run_id: "run", grant.grant_id: "grt", decision_id: "dec"}
        t = tables
        owned = [  # in an order that foreign keys allow
            (t.ledger_entries, t.ledger_entries.c.run_id == grant.run_id),
            (t.decisions, t.decisions.c.id == decision_id),
            (t.idempotency_keys, t.idempotency_keys.c.decision_id == decision_id),
            (t.runs, t.runs.c.id == grant.run_id),
            *((table, table.c.run_id == grant.run_id) for table in (t.run_datasets, t.reservations, t.grants)),
            *((table, table.c.run_id == grant.run_id) for table in (t.debits, t.results, t.run_events)),
        ]
        self.rows: dict[sa.Table, list[Row]] = {
            table: [dict(row) for row in connection.execute(sa.select(table).where(condition)).mappings()]
            for table, condition in owned
        }
        self.rows[t.ledger_entries].sort(key=lambda row: int(row["index"]))
        self._first_entry = self.rows[t.ledger_entries][0]["index"]
        if len(self.rows[t.ledger_entries]) != ENTRIES_PER_RUN:
            raise RuntimeError(f"a run has {len(self.rows[t.ledger_entries])} entries, not {ENTRIES_PER_RUN}")
        self._statement = _statement_digest(self.rows[t.results])
        head = entries.head(connection)
        self.frontier, self.events, self.fencing = head.frontier, head.events, head.fencing

    def head(self) -> Row:
        frontier = self.frontier
        numbers = {"size": frontier.size, "events": self.events, "fencing": self.fencing}
        return numbers | {"frontier": frontier.encode()}

    def copy(self) -> dict[sa.Table, list[Row]]:
        renamed = {old: new_id(kind) for old, kind in self._ids.items()}
        self.fencing += 1
        shift = self.frontier.size - self._first_entry
        token = f'"fencing_token":{self.fencing}'.encode()
        found = {table: [_renamed(row, renamed) for row in rows] for table, rows in self.rows.items()}
        statement = _statement_digest(found[tables.results])
        for row in found[tables.ledger_entries]:
            old, row["index"] = row["index"], row["index"] + shift
            row["body"] = row["body"].replace(f'"index":{old},'.encode(), f'"index":{row["index"]},'.encode())
            row["body"] = _TOKEN.sub(token, row["body"]).replace(self._statement, statement)
            row["leaf_hash"] = chain.leaf_hash(row["body"])
            self.frontier, completed = self.frontier.append(row["leaf_hash"])
            row["subtrees"] = b"".join(completed)
        for row in (*found[tables.debits], *found[tables.reservations]):
            row["entry_index"] += shift
        for row in found[tables.reservations]:
            row["closed_entry"] += shift
        for row in found[tables.run_events]:
            self.events += 1
            row["id"] = self.events
        found[tables.grants][0]["fencing_token"] = self.fencing
        found[tables.idempotency_keys][0]["key"] = secrets.token_hex(12)
        return found


def _statement_digest(results: list[Row]) -> bytes:
    statement = json.loads(results[0]["privacy_statement"])
    return hashlib.sha256(canonical_bytes(statement)).hexdigest().encode()


def _renamed(row: Row, ids: Mapping[str, str]) -> Row:
    return {column: _replaced(value, ids) for column, value in row.items()}


def _replaced(value: Any, ids: Mapping[str, str]) -> Any:
    for old, new in ids.items():
        if isinstance(value, str):
            value = value.replace(old, new)
        elif isinstance(value, bytes) and old.encode() in value:
            value = value.replace(old.encode(), new.encode())
    return value


def _move_balances(connection: sa.Connection, run_id: str, runs: int, last: int) -> None:
    """The balances hold one run of these; now they hold ``runs``."""
    held = budgets.reservations_of(connection, run_id)[0]
    amount = vectors.encode([units * held.rounds * runs for units in held.round_curve])
    mine = tables.balances.c.population_id == held.population_id
    connection.execute(tables.balances.update().where(mine).values(committed=amount, debited=amount, as_of_entry=last))
