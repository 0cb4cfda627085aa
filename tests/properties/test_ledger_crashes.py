"""A process that ends between any two statements leaves a ledger that holds its promises, and a retry that is answered.

Every use case, every point of it: before each statement, before and after each commit, on both databases. Then a real
child process that is killed in the middle of a transaction.
"""

from __future__ import annotations

import base64
import itertools
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from governance.errors import ConflictError, FencingError, LedgerClosedError
from governance.ledger.derived import differences
from governance.ledger.replay import replay
from tests.properties import ledger_operations as ops
from tests.properties.ledger_fold import Fold
from tests.properties.ledger_model import Model, Run, Seen
from tests.properties.ledger_operations import Operation, perform
from tests.properties.ledger_points import SimulatedCrash, points
from tests.properties.ledger_site import Clock, Copies, Node, Site
from tests.properties.ledger_world import compare, compare_tree, observe


@dataclass
class Ledger:
    """One copy, a process on it, and the model of what it holds."""

    site: Site
    url: str
    folder: Path

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.node = self.started()
        self.model = Model(self.site)
        self.world = observe(self.node.database)
        self.fold = Fold()
        self.model.decisions = self.world.rows["counts"][0]["decisions"]

    def started(self) -> Node:
        return Node(self.url, self.site.policies.engine, self.clock, self.folder / "results")

    def do(self, operation: Operation, at: int | None = None) -> Seen:
        """Done, or crashed at point ``at`` and started again; either way the whole ledger is as the model says."""
        seen = Seen(self.clock.now)
        with points(self.node.database, at) as passed:
            try:
                seen.answer = perform(self.node, self.site, operation)
            except SimulatedCrash:
                seen.crashed = True
            except (ConflictError, FencingError, LedgerClosedError) as error:
                seen.error = error
        seen.commits = passed.commits
        if seen.crashed:
            self.node.close()
            self.node = self.started()
        world = observe(self.node.database)
        if seen.crashed and not seen.commits:
            assert self.world == world
            return seen
        self.world = world
        for body in world.bodies[len(self.fold.leaves) :]:
            self.fold.apply(body)
        seen.born = world.born(self.model, operation)
        self.model.apply(operation, seen)
        compare(world, self.model, self.fold)
        return seen

    @property
    def run(self) -> Run:
        """The newest."""
        return list(self.model.runs.values())[-1]

    @property
    def held(self) -> ops.Held:
        run = self.run
        assert run.grant is not None
        return ops.Held(run.id, run.grant, run.runner, run.token)

    def close(self) -> None:
        self.world = observe(self.node.database)
        for body in self.world.bodies[len(self.fold.leaves) :]:  # what a test appended around the model
            self.fold.apply(body)
        compare_tree(self.world, self.fold)
        assert 0 == replay(self.world.bodies).findings.total
        self.node.close()


ROOT = Path(__file__).parents[2]
BOTH = (0, 2)  # datasets of two populations
Make = Callable[[Ledger], Operation]


def queued(ledger: Ledger) -> None:
    ledger.do(ops.Admit(0, f"key-{len(ledger.model.answers)}", data=BOTH))


def granted(ledger: Ledger) -> None:
    queued(ledger)
    ledger.do(ops.Claim(f"rnr_{len(ledger.model.runs)}"))


def part_debited(ledger: Ledger) -> None:
    granted(ledger)
    ledger.do(ops.Debit(ledger.held, 0, 2))


def debited(ledger: Ledger) -> None:
    part_debited(ledger)
    ledger.do(ops.Debit(ledger.held, 2, 4))


def quarantined(ledger: Ledger) -> None:
    part_debited(ledger)
    ledger.do(ops.Fail(ledger.held, touched=True))


def two_expired(ledger: Ledger) -> None:
    part_debited(ledger)
    granted(ledger)
    ledger.clock.advance(seconds=61)


def nothing(ledger: Ledger) -> None:
    pass


def owner_of(ledger: Ledger) -> Operation:
    return ops.Cancel(ledger.run.id, ledger.site.owner)


def researcher_of(ledger: Ledger) -> Operation:
    return ops.Cancel(ledger.run.id, ledger.site.researchers[0])


