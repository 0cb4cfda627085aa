"""Two processes want different things at once: whatever statement the first has come to when the second begins, what
comes of both is what one after the other would give. Every such statement, on both databases.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from governance.admission import Admission
from governance.model import PolicyDecision
from governance.policy.bundles import ActivePolicies
from tests.properties import ledger_operations as ops
from tests.properties.ledger_machine import LedgerMachine
from tests.properties.ledger_model import Seen
from tests.properties.ledger_operations import Operation, perform
from tests.properties.ledger_site import Copies, Node

_PER_BUDGET = 10  # repetitions that one budget has room for
BOTH = (0, 2)  # datasets of two populations
Begin = Callable[[LedgerMachine], tuple[Operation, Operation]]


def _held(machine: LedgerMachine) -> ops.Held:
    """The newest grant's."""
    run = max(machine.model.runs.values(), key=lambda run: run.token)
    assert run.grant is not None
    return ops.Held(run.id, run.grant, run.runner, run.token)


def _queued(machine: LedgerMachine) -> str:
    machine.do(ops.Admit(0, f"key-{machine.steps}", data=BOTH))
    return list(machine.model.runs)[-1]


def _running(machine: LedgerMachine, debited: int = 0) -> ops.Held:
    _queued(machine)
    machine.do(ops.Claim(f"rnr_{machine.steps}"))
    if debited:
        machine.do(ops.Debit(_held(machine), 0, debited))
    return _held(machine)


def _compared(machine: LedgerMachine) -> Operation:
    versions = {one.id: machine.model.versions[one.id] for one in machine.site.datasets[:3]}
    return ops.Compare((0, 1), tuple(sorted(versions.items())))


def _two_requests(machine: LedgerMachine) -> tuple[Operation, Operation]:
    """Either of them alone takes all that there is."""
    keys = f"one-{machine.steps}", f"other-{machine.steps}"
    return ops.Admit(0, keys[0], shape="over", data=BOTH), ops.Admit(1, keys[1], shape="over", data=(2,))


def _one_key_twice(machine: LedgerMachine) -> tuple[Operation, Operation]:
    asked = ops.Admit(0, f"key-{machine.steps}")
    return asked, asked


def _a_request_and_a_quota(machine: LedgerMachine) -> tuple[Operation, Operation]:
    quota = ops.SetQuota(0, "project", machine.site.joint, 2.0, ops.SCHEDULES[1])
    return ops.Admit(0, f"key-{machine.steps}", shape="long", project="joint"), quota


def _a_request_and_new_data(machine: LedgerMachine) -> tuple[Operation, Operation]:
    asked = ops.Admit(0, f"key-{machine.steps}", data=BOTH)
    version = machine.model.versions[machine.site.datasets[0].id] + 1
    machine.do(_compared(machine))  # so that they may be joined
    return asked, ops.AddVersion(0, version, f"ver_{machine.steps + 5000:024x}")


def _new_data_is_compared(machine: LedgerMachine) -> tuple[Operation, Operation]:
    """New data is there and compared again, while a request is decided that began before."""
    return ops.Admit(0, f"key-{machine.steps}", data=BOTH), _compared(machine)


def _two_debits(machine: LedgerMachine) -> tuple[Operation, Operation]:
    held = _running(machine)
    return ops.Debit(held, 0, 3), ops.Debit(held, 0, 3)


def _a_debit_and_an_end(machine: LedgerMachine) -> tuple[Operation, Operation]:
    held = _running(machine, 2)
    return ops.Debit(held, 2, 2), ops.Cancel(held.run, machine.site.researchers[0])


def _an_end_and_a_debit(machine: LedgerMachine) -> tuple[Operation, Operation]:
    return _a_debit_and_an_end(machine)[::-1]


def _a_result_and_a_heartbeat(machine: LedgerMachine) -> tuple[Operation, Operation]:
    held = _running(machine, 6)
    return ops.Publish(held, 6), ops.Heartbeat(held)


def _a_result_and_an_end(machine: LedgerMachine) -> tuple[Operation, Operation]:
    held = _running(machine, 6)
    return ops.Publish(held, 6), ops.Cancel(held.run, machine.site.owner)


def _two_claims(machine: LedgerMachine) -> tuple[Operation, Operation]:
    _queued(machine)
    return ops.Claim(f"rnr_one_{machine.steps}"), ops.Claim(f"rnr_other_{machine.steps}")


