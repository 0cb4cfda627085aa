"""What an auditor does with the ledger's entries and ``accountant`` alone: checks each, and recomputes the odometer.

Invariants
- Nothing here asks the node for a balance: the entries' own bytes are all it reads.
- A run's curve is recomputed from its event, not only read from the entry, and must not be above what was charged.

This module does not: know HTTP or a database.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from accountant.codec import decode_event
from accountant.curve import round_curve
from accountant.filter import Budget, Vector, add, subtract, zero
from accountant.odometer import epsilon_reading


@dataclass(frozen=True)
class Recomputed:
    entries: int
    guarantee_epsilon: float
    delta: float
    spent_epsilon: float  # odometer over debits
    committed_epsilon: float  # odometer over debited + reserved + quarantined


class AuditError(Exception):
    """An entry is not what it should be; the message names it."""


def recompute(entries: Iterable[tuple[int, bytes, bytes]], population_id: str) -> Recomputed:
    """``entries``: (index, body, leaf hash) of the whole ledger, in order. Raises ``AuditError``."""
    budget: Budget | None = None
    curves: dict[str, Vector] = {}
    spent: Vector = ()
    committed: Vector = ()
    debited: dict[str, int] = {}
    released: set[str] = set()
    count = 0
    for position, (index, body, leaf_hash) in enumerate(entries):
        entry = _checked(position, index, body, leaf_hash)
        count += 1
        subjects, facts = entry["subjects"], entry["facts"]
        if subjects.get("population_id") != population_id:
            continue
        kind, run = entry["kind"], subjects.get("run_id", "")
        if kind == "population_opened":
            budget = Budget.from_document(facts["budget"])
            spent = committed = zero(budget.orders)
        elif budget is None:
            raise AuditError(f"entry {index} comes before its population was opened")
        elif kind == "decision" and facts["charge"] is not None:
            curves[run] = _charged(index, facts["charge"], budget)
            committed = add(committed, _times(curves[run], facts["charge"]["event"]["rounds"]))
        elif kind == "debit":
            if facts["first_round"] != debited.get(run, 0):
                raise AuditError(f"entry {index} debits rounds out of order")
            debited[run] = facts["rounds_debited"]
            spent = add(spent, _times(curves[run], facts["rounds"]))
        elif kind == "release":
            if facts["rounds_debited"] != debited.get(run, 0) or run in released:
                raise AuditError(f"entry {index} releases rounds that it may not")
            released.add(run)
            committed = subtract(committed, _times(curves[run], facts["rounds_released"]))
    if budget is None:
        raise AuditError(f"population {population_id} was never opened")
    readings = [epsilon_reading(budget, vector, budget.delta) for vector in (spent, committed)]
    return Recomputed(count, budget.epsilon, budget.delta, *readings)


def _checked(position: int, index: int, body: bytes, leaf_hash: bytes) -> dict[str, Any]:
    if hashlib.sha256(b"\x00" + body).digest() != leaf_hash:
        raise AuditError(f"entry {index}: its bytes are not those of its leaf hash")
    entry: dict[str, Any] = json.loads(body)
    if not position == index == entry["index"]:
        raise AuditError(f"entry {index} is out of order: position {position}, {entry['index']} by its own bytes")
    return entry


def _charged(index: int, charge: dict[str, Any], budget: Budget) -> Vector:
    event = decode_event(charge["event"])
    curve = round_curve(event.sampling_probability, event.noise_multiplier, budget.orders)
    charged = tuple(int(units) for units in charge["units_per_round"])
    if any(ours > theirs for ours, theirs in zip(curve.units, charged, strict=True)):
        raise AuditError(f"entry {index} was charged less than its event costs")
    return charged


def _times(curve: Vector, rounds: int) -> Vector:
    return tuple(units * rounds for units in curve)
