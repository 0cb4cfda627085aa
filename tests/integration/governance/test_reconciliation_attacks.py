"""What must not get past a reconciliation: stale, foreign or impossible reports, and a mirror that nobody signed."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest

from governance.errors import GovernanceError, UnreconciledError
from governance.ledger import entries
from governance.model import Principal, Role
from tests.integration.governance.test_reconciliation import Node, debit, node, reported

__all__ = ["node"]  # a fixture


def close(node: Node, reason: str = "rolled_back") -> None:
    with node.database.write() as connection:
        entries.close(connection, reason)


def test_a_report_that_came_with_a_backup_of_a_closed_ledger_does_not_count(node: Node) -> None:
    first = node.governed.started(rounds=10)
    node.look()
    close(node)
    node.report(reported(first, 0))
    node.save()
    node.reconcile()
    node.look()
    second = node.governed.started(rounds=10)
    node.look()
    debit(node, second, 0, 10)  # not mirrored yet
    node.load()
    with pytest.raises(UnreconciledError, match="have not reported"):
        node.reconcile()


def test_reports_of_one_reconciliation_are_gone_before_the_next(node: Node) -> None:
    grant = node.governed.started(rounds=10)
    node.look()
    close(node)
    node.report(reported(grant, 0))
    node.reconcile()
    node.look()
    second = node.governed.started(rounds=10)
    node.save()
    node.look()
    node.governed.admit(rounds=3)
    node.look()
    debit(node, second, 0, 10)
    node.load()  # and the operator reconciles before the node was ever started
    with pytest.raises(UnreconciledError, match="have not reported"):
        node.reconcile()


def test_a_run_whose_grant_is_lost_and_whose_rounds_ran_is_not_queued_again(node: Node) -> None:
    node.governed.admit(rounds=10)
    node.look()
    node.save()
    grant = node.governed.settlement.claim(node.governed.runner)
    assert grant is not None
    debit(node, grant, 0, 5)
    node.load()
    close(node)
    node.report(reported(grant, 5))
    assert (grant.run_id,) == node.reconcile().quarantined
    assert node.governed.settlement.claim(node.governed.runner) is None
    node.check()


@pytest.mark.parametrize("what", ["another's run", "more than was reserved", "a token of nobody's", "no noise"])
def test_an_impossible_report_is_refused_and_the_operator_can_put_another_in_its_place(node: Node, what: str) -> None:
    grant = node.governed.started(rounds=10)
    node.look()
    close(node)
    honest = reported(grant, 0)
    reporter, report = {
        "another's run": (Principal("rnr_other", Role.RUNNER), replace(honest, rounds_permitted=10)),
        "more than was reserved": (node.governed.runner, replace(honest, rounds_permitted=11)),
        "a token of nobody's": (node.governed.runner, replace(honest, fencing_token=2**53 - 1)),
        "no noise": (
            node.governed.runner,
            replace(honest, run_id="run_lost", rounds_permitted=5, noise_multiplier=1e-3),
        ),
    }[what]
    node.report(honest)
    node.governed.settlement.report(reporter, [report])
    with pytest.raises(UnreconciledError):
        node.reconcile()
    done = node.reconcile(reports={"rnr_test": [honest], reporter.id: [] if reporter.id == "rnr_other" else [honest]})
    assert () == done.debited
    node.check()


def test_every_queued_run_is_spent_where_a_runner_can_no_longer_say_what_it_had(node: Node) -> None:
    queued = node.governed.admit(rounds=10)
    node.look()
    close(node)
    node.report()
    done = node.reconcile(unreachable={"rnr_test"})
    assert (((str(queued.run_id), 10),), (str(queued.run_id),)) == (done.debited, done.quarantined)
    assert node.governed.spent() == node.governed.committed() > 0
    node.check()


def test_a_mirror_that_does_not_reach_what_was_signed_is_not_enough(node: Node) -> None:
    node.governed.admit(rounds=3)
    node.look()
    node.save()
    size = len(node.bodies())
    for _ in range(3):
        node.governed.admit(rounds=3)
    node.look()
    mirror = node.folder / "mirror.jsonl"
    mirror.write_bytes(b"".join(mirror.read_bytes().splitlines(keepends=True)[: size - 1]))
    (node.folder / "mirror.state").unlink()
    node.load()
    close(node)
    node.report()
    before = node.bodies()
    with pytest.raises(UnreconciledError):
        node.reconcile()
    assert before == node.bodies()


def test_a_changed_mirror_is_never_restored_from(node: Node) -> None:
    node.governed.admit(rounds=3)
    node.look()
    node.save()
    node.governed.admit(rounds=100)
    node.look()
    mirror = node.folder / "mirror.jsonl"
    *kept, last = mirror.read_bytes().splitlines(keepends=True)
    changed = last.replace(b'"rounds":100', b'"rounds":101')
    assert ("decision", True) == (json.loads(changed)["kind"], changed != last)
    mirror.write_bytes(b"".join([*kept, changed]))
    node.load()
    close(node)
    node.report()
    with pytest.raises(UnreconciledError):
        node.reconcile()
    assert len(kept) == len(node.bodies())


def test_calls_that_are_under_way_and_a_reconciliation_do_not_block_each_other(node: Node) -> None:
    grant = node.governed.started(rounds=200)
    node.look()
    answers: list[str] = []

    def go_on() -> None:
        for first in range(0, 200, 10):
            try:
                debit(node, grant, first, 10)
                answers.append("debited")
            except GovernanceError as error:
                answers.append(error.code)
                return

    thread = threading.Thread(target=go_on)
    thread.start()
    node.look()
    close(node)
    thread.join(60)
    assert not thread.is_alive()
    assert "ledger_closed" in answers or 20 == answers.count("debited")
    node.report(reported(grant, 10 * answers.count("debited")))
    assert () == node.reconcile().debited
    node.check()
