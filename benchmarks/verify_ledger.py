"""A ledger of a million entries for ``verify``, made quickly: the bytes are those that a node would write.

Twenty populations, a hundred researchers, forty projects. A run is a decision with the charge of 185 orders, a grant,
about ten debits and a publication; one in twenty ends in quarantine (half of these are resolved), one in thirty is
released, and one decision in ten is a refusal. The runs share three hundred pairs of sampling probability and noise
multiplier. Each population has ε = 200, so that thousands of ordinary runs fit: amounts are as wide as in a real
ledger, only the caps are not. Charges are our own kernel's, which the verifier takes for right: dp_accounting would
need minutes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accountant.charge import own_estimate
from accountant.codec import canonical_bytes, encode_event
from accountant.curve import ACCOUNTANT
from accountant.events import PoissonGaussian
from accountant.filter import Budget
from governance.ledger.chain import leaf_hash
from governance.ledger.merkle import Frontier
from governance.ledger.notes import Checkpoint, Note, SignerKey

_ORIGIN = "ledger.example.org/benchmark"
_POPULATIONS, _RESEARCHERS, _PROJECTS, _CURVES = 20, 100, 40, 300
_SIZE = 20_000  # of a population

Row = tuple[str, dict[str, str], dict[str, Any]]  # kind, subjects, facts


@dataclass(frozen=True)
class Made:
    ledger: Path
    checkpoint: Path
    log_key: str


def make(folder: Path, entries: int) -> Made:
    key = SignerKey.generate(_ORIGIN)
    maker = _Maker(random.Random(4), key.verifier.encode())
    frontier = Frontier.empty()
    made = Made(folder / "ledger.jsonl", folder / "checkpoint", key.verifier.encode())
    dump = json.JSONEncoder(sort_keys=True, separators=(",", ":"), check_circular=False).encode
    with made.ledger.open("wb", buffering=2**20) as file:
        for index, (kind, subjects, facts) in enumerate(maker.rows(entries)):
            at = f"2026-{1 + index * 11 // entries:02}-01T00:00:00.{index % 10**6:06}Z"
            entry = {"v": 1, "index": index, "kind": kind, "at": at, "subjects": subjects, "facts": facts}
            # Python's encoder is quick, and writes the canonical form of these entries; of all but the first kinds.
            body = canonical_bytes(entry) if index < 1000 else dump(entry).encode()
            frontier = frontier.append(leaf_hash(body))[0]
            file.write(body + b"\n")
    text = Checkpoint(_ORIGIN, frontier.size, frontier.root()).text()
    made.checkpoint.write_text(Note(text, (key.sign(text),)).encode(), encoding="utf-8")
    return made


class _Maker:
    def __init__(self, rng: random.Random, log_key: str) -> None:
        self._rng = rng
        self._log_key = log_key
        self._budget = Budget.open(200.0, 1e-6)
        self._tokens = 0
        self._charges = []
        for number in range(_CURVES):
            q, z = (20 + number) / _SIZE, round(0.8005 + number / 200, 4)
            units = own_estimate(PoissonGaussian(q, z, 1), self._budget.orders, self._budget.relation)
            self._charges.append((q, z, [str(one) for one in units]))
        self._people = [self._id("usr") for _ in range(_RESEARCHERS)]
        self._projects = [self._id("prj") for _ in range(_PROJECTS)]
        self._data = [(self._id("pop"), self._id("dat")) for _ in range(_POPULATIONS)]

    def _id(self, kind: str) -> str:
        return f"{kind}_{self._rng.getrandbits(96):024x}"

    def rows(self, wanted: int) -> Iterator[Row]:
        """Exactly ``wanted`` entries; refusals fill up what no whole run fits in."""
        count = 0
        for row in self._opening():
            yield row
            count += 1
        while count < wanted:
            rows = list(self._run()) if self._rng.random() < 0.9 else [self._refusal()]
            if count + len(rows) > wanted:
                rows = [self._refusal()]
            yield from rows
            count += len(rows)

    def _opening(self) -> Iterator[Row]:
        yield "key_enrolled", {}, {"origin": _ORIGIN, "verifier_key": self._log_key, "by": "operator"}
        digests = {"organisation": "sha256:" + "0" * 64}
        yield "policy_activated", {}, {"revision": "1-a", "sequence": 1, "digests": digests, "by": "operator"}
        for population, dataset in self._data:
            opened = {"declared_size": _SIZE, "budget": self._budget.to_document(), "owner": self._people[0]}
            yield "population_opened", {"population_id": population}, opened
            subjects = {"population_id": population, "dataset_id": dataset}
            facts = {"version": 1, "version_handle": self._id("ver"), "has_public_holdout": False}
            more = {"max_examples_per_unit": 100, "policy": "standard", "by": self._people[0]}
            yield "dataset_registered", subjects, facts | more
            quota = {"scope": "project", "scope_id": self._projects[0], "epsilon": 100, "by": self._people[0]}
            yield "quota_set", {"population_id": population}, quota

    def _decision(self, q: float, z: float, rounds: int, charge: dict[str, Any] | None) -> Row:
        population, dataset = self._rng.choice(self._data)
        subjects = {
            "population_id": population,
            "dataset_id": dataset,
            "project_id": self._rng.choice(self._projects),
            "researcher_id": self._rng.choice(self._people),
        }
        numbers = {"rounds": rounds, "clients_per_round": round(q * _SIZE), "no_clients": None}
        requested = numbers | {"noise_multiplier": z, "clipping_norm": 1, "mechanism": "gaussian_fixed_clipping"}
        facts = {
            "decision": self._id("dec"),
            "outcome": "refused" if charge is None else "approved",
            "dataset_version": 1,
            "reasons": [{"code": "purpose", "source": "organisation"}] if charge is None else [],
            "requested": requested,
            "effective": None if charge is None else requested,
            "clamps": [],
            "charge": charge,
            "obligations": ["publish_weights"],
            "policy_revision": "1-a",
            "policy_digests": {"organisation": "sha256:" + "0" * 64},
            "opa_decision_id": f"{self._rng.getrandbits(128):032x}",
            "input_digest": f"sha256:{self._rng.getrandbits(256):064x}",
        }
        return "decision", subjects if charge is None else subjects | {"run_id": self._id("run")}, facts

    def _refusal(self) -> Row:
        return self._decision(0.01, 1.5, 100, None)

    def _run(self) -> Iterator[Row]:
        q, z, units = self._rng.choice(self._charges)
        batches = self._rng.randint(8, 12)
        rounds = 10 * batches
        event = encode_event(PoissonGaussian(q, z, rounds))
        decision = self._decision(q, z, rounds, {"event": event, "accountant": ACCOUNTANT, "units_per_round": units})
        yield decision
        subjects = {name: value for name, value in decision[1].items() if name != "dataset_id"}
        self._tokens += 1
        grant = {"grant": self._id("grt"), "fencing_token": self._tokens}
        yield "granted", subjects, grant | {"runner": "rnr_benchmark"}
        end = self._rng.random()
        debited = batches if end > 0.08 else self._rng.randint(0, batches - 1)
        for batch in range(debited):
            part = {"first_round": 10 * batch, "rounds": 10, "rounds_debited": 10 * (batch + 1)}
            yield "debit", subjects, grant | part
        done = 10 * debited
        if debited == batches:
            digests = {name: f"{self._rng.getrandbits(256):064x}" for name in ("weights_sha256", "statement_sha256")}
            made = {"rounds": rounds, "metrics": [], "generator": "chacha/1", "runner_version": "1"}
            yield "publication", subjects, grant | digests | made
        elif end < 0.05:
            yield "quarantine", subjects, {"rounds_held": rounds - done, "rounds_debited": done}
            if end < 0.025:
                evidence = {"kind": "power_loss", "sha256": f"{self._rng.getrandbits(256):064x}"}
                facts = {"rounds_released": rounds - done, "rounds_debited": done, "evidence": evidence}
                yield "quarantine_resolved", subjects, facts | {"by": "operator"}
        else:
            facts = {"rounds_released": rounds - done, "rounds_debited": done}
            yield "release", subjects, facts | {"why": "cancelled", "by": subjects["researcher_id"]}
