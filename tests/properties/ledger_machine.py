"""A Hypothesis state machine over a real ledger: clients, runners, owners, time, crashes and rivals, in any order.

Invariants
- After every step the whole database is compared with the model (``ledger_world``), and its entries are folded again.
- A step is one operation, perhaps ended by a crash at any point, or two operations of two processes: the second starts
  when the first has come to a drawn point. What came of both must be what one after the other would give.
- A process that crashed is followed by another on the same database.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import sqlalchemy as sa
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from governance.ledger.replay import replay
from governance.model import Principal
from tests.properties import ledger_operations as ops
from tests.properties.ledger_fold import Fold
from tests.properties.ledger_model import Mismatch, Model, Run, Seen
from tests.properties.ledger_operations import Operation, perform
from tests.properties.ledger_points import AFTER_COMMIT, BEFORE_COMMIT, SimulatedCrash, points
from tests.properties.ledger_site import Clock, Copies, Node
from tests.properties.ledger_world import World, compare, compare_tree, observe

_PATIENCE_S = 30.0
_CLOSED_FOR = 4  # operations


@dataclass(frozen=True)
class Draft:
    """An operation that is yet to be given a run, a token or a key. ``twist`` 0 is what an honest client does."""

    kind: str
    pick: int = 0
    twist: int = 0


_KINDS = (
    *("claim",) * 6,
    *("debit",) * 12,
    *("publish",) * 5,
    *("cancel", "resolve", "fail", "again", "progress", "quota") * 2,
    *("expire", "heartbeat", "report", "version", "compare", "shut"),
)
_ADMISSIONS = st.builds(
    ops.Admit,
    who=st.sampled_from([0, 0, 1, 2]),
    key=st.just(""),
    shape=st.sampled_from(["small", "small", "small", "medium", "medium", "long", "over"]),
    data=st.sampled_from(ops.DATA),
    project=st.sampled_from(["personal"] * 9 + ["joint"] * 6 + ["other"]),
    purpose=st.sampled_from(["research"] * 15 + ["marketing"]),
    refuse=st.sampled_from([False, False, False, True]),
)
_TWISTS = st.sampled_from([0] * 12 + [1] * 4 + [2] * 3 + [*range(3, 10)])
_DRAFTS = st.builds(Draft, kind=st.sampled_from(_KINDS), pick=st.sampled_from([0, 0, 0, 1, 1, 2, 3]), twist=_TWISTS)
DRAWN = st.one_of(_ADMISSIONS, _DRAFTS, _DRAFTS, _DRAFTS)
_POINTS = st.one_of(st.integers(0, 30), st.integers(0, 30), st.sampled_from([BEFORE_COMMIT, AFTER_COMMIT]))
_CRASH = st.one_of(st.none(), st.none(), _POINTS)
_LATER = st.sampled_from(["at once"] * 12 + ["25 s"] * 3 + ["a lease", "the end of a lease", "ten days"])


class LedgerMachine(RuleBasedStateMachine):
    """``copies`` makes its database."""

    copies: Copies

    def __init__(self) -> None:
        super().__init__()
        self.site = self.copies.site
        self.clock = Clock()
        self.clock.advance(seconds=1)
        self.url = self.copies.new()
        self.folder = Path(tempfile.mkdtemp(prefix="pysytff-results-"))
        self.node, self.rival = self._node(), self._node()
        self.watcher = None if self.node.database.is_sqlite else psycopg.connect(self.url, autocommit=True)
        self.model, self.fold = Model(self.site), Fold()
        self.bodies: list[bytes] = []
        self.asked: list[ops.Admit] = []
        self.steps = self.closed_for = 0
        self.broken = False
        world = self._observed()
        self.model.decisions = world.rows["counts"][0]["decisions"]
        compare(world, self.model, self.fold)

    def _node(self) -> Node:
        return Node(self.url, self.site.policies.engine, self.clock, self.folder)

    # --- rules ---

    @rule(drawn=DRAWN, crash=_CRASH, later=_LATER)
    def alone(self, drawn: ops.Admit | Draft, crash: int | None, later: str) -> None:
        self._advance(later)
        self.do(self._resolved(drawn), crash)

    @rule(first=DRAWN, second=DRAWN, pause=_POINTS, crash=st.sampled_from([False, False, False, True]))
    def together(self, first: ops.Admit | Draft, second: ops.Admit | Draft, pause: int, crash: bool) -> None:
        self.at_once(self._resolved(first), self._resolved(second), pause, crash)

    @rule(first=_ADMISSIONS, second=_ADMISSIONS, pause=_POINTS)
    def rivals(self, first: ops.Admit, second: ops.Admit, pause: int) -> None:
        """Two requests for the same data, the second of which wants all that is left of the budget."""
        self.together(first, replace(second, data=first.data, shape="long", refuse=False), pause, False)

    @rule(first=_DRAFTS, second=_DRAFTS, pause=_POINTS)
    def quarrel(self, first: Draft, second: Draft, pause: int) -> None:
        """Two who want different things of the same run."""
        self.together(first, replace(second, pick=first.pick), pause, False)

    def _advance(self, by: str) -> None:
        leases = [run.lease for run in self.model.runs.values() if run.live and run.lease is not None]
        if by == "the end of a lease" and leases:
            self.clock.now = max(min(leases), self.clock.now)
        else:
            step = {"25 s": 25, "a lease": 61, "ten days": 864_000}.get(by, 0)
            self.clock.advance(seconds=step)

    def teardown(self) -> None:
        try:
            if self.broken:
                return  # the step's own failure says more
            world = observe(self.node.database)
            if world.bodies != self.bodies:
                raise Mismatch("an entry is not what it was when it was written")
            compare_tree(world, self.fold)
            compare(world, self.model, self.fold)
            replayed = replay(world.bodies)
            if replayed.findings.total:
                raise Mismatch(f"the verifier finds {replayed.findings.kept}")
            stored = {key: amounts for key, amounts in self.model.balances().items() if any(amounts[0])}
            found = {key: amounts for key, amounts in replayed.balances.items() if any(amounts[0])}
            if stored != found:
                raise Mismatch("the product's replay gives other balances than are stored")
        finally:
            self.node.close()
            self.rival.close()
            if self.watcher is not None:
                self.watcher.close()
            self.copies.drop(self.url)
            shutil.rmtree(self.folder)

    # --- steps ---

    def do(self, operation: Operation, crash: int | None = None) -> None:
        """One operation, ended by a crash at that point if there is one."""
        self.broken = True
        seen = self._seen(self.node, operation, crash)
        if seen.crashed:
            self.node.close()
            self.node = self._node()
        self.settle(operation, seen)

    def settle(self, operation: Operation, seen: Seen) -> None:
        """Whether the model agrees with what was seen of an operation, and with all that the database now holds."""
        world = self._observed()
        seen.born = world.born(self.model, operation)
        self.model.apply(operation, seen)
        compare(world, self.model, self.fold)
        self._stepped()

    def at_once(self, one: Operation, other: Operation, pause: int, crash: bool = False) -> bool:
        """``other`` begins when ``one`` has come to point ``pause``, and goes on as far as locks let it; then ``one``
        goes on, or crashes. Returns whether it came to that point at all."""
        self.broken = True
        late: list[Seen] = []
        thread = threading.Thread(target=lambda: late.append(self._seen(self.rival, other)))

        def meanwhile(connection: sa.Connection | None) -> None:
            thread.start()
            self._wait(thread, connection)
            if crash:
                if connection is not None:
                    connection.invalidate()
                raise SimulatedCrash

        early = self._seen(self.node, one, pause, meanwhile)
        paused = thread.ident is not None
        if not paused:
            thread.start()
        thread.join(_PATIENCE_S)
        if thread.is_alive():
            raise Mismatch(f"{one} and {other} wait for one another")
        if early.crashed:
            self.node.close()
            self.node = self._node()
        self._explain((one, other), (early, late[0]))
        self._stepped()
        return paused

    def _stepped(self) -> None:
        self.broken = False
        self.steps += 1
        self.clock.advance(milliseconds=1)

    def _seen(
        self, node: Node, operation: Operation, at: int | None = None, then: Callable[..., None] | None = None
    ) -> Seen:
        seen = Seen(self.clock.now)
        with points(node.database, at, *(() if then is None else (then,))) as passed:
            try:
                seen.answer = perform(node, self.site, operation)
            except SimulatedCrash:
                seen.crashed = True
            except Exception as error:  # the model says which it had to be
                seen.error = error
        seen.commits = passed.commits
        return seen

    def _explain(self, operations: tuple[Operation, Operation], seen: tuple[Seen, Seen]) -> None:
        """Either order will do."""
        world, reasons = self._observed(), []
        for one, operation in zip(seen, operations, strict=True):
            one.born, one.beside = world.born(self.model, operation), True
        for order in ((0, 1), (1, 0)):
            model = self.model.copy()
            try:
                for at in order:
                    model.apply(operations[at], seen[at])
                compare(world, model, self.fold)
            except Mismatch as mismatch:
                reasons.append(str(mismatch))
            else:
                self.model = model
                return
        raise Mismatch(f"{operations} fit in no order:\n" + "\n".join(reasons))

    def _observed(self) -> World:
        world = observe(self.node.database, len(self.bodies))
        for body in world.bodies:
            self.fold.apply(body)
        self.bodies += world.bodies
        return world

    def _wait(self, thread: threading.Thread, connection: sa.Connection | None) -> None:
        """Until the rival has ended, or waits for a lock that is held here."""
        if self.watcher is None:
            blocks = connection is not None and connection.connection.dbapi_connection.in_transaction  # type: ignore[union-attr]
            writes = connection is not None and connection.get_execution_options().get("pysytff_write", False)
            thread.join(0.02 if blocks and writes else _PATIENCE_S)
            return
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        for _ in range(int(_PATIENCE_S / 0.002)):
            thread.join(0.002)
            if not thread.is_alive() or self.watcher.execute(waiting).fetchone() != (0,):
                return

    # --- from a draft to an operation ---

    def _resolved(self, drawn: ops.Admit | Draft) -> Operation:
        """What has nothing to be done to becomes what brings it about. The ledger does not stay closed for long."""
        self.steps += 1
        self.closed_for = self.closed_for + 1 if self.model.shut else 0
        if self.closed_for > _CLOSED_FOR:
            return ops.Shut(False)
        found: Operation | None = drawn if isinstance(drawn, ops.Admit) else getattr(self, f"_{drawn.kind}")(drawn)
        if found is None and any(run.state == "reserved" for run in self.model.runs.values()):
            found = self._claim(Draft("claim"))
        if found is None:
            found = ops.Admit(0, "")
        if isinstance(found, ops.Admit) and not found.key:
            found = replace(found, key=f"key-{self.steps}")
            self.asked.append(found)
        return found

    def _again(self, draft: Draft) -> Operation | None:
        if not self.asked:
            return None
        earlier = self.asked[-1 - draft.pick % len(self.asked)]
        return replace(earlier, refuse=not earlier.refuse) if draft.twist % 3 == 2 else earlier

    def _claim(self, draft: Draft) -> Operation:
        return ops.Claim(f"rnr_{self.steps}")

    def _granted(self, draft: Draft, wanted: Callable[[Run], bool] = lambda run: True) -> Run | None:
        """Those with a lease that are ``wanted`` come first, and the newest of them."""
        granted = [run for run in self.model.runs.values() if run.grant is not None]

        def rank(run: Run) -> tuple[bool, bool, int]:
            leased = run.live and run.lease is not None and run.lease >= self.clock.now
            return leased and wanted(run), leased, run.token

        granted.sort(key=rank, reverse=True)
        return granted[draft.pick % len(granted)] if granted else None

    def _held(self, run: Run, twist: int) -> ops.Held:
        assert run.grant is not None
        held = ops.Held(run.id, run.grant, run.runner, run.token)
        match twist:
            case 7:
                return replace(held, token=run.token - 1)
            case 8:
                return replace(held, token=run.token + 1)
            case 9:
                return replace(held, runner="rnr_other")
        return held

    def _debit(self, draft: Draft) -> Operation | None:
        run = self._granted(draft, lambda run: run.debited < run.rounds)
        if run is None:
            return None
        done, rest = run.debited, run.rounds - run.debited
        last = max(run.debits, default=0)
        first, rounds = {
            0: (done, rest),
            1: (done, min(2, rest)),
            2: (last, run.debits.get(last, 1)),
            3: (last, run.debits.get(last, 1) + 1),
            4: (done + 1, 1),
            5: (done, rest + 1),
            6: (done, 0),
        }.get(draft.twist, (done, rest))
        return ops.Debit(self._held(run, draft.twist), first, rounds)

    def _publish(self, draft: Draft) -> Operation | None:
        run = self._granted(draft, lambda run: run.debited == run.rounds)
        if run is None:
            return None
        wrong = {1: "weights", 2: "metrics"}.get(draft.twist, "")
        rounds = run.rounds - 1 if draft.twist == 3 else run.rounds
        return ops.Publish(self._held(run, draft.twist), rounds, wrong)

    def _heartbeat(self, draft: Draft) -> Operation | None:
        run = self._granted(draft)
        return None if run is None else ops.Heartbeat(self._held(run, draft.twist))

    def _progress(self, draft: Draft) -> Operation | None:
        run = self._granted(draft)
        return None if run is None else ops.Progress(self._held(run, draft.twist), run.done + draft.twist % 4)

    def _fail(self, draft: Draft) -> Operation | None:
        run = self._granted(draft)
        return None if run is None else ops.Fail(self._held(run, draft.twist), touched=draft.twist % 2 == 1)

    def _cancel(self, draft: Draft) -> Operation | None:
        runs = sorted(
            self.model.runs.values(), key=lambda run: (run.state not in ("reserved", "running"), run.created_at)
        )
        if not runs:
            return None
        run, site = runs[draft.pick % len(runs)], self.site
        mine = next(person for person in site.researchers if person.id == run.researcher)
        others: dict[int, Principal] = {1: site.owner, 2: site.admin, 3: site.auditor, 4: site.stranger, 5: site.owner}
        others[6] = next(person for person in site.researchers if person.id != run.researcher)
        return ops.Cancel(run.id, others.get(draft.twist, mine))

    def _resolve(self, draft: Draft) -> Operation | None:
        runs = sorted(self.model.runs.values(), key=lambda run: (run.held != "quarantined", run.created_at))
        if not runs:
            return None
        run = runs[draft.pick % len(runs)]
        others = {1: ops.runner(run.runner), 2: ops.runner("rnr_other"), 3: self.site.owner, 4: self.site.auditor}
        return ops.Resolve(run.id, others.get(draft.twist, self.site.admin))

    def _expire(self, draft: Draft) -> Operation:
        return ops.Expire()

    def _report(self, draft: Draft) -> Operation:
        return ops.Report(f"rnr_report_{draft.pick % 2}", draft.twist)

    def _quota(self, draft: Draft) -> Operation:
        site, at = self.site, draft.pick % 2
        scopes = (
            ("population", site.populations[at].id),
            ("project", site.joint),
            ("researcher", site.researchers[draft.twist % 3].id),
        )
        scope, scope_id = scopes[draft.twist % 3]
        epsilon = ops.QUOTAS[(draft.pick + draft.twist) % len(ops.QUOTAS)]
        return ops.SetQuota(at, scope, scope_id, epsilon, ops.SCHEDULES[draft.twist // 3 % len(ops.SCHEDULES)])

    def _version(self, draft: Draft) -> Operation:
        at = draft.pick % len(self.site.datasets)
        version = self.model.versions[self.site.datasets[at].id] + 1
        return ops.AddVersion(at, version, f"ver_{self.steps + 1000:024x}")

    def _compare(self, draft: Draft) -> Operation:
        pair = ((0, 1), (0, 1), (0, 2))[draft.twist % 3]
        both = {self.site.populations[at].id for at in pair}
        found = {one.id: self.model.versions[one.id] for one in self.site.datasets if one.population_id in both}
        if draft.twist == 8:  # of another time
            found = {name: version + 1 for name, version in found.items()}
        return ops.Compare(pair, tuple(sorted(found.items())))

    def _shut(self, draft: Draft) -> Operation:
        return ops.Shut(not self.model.shut)