def _a_claim_and_an_end(machine: LedgerMachine) -> tuple[Operation, Operation]:
    return ops.Cancel(_queued(machine), machine.site.researchers[0]), ops.Claim(f"rnr_{machine.steps}")


def _expiry_and_a_resolution(machine: LedgerMachine) -> tuple[Operation, Operation]:
    held = _running(machine, 2)
    machine.clock.advance(seconds=61)
    return ops.Expire(), ops.Resolve(held.run, machine.site.admin)


def _expiry_and_an_end(machine: LedgerMachine) -> tuple[Operation, Operation]:
    held = _running(machine, 2)
    machine.clock.advance(seconds=61)
    return ops.Expire(), ops.Cancel(held.run, machine.site.researchers[0])


def _a_request_and_a_debit(machine: LedgerMachine) -> tuple[Operation, Operation]:
    """Both need both populations."""
    held = _running(machine)
    return ops.Admit(1, f"key-{machine.steps}", data=BOTH), ops.Debit(held, 0, 6)


def _two_resolutions(machine: LedgerMachine) -> tuple[Operation, Operation]:
    held = _running(machine, 2)
    machine.do(ops.Fail(held, touched=True))
    return ops.Resolve(held.run, machine.site.admin), ops.Resolve(held.run, ops.runner(held.runner))


PAIRS: tuple[Begin, ...] = (
    _two_requests,
    _one_key_twice,
    _a_request_and_a_quota,
    _a_request_and_new_data,
    _new_data_is_compared,
    _two_debits,
    _a_debit_and_an_end,
    _an_end_and_a_debit,
    _a_result_and_a_heartbeat,
    _a_result_and_an_end,
    _two_claims,
    _a_claim_and_an_end,
    _expiry_and_a_resolution,
    _expiry_and_an_end,
    _a_request_and_a_debit,
    _two_resolutions,
)


@pytest.fixture(params=["sqlite", "postgres"])
def start(request: pytest.FixtureRequest) -> Iterator[Callable[[], LedgerMachine]]:
    copies: Copies = request.getfixturevalue(f"{request.param}_copies")
    kind = type("Machine", (LedgerMachine,), {"copies": copies})
    started: list[LedgerMachine] = []

    def new() -> LedgerMachine:
        for earlier in started:
            earlier.teardown()
        started[:] = [kind()]
        return started[0]

    yield new
    for machine in started:
        machine.teardown()


@pytest.mark.parametrize("begin", PAIRS, ids=lambda begin: begin.__name__.strip("_"))
def test_two_at_once_are_one_after_the_other(start: Callable[[], LedgerMachine], begin: Begin) -> None:
    fresh = 1 if begin in (_two_requests, _a_request_and_a_quota) else _PER_BUDGET
    for pause in itertools.count():
        if pause % fresh == 0:
            machine = start()
        if not machine.at_once(*begin(machine), pause):
            return


def test_populations_are_disjoint_at_the_versions_that_are_used_also_at_the_end(
    start: Callable[[], LedgerMachine],
) -> None:
    """While a request over two populations is decided, one gets new data and both are compared again."""
    machine = start()
    asked = ops.Admit(0, "key", data=BOTH)

    class Meanwhile:
        """The real engine; after its first answer the owner is faster than the request."""

        answers = 0

        def decide(self, document: Mapping[str, Any], *, policy_id: str, active: ActivePolicies) -> PolicyDecision:
            found = machine.site.policies.engine.decide(document, policy_id=policy_id, active=active)
            self.answers += 1
            if self.answers == 1:
                machine.do(ops.AddVersion(0, 2, f"ver_{5000:024x}"))
                machine.do(_compared(machine))
            return found

    one, engine = machine.node, Meanwhile()
    machine.node = machine.rival
    one.admission = Admission(one.database, engine, clock=machine.clock)
    seen = Seen(machine.clock.now, answer=perform(one, machine.site, asked))
    machine.settle(asked, seen)
    one.close()
    machine.rival = Node(machine.url, machine.site.policies.engine, machine.clock, machine.folder)
    assert 4 == engine.answers  # both populations' policies, asked again about the new version
    decided = [json.loads(body)["facts"] for body in machine.bodies if b'"kind":"decision"' in body]
    assert [2, 1] == [facts["dataset_version"] for facts in decided]