CASES: dict[str, tuple[Callable[[Ledger], None], Make]] = {
    "admit": (nothing, lambda ledger: ops.Admit(0, "key", data=BOTH)),
    "admit, clamped": (nothing, lambda ledger: ops.Admit(0, "key", shape="long")),
    "admit, refused": (nothing, lambda ledger: ops.Admit(0, "key", purpose="marketing")),
    "claim": (queued, lambda ledger: ops.Claim(f"rnr_claims_{ledger.model.token}")),
    "heartbeat": (granted, lambda ledger: ops.Heartbeat(ledger.held)),
    "debit": (part_debited, lambda ledger: ops.Debit(ledger.held, 2, 2)),
    "debit, repeated": (part_debited, lambda ledger: ops.Debit(ledger.held, 0, 2)),
    "progress": (part_debited, lambda ledger: ops.Progress(ledger.held, 1)),
    "publish": (debited, lambda ledger: ops.Publish(ledger.held, ledger.run.rounds)),
    "fail before the data": (granted, lambda ledger: ops.Fail(ledger.held, touched=False)),
    "fail with the data": (part_debited, lambda ledger: ops.Fail(ledger.held, touched=True)),
    "cancel a queued run": (queued, researcher_of),
    "cancel by the researcher": (part_debited, researcher_of),
    "cancel by the owner": (part_debited, owner_of),
    "resolve": (quarantined, lambda ledger: ops.Resolve(ledger.run.id, ledger.site.admin)),
    "expire": (two_expired, lambda ledger: ops.Expire()),
    "report": (nothing, lambda ledger: ops.Report("rnr_reports", 2)),
    "set a quota": (nothing, lambda ledger: ops.SetQuota(0, "project", ledger.site.joint, 2.0, ops.SCHEDULES[1])),
    "add a version": (nothing, lambda ledger: ops.AddVersion(0, 2, f"ver_{99:024x}")),
    "declare disjoint": (
        nothing,
        lambda ledger: ops.Compare((0, 1), tuple((d.id, 1) for d in ledger.site.datasets[:3])),
    ),
    "close the ledger": (queued, lambda ledger: ops.Shut(True)),
}


@pytest.fixture(params=["sqlite", "postgres"])
def copies(request: pytest.FixtureRequest) -> Copies:
    found: Copies = request.getfixturevalue(f"{request.param}_copies")
    return found


@pytest.fixture
def make(copies: Copies, tmp_path: Path) -> Iterator[Callable[[], Ledger]]:
    made: list[Ledger] = []

    def new() -> Ledger:
        made.append(Ledger(copies.site, copies.new(), tmp_path))
        return made[-1]

    yield new
    for ledger in made:
        ledger.close()
        copies.drop(ledger.url)


@pytest.mark.parametrize("case", CASES)
def test_a_crash_at_any_point_leaves_all_or_nothing_and_a_retry_is_answered(
    make: Callable[[], Ledger], case: str
) -> None:
    before, operation = CASES[case]
    ledger, at, crashes = None, 0, []
    while True:
        if ledger is None:
            ledger = make()
            before(ledger)
        seen = ledger.do(operation(ledger), at)
        if not seen.crashed:
            break
        crashes.append(seen.commits)
        if seen.commits:  # what it did is done: the same call again is answered as the model says
            ledger.do(operation(ledger))
            ledger = None
        at += 1
    assert crashes == sorted(crashes)
    assert {0, 1} <= set(crashes)


REGISTRATIONS: dict[str, Callable[[Node, Site], Any]] = {
    "population_opened": lambda node, site: node.registry.open_population(site.owner, "others", 100, 1.0, 1e-4),
    "dataset_registered": lambda node, site: node.registry.register_dataset(
        site.owner,
        population_id=site.populations[0].id,
        name="a fifth",
        description="",
        policy_id="digits",
        assets=[replace(asset, id="") for asset in site.datasets[0].assets],
        version_handle="ver_" + "f" * 24,
        holdout_handle=None,
        max_examples_per_unit=3,
    ),
    "policy_activated": lambda node, site: site.policies.activate(node.registry),
}


@pytest.mark.parametrize("kind", REGISTRATIONS)
def test_a_crash_at_any_point_of_a_registration_leaves_row_and_entry_or_neither(
    make: Callable[[], Ledger], kind: str
) -> None:
    ledger = make()
    for at in itertools.count():
        began = len(observe(ledger.node.database).bodies)
        with points(ledger.node.database, at) as passed:
            try:
                REGISTRATIONS[kind](ledger.node, ledger.site)
            except (SimulatedCrash, ConflictError):  # a retry of what was done before the crash is a conflict
                ledger.node.close()
                ledger.node = ledger.started()
        world = observe(ledger.node.database)
        assert passed.commits == len(world.bodies) - began
        with ledger.node.database.read() as connection:
            assert [] == list(differences(connection))
        if passed.seen <= at:
            return


@pytest.mark.parametrize("point", [3, 6, 9, 12])
@pytest.mark.parametrize("case", ["debit", "publish"])
def test_a_process_that_is_killed_within_a_transaction_leaves_nothing_of_it(
    make: Callable[[], Ledger], case: str, point: int
) -> None:
    ledger = make()
    before, operation = CASES[case]
    before(ledger)
    intended = operation(ledger)
    _kill_at(ledger, intended, point)
    # Killed or not, the same call is now the first of its kind: what it answers is the model's answer.
    assert not ledger.do(intended).crashed


def _kill_at(ledger: Ledger, operation: Operation, point: int) -> None:
    """A process of its own comes to ``point`` of the operation, says so, and is killed."""
    told = base64.b64encode(pickle.dumps((ledger.url, ledger.folder, ledger.clock.now, operation, point))).decode()
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.properties.ledger_victim", told], stdout=subprocess.PIPE, cwd=ROOT
    )
    try:
        assert child.stdout is not None
        assert b"here\n" == child.stdout.readline()
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    assert -signal.SIGKILL == child.returncode
