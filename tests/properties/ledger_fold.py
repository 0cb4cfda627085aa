"""What a ledger's bytes say, folded a second time: balances, runs, and the tree, from nothing but the bodies.

Invariants
- Standard library only: neither the product's replay nor its tree is used.
- Whatever breaks a rule of the ledger raises ``BrokenLedger``.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


class BrokenLedger(AssertionError):
    """The entries break a rule."""


@dataclass
class Leg:
    """One population's part of a run."""

    scopes: tuple[tuple[str, str, str], ...]
    units: list[int]
    rounds: int
    debited: int = 0
    released: int = 0
    token: int = 0
    state: str = "reserved"


@dataclass
class Fold:
    committed: dict[tuple[str, str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    debited: dict[tuple[str, str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    legs: dict[tuple[str, str], Leg] = field(default_factory=dict)
    leaves: list[bytes] = field(default_factory=list)
    last_token: int = 0

    def apply(self, body: bytes) -> None:
        entry = json.loads(body)
        _require(entry["index"] == len(self.leaves), "indexes are dense")
        self.leaves.append(hashlib.sha256(b"\x00" + body).digest())
        handler = getattr(self, f"_{entry['kind']}", None)
        if handler is not None:
            handler(entry["subjects"], entry["facts"])

    def balance(self, key: tuple[str, str, str], width: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        nothing = [0] * width
        return tuple(self.committed.get(key) or nothing), tuple(self.debited.get(key) or nothing)

    # --- kinds ---

    def _decision(self, subjects: dict[str, str], facts: dict[str, Any]) -> None:
        if facts["charge"] is None:
            return
        population = subjects["population_id"]
        key = (subjects["run_id"], population)
        _require(key not in self.legs, "a run is reserved once")
        scopes = (
            (population, "population", population),
            (population, "project", subjects["project_id"]),
            (population, "researcher", subjects["researcher_id"]),
        )
        units = [int(text) for text in facts["charge"]["units_per_round"]]
        leg = self.legs[key] = Leg(scopes, units, facts["charge"]["event"]["rounds"])
        self._move(self.committed, leg, leg.rounds)

    def _granted(self, subjects: dict[str, str], facts: dict[str, Any]) -> None:
        leg = self._leg(subjects, "reserved")
        twin = any(
            other.token == facts["fencing_token"] for (run, _), other in self.legs.items() if run == subjects["run_id"]
        )
        _require(twin or facts["fencing_token"] > self.last_token, "fencing tokens increase")
        self.last_token = leg.token = facts["fencing_token"]
        leg.state = "running"

    def _debit(self, subjects: dict[str, str], facts: dict[str, Any]) -> None:
        leg = self._leg(subjects, "running")
        _require(facts["fencing_token"] == leg.token, "a debit is under the run's own token")
        _require(facts["first_round"] == leg.debited, "no round is debited twice, and none is left out")
        leg.debited += facts["rounds"]
        _require(facts["rounds"] > 0 and leg.debited <= leg.rounds, "debits stay within the reservation")
        self._move(self.debited, leg, facts["rounds"])

    def _release(self, subjects: dict[str, str], facts: dict[str, Any]) -> None:
        self._give_back(self._leg(subjects, "reserved", "running"), facts)

    def _quarantine(self, subjects: dict[str, str], facts: dict[str, Any]) -> None:
        self._leg(subjects, "running").state = "quarantined"

    def _quarantine_resolved(self, subjects: dict[str, str], facts: dict[str, Any]) -> None:
        self._give_back(self._leg(subjects, "quarantined"), facts)

    def _publication(self, subjects: dict[str, str], facts: dict[str, Any]) -> None:
        leg = self._leg(subjects, "running")
        _require(facts["fencing_token"] == leg.token, "a publication is under the run's own token")
        _require(leg.debited == leg.rounds == facts["rounds"], "a publication comes after all its debits")
        leg.state = "published"

    # --- steps ---

    def _give_back(self, leg: Leg, facts: dict[str, Any]) -> None:
        _require(facts["rounds_released"] == leg.rounds - leg.debited, "exactly the undebited rounds are released")
        leg.released = facts["rounds_released"]
        leg.state = "closed"
        self._move(self.committed, leg, -leg.released)

    def _leg(self, subjects: dict[str, str], *states: str) -> Leg:
        leg = self.legs[subjects["run_id"], subjects["population_id"]]
        _require(leg.state in states, f"a run that is {leg.state} is not gone on with")
        return leg

    def _move(self, into: dict[tuple[str, str, str], list[int]], leg: Leg, rounds: int) -> None:
        for key in leg.scopes:
            before = into[key] or [0] * len(leg.units)
            into[key] = [amount + unit * rounds for amount, unit in zip(before, leg.units, strict=True)]
            _require(min(into[key]) >= 0, "no balance is negative")


def tree_hash(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, over leaf hashes."""
    if len(leaves) <= 1:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + tree_hash(leaves[:split]) + tree_hash(leaves[split:])).digest()


def peaks(leaves: Sequence[bytes]) -> bytes:
    """Hashes of the complete subtrees, largest first, as the log's head keeps them."""
    found, start = b"", 0
    while start < len(leaves):
        size = 1 << (len(leaves) - start).bit_length() - 1
        found += tree_hash(leaves[start : start + size])
        start += size
    return found


def completed(leaves: Sequence[bytes], index: int) -> bytes:
    """Hashes of the subtrees of 2, 4, 8, … leaves that the leaf at ``index`` completes."""
    found, size = b"", 2
    while (index + 1) % size == 0:
        found += tree_hash(leaves[index + 1 - size : index + 1])
        size *= 2
    return found


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise BrokenLedger(rule)
