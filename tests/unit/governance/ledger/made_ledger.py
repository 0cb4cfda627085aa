"""Ledgers made by hand: rows that can be changed before they become entries, a tree and a signed checkpoint."""

from __future__ import annotations

import copy
import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from accountant.charge import own_estimate
from accountant.codec import encode_event
from accountant.curve import ACCOUNTANT
from accountant.events import Event, PoissonGaussian, PoissonGaussianStatistics
from accountant.filter import Budget
from governance.ledger.chain import entry_body, leaf_hash
from governance.ledger.merkle import Frontier
from governance.ledger.notes import COSIGNATURE, Checkpoint, Note, SignerKey
from governance.ledger.verify import Known, Report, verify
from governance.ledger.verify_signatures import Kind, Signed, read

ORIGIN = "ledger.example.org/test"
LOG_KEY, NEXT_KEY, FOREIGN_KEY = (SignerKey.generate(ORIGIN) for _ in range(3))
WITNESS = SignerKey.generate("witness.example.org", COSIGNATURE)
EVENT = PoissonGaussian(0.05, 2.0, 10)
DECLARED = 1000  # people in each population
DIGEST = hashlib.sha256(b"").hexdigest()


@lru_cache
def budget(epsilon: float = 8.0, relation: str = "ADD_OR_REMOVE_ONE") -> Budget:
    return Budget.open(epsilon, 1e-5, relation=relation)


@lru_cache
def charge_units(event: Event, relation: str = "ADD_OR_REMOVE_ONE") -> tuple[str, ...]:
    return tuple(str(units) for units in own_estimate(event, budget().orders, relation))


def effective(event: Event, declared: int = DECLARED) -> dict[str, Any]:
    """Parameters that are charged as this event."""
    found: dict[str, Any] = {"rounds": event.rounds, "no_clients": None, "clipping_norm": 1.0, "mechanism": "other"}
    if not isinstance(event, PoissonGaussianStatistics):
        found["noise_multiplier"] = event.noise_multiplier
    if isinstance(event, PoissonGaussian):
        clients = round(event.sampling_probability * declared)
        found |= {"mechanism": "gaussian_fixed_clipping", "clients_per_round": clients}
    return found


@dataclass
class Row:
    kind: str
    subjects: dict[str, str]
    facts: dict[str, Any]
    at: str


