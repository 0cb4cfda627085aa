"""What clients do to a ledger, as data: drawn by Hypothesis, done to a real node.

An operation of a run names it by ``pick``, a position among the runs that there are; ``perform`` gets real ids.
This module does not: know what an operation ought to answer (``ledger_model`` does).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from governance.evidence import Evidence
from governance.ledger import entries
from governance.model import OnExceed, Principal, Quota, Role, Schedule, TrainRequest
from runner.port import GrantReport, RunResult
from tests.properties.ledger_site import BEGIN, EPSILON, MODEL, WEIGHTS, Node, Site

MAX_ROUNDS = 120  # of the owner's policy
SHAPES = {  # name -> (expected clients, pool, noise multiplier, rounds)
    "small": (1, 10, 2.0, 6),
    "medium": (1, 4, 2.0, 2),
    "long": (1, 10, 2.0, MAX_ROUNDS + 30),  # more than the policy allows
    "over": (1, 4, 1.0, 40),  # more than the budget holds
}
DATA = ((0,), (2,), (0, 2), (1,), (2, 1), (0, 1), (0, 1, 2), (3,), (0, 3))
QUOTAS = (EPSILON, 2.0, 3.0, 4.5)
SCHEDULES = (None, Schedule(BEGIN, 1.0, 0.5, 10), Schedule(BEGIN + timedelta(days=5), 1.75, 1.0, 3))


@dataclass(frozen=True)
class Admit:
    who: int
    key: str
    shape: str = "small"
    data: tuple[int, ...] = (0,)
    project: str = "personal"  # personal | joint | of another
    purpose: str = "research"
    refuse: bool = False  # rather than clamp

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(repr(replace(self, key="")).encode()).digest()


@dataclass(frozen=True)
class Claim:
    runner: str


@dataclass(frozen=True)
class Held:
    """A runner's call: with which credential and token, and of which run."""

    run: str
    grant: str
    runner: str
    token: int


@dataclass(frozen=True)
class Debit:
    held: Held
    first: int
    rounds: int


@dataclass(frozen=True)
class Heartbeat:
    held: Held


@dataclass(frozen=True)
class Progress:
    held: Held
    done: int


@dataclass(frozen=True)
class Publish:
    held: Held
    rounds: int
    wrong: str = ""  # | weights | metrics


@dataclass(frozen=True)
class Fail:
    held: Held
    touched: bool


@dataclass(frozen=True)
class Cancel:
    run: str
    by: Principal


@dataclass(frozen=True)
class Resolve:
    run: str
    by: Principal


@dataclass(frozen=True)
class Expire:
    pass


@dataclass(frozen=True)
class Report:
    runner: str
    grants: int


@dataclass(frozen=True)
class SetQuota:
    population: int
    scope: str
    scope_id: str
    epsilon: float
    schedule: Schedule | None


@dataclass(frozen=True)
class AddVersion:
    dataset: int
    version: int  # that this is meant to become
    handle: str


@dataclass(frozen=True)
class Compare:
    """Two populations are found disjoint at these versions."""

    pair: tuple[int, int]
    versions: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Shut:
    """The ledger is closed, or opened again, as the node does around a reconciliation."""

    shut: bool


Operation = (
    Admit
    | Claim
    | Debit
    | Heartbeat
    | Progress
    | Publish
    | Fail
    | Cancel
    | Resolve
    | Expire
    | Report
    | SetQuota
    | AddVersion
    | Compare
    | Shut
)


def runner(name: str) -> Principal:
    return Principal(name, Role.RUNNER)


def perform(node: Node, site: Site, operation: Operation) -> Any:
    """Does it, and returns the product's own answer."""
    settle = node.settlement
    match operation:
        case Admit():
            return _admit(node, site, operation)
        case Claim(runner=name):
            return settle.claim(runner(name))
        case Debit(held, first, rounds):
            return settle.debit(runner(held.runner), held.grant, held.token, first, rounds)
        case Heartbeat(held):
            return settle.heartbeat(runner(held.runner), held.grant, held.token)
        case Progress(held, done):
            return settle.progress(runner(held.runner), held.grant, held.token, done)
        case Publish(held, rounds, wrong):
            weights = b"not weights" if wrong == "weights" else WEIGHTS
            metrics = {"holdout_loss": 0.5} if wrong == "metrics" else {}
            result = RunResult(weights, rounds, metrics, "generator/1", "1")
            return settle.publish(runner(held.runner), held.grant, held.token, result)
        case Fail(held, touched):
            return settle.fail(runner(held.runner), held.grant, held.token, touched_data=touched)
        case Cancel(run, by):
            return settle.cancel(by, run)
        case Resolve(run, by):
            return settle.resolve(by, run, Evidence("power_loss", "the machine lost its power, says its log"))
        case Expire():
            return settle.expire_leases()
        case Report(runner=name, grants=count):
            return settle.report(runner(name), [_report(number) for number in range(count)])
    return _register(node, site, operation)


def _register(node: Node, site: Site, operation: Operation) -> Any:
    match operation:
        case SetQuota(population, scope, scope_id, epsilon, schedule):
            within = site.populations[population].id
            found: Quota = node.registry.set_quota(site.owner, within, scope, scope_id, epsilon, schedule)
            return found
        case AddVersion(dataset, _, handle):
            return node.registry.add_version(site.owner, site.datasets[dataset].id, handle)
        case Compare((one, other), versions):
            ids = [site.populations[at].id for at in (one, other)]
            return node.registry.declare_disjoint(site.owner, ids[0], ids[1], dict(versions))
        case Shut(shut):
            with node.database.write() as connection:
                if shut:
                    return entries.close(connection, "a test")
                log = entries.Log(connection, even_if_closed=True)
                log.reopen()
                log.store()
                return None
    raise AssertionError(f"{operation} is not known")


def _admit(node: Node, site: Site, asked: Admit) -> Any:
    clients, pool, noise, rounds = SHAPES[asked.shape]
    pairs = [tuple(asset.id for asset in site.datasets[at].assets) for at in asked.data]
    researcher = site.researchers[asked.who]
    request = TrainRequest(
        rounds=rounds,
        clients_per_round=clients,
        no_clients=pool,
        noise_multiplier=noise,
        max_noise_multiplier=noise,  # so that a clamp has rounds only to touch, which the model can foretell
        train_data_id=pairs[0][0],
        label_data_id=pairs[0][1],
        joined=tuple((one, other) for one, other in pairs[1:]),
        model=MODEL,
        project=project_id(site, asked),
        purpose=asked.purpose,
        on_exceed=OnExceed.REFUSE if asked.refuse else OnExceed.CLAMP,
    )
    assert node.admission is not None
    return node.admission.admit(researcher, request, idempotency_key=asked.key, request_digest=asked.digest)


def project_id(site: Site, asked: Admit) -> str | None:
    if asked.project == "personal":
        return None
    if asked.project == "joint":
        return site.joint
    return site.personal[site.researchers[(asked.who + 1) % len(site.researchers)].id]


def _report(number: int) -> GrantReport:
    return GrantReport(f"grt_{number}", f"run_{number}", number + 1, ("ver_x",), 0.1, 2.0, 5, True)