@dataclass
class Made:
    """Rows of a ledger. Methods append what the service would; ``rows`` may be changed at will."""

    rows: list[Row] = field(default_factory=list)
    at: str = "2026-01-01T00:00:00.000000Z"
    tokens: int = 0
    relation: str = "ADD_OR_REMOVE_ONE"

    def add(self, kind: str, facts: dict[str, Any], **subjects: str) -> int:
        self.rows.append(Row(kind, subjects, facts, self.at))
        return len(self.rows) - 1

    def policies(self) -> int:
        facts = {"revision": "1-a", "sequence": 1, "digests": {}, "by": "operator"}
        return self.add("policy_activated", facts)

    def opened(self, population: str = "pop_1", epsilon: float = 8.0, dataset: str = "dat_1") -> int:
        document = budget(epsilon, self.relation).to_document()
        facts = {"declared_size": DECLARED, "budget": document, "owner": "usr_owner"}
        index = self.add("population_opened", facts, population_id=population)
        self.registered(population, dataset)
        return index

    def registered(
        self, population: str = "pop_1", dataset: str = "dat_1", version: int = 1, *, holdout: bool = False
    ) -> int:
        facts = {"version": version, "version_handle": f"ver_{dataset}_{version}", "policy": "standard"}
        more = {"has_public_holdout": holdout, "max_examples_per_unit": 10, "by": "usr_owner"}
        return self.add("dataset_registered", facts | more, population_id=population, dataset_id=dataset)

    def quota(self, scope: str = "project", scope_id: str = "prj_1", epsilon: float = 4.0, **more: Any) -> int:
        facts = {"scope": scope, "scope_id": scope_id, "epsilon": epsilon, "by": "usr_owner"} | more
        return self.add("quota_set", facts, population_id="pop_1")

    def disjoint(self, versions: dict[str, int], *pair: str) -> int:
        both = list(pair or ("pop_1", "pop_2"))
        facts = {"populations": both, "versions": versions, "by": "usr_owner"}
        return self.add("populations_disjoint", facts, population_id=both[0])

    def key(self, key: SignerKey) -> int:
        facts = {"origin": ORIGIN, "verifier_key": key.verifier.encode(), "by": "operator"}
        return self.add("key_enrolled", facts)

    def charge(self, event: Event = EVENT) -> dict[str, Any]:
        units = list(charge_units(event, self.relation))
        return {"event": encode_event(event), "accountant": ACCOUNTANT, "units_per_round": units}

    def decided(self, run: str | None, event: Event = EVENT, population: str = "pop_1", **more: Any) -> int:
        """An approval with this run's id, or a refusal."""
        facts: dict[str, Any] = {
            "decision": f"dec_{run}",
            "outcome": "refused" if run is None else "approved",
            "dataset_version": 1,
            "reasons": [],
            "effective": None if run is None else effective(event, DECLARED * len(more.get("populations", "1"))),
            "charge": None if run is None else self.charge(event),
            "policy_revision": "1-a",
        }
        subjects = self.subjects(run, population) | {"dataset_id": more.pop("dataset", "dat_1")}
        return self.add("decision", facts | more, **subjects)

    @staticmethod
    def subjects(run: str | None, population: str = "pop_1") -> dict[str, str]:
        found = {"population_id": population, "project_id": "prj_1", "researcher_id": "usr_1"}
        return found if run is None else found | {"run_id": run}

    def granted(self, run: str, population: str = "pop_1", *, again: bool = False) -> int:
        self.tokens += 0 if again else 1
        facts = {"grant": f"grt_{run}", "fencing_token": self.tokens, "runner": "rnr_1"}
        return self.add("granted", facts, **self.subjects(run, population))

    def debited(self, run: str, first: int, rounds: int, population: str = "pop_1", **more: Any) -> int:
        facts = self.grant_of(run) | {"first_round": first, "rounds": rounds, "rounds_debited": first + rounds}
        return self.add("debit", facts | more, **self.subjects(run, population))

    def grant_of(self, run: str) -> dict[str, Any]:
        granted = [row.facts for row in self.rows if row.kind == "granted" and row.subjects["run_id"] == run]
        facts = granted[-1] if granted else {"grant": f"grt_{run}", "fencing_token": 99}
        return {"grant": facts["grant"], "fencing_token": facts["fencing_token"]}

    def published(self, run: str, rounds: int = 10, population: str = "pop_1") -> int:
        made = {"rounds": rounds, "weights_sha256": DIGEST, "metrics": [], "statement_sha256": DIGEST}
        facts = self.grant_of(run) | made | {"generator": "g/1", "runner_version": "1"}
        return self.add("publication", facts, **self.subjects(run, population))

    def released(self, run: str, rounds: int, debited: int, why: str = "cancelled") -> int:
        facts = {"rounds_released": rounds, "rounds_debited": debited, "why": why, "by": "usr_1"}
        return self.add("release", facts, **self.subjects(run))

    def quarantined(self, run: str, held: int, debited: int) -> int:
        return self.add("quarantine", {"rounds_held": held, "rounds_debited": debited}, **self.subjects(run))

    def resolved(self, run: str, rounds: int, debited: int) -> int:
        evidence = {"kind": "power_loss", "sha256": DIGEST}
        facts = {"rounds_released": rounds, "rounds_debited": debited, "evidence": evidence, "by": "usr_admin"}
        return self.add("quarantine_resolved", facts, **self.subjects(run))

    def whole_run(self, run: str) -> None:
        self.decided(run)
        self.granted(run)
        self.debited(run, 0, 4)
        self.debited(run, 4, 6)
        self.published(run)

    def reconciled(self, **debited: int) -> int:
        """Rounds by run."""
        listed = [{"run": run, "rounds": rounds} for run, rounds in debited.items()]
        facts = {"witness": {"size": 3, "root": DIGEST}, "recovered_entries": 0, "debited": listed, "reports": [DIGEST]}
        return self.add("reconciled", facts | {"by": "operator"})

    def bodies(self) -> list[bytes]:
        return [entry_body(index, row.kind, row.at, row.subjects, row.facts) for index, row in enumerate(self.rows)]

    def changed(self, change: Callable[[Made], object]) -> Made:
        other = copy.deepcopy(self)
        change(other)
        return other


def every_end() -> Made:
    """Two published runs, one released, one quarantined, one resolved, one still open, and a refusal."""
    made = Made()
    made.key(LOG_KEY)
    made.policies()
    made.opened()
    made.quota()
    made.whole_run("run_1")
    made.decided("run_2")
    made.granted("run_2")
    made.debited("run_2", 0, 3)
    made.released("run_2", 7, 3)
    made.decided(None)
    for run in ("run_3", "run_4"):
        made.decided(run)
        made.granted(run)
        made.debited(run, 0, 5)
        made.quarantined(run, 5, 5)
    made.resolved("run_4", 5, 5)
    made.whole_run("run_5")
    made.decided("run_6")
    made.granted("run_6")
    made.debited("run_6", 0, 1)
    return made


def frontier(bodies: Sequence[bytes]) -> Frontier:
    found = Frontier.empty()
    for body in bodies:
        found = found.append(leaf_hash(body))[0]
    return found


def signed(
    bodies: Sequence[bytes],
    *keys: SignerKey,
    name: str = "checkpoint",
    kind: Kind = "checkpoint",
    at: int = 1_800_000_000,
) -> Signed:
    """A checkpoint over these entries, by the log's key unless others are named."""
    tree = frontier(bodies)
    text = Checkpoint(ORIGIN, tree.size, tree.root()).text()
    note = Note(text, tuple(key.sign(text, at) for key in keys or (LOG_KEY,)))
    return read(name, kind, note.encode().encode())


def export(bodies: Sequence[bytes]) -> io.BytesIO:
    return io.BytesIO(b"".join(body + b"\n" for body in bodies))


def verified(bodies: Sequence[bytes], *checkpoints: Signed, **known: Any) -> Report:
    """With the log's key pinned; without a checkpoint, one over these very entries is signed by the log."""
    pinned = {"log_key": LOG_KEY.verifier} | known
    return verify(export(bodies), Known(checkpoints=checkpoints or (signed(bodies),), **pinned))


def codes(report: Report) -> dict[str, int]:
    return dict(report.findings.counts)


def places(report: Report, code: str) -> list[int | None]:
    return [one.index for one in report.findings.kept if one.code == code]
