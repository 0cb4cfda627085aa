"""The entries alone give the balances, to the last bit, after every kind of end that a run can have."""

from __future__ import annotations

import pytest

from examples.digits.audit import AuditError, recompute
from tests.integration.governance.conftest import Governed


def busy(governed: Governed) -> None:
    published, cancelled, quarantined = (governed.started(rounds=10, clients_per_round=20 + n) for n in range(3))
    governed.debit_all(published)
    governed.publish(published)
    governed.settlement.debit(governed.runner, cancelled.grant_id, cancelled.fencing_token, 0, 5)
    governed.settlement.cancel(governed.researcher, cancelled.run_id)
    governed.settlement.debit(governed.runner, quarantined.grant_id, quarantined.fencing_token, 0, 3)
    governed.settlement.fail(governed.runner, quarantined.grant_id, quarantined.fencing_token, touched_data=True)
    failed = governed.started(rounds=7)
    governed.settlement.fail(governed.runner, failed.grant_id, failed.fencing_token, touched_data=False)
    governed.admit(purpose="marketing")
    governed.admit(rounds=4)


def test_replay_equals_the_stored_balances_bit_for_bit(governed: Governed) -> None:
    busy(governed)
    entries, _ = governed.queries.entries(governed.auditor, limit=1000)
    ours = recompute(((e.index, e.body, e.leaf_hash) for e in entries), governed.population.id)
    theirs = governed.queries.budget(governed.auditor, governed.population.id)[0]
    assert (ours.spent_epsilon, ours.committed_epsilon) == (theirs.spent_epsilon, theirs.committed_epsilon)
    assert 0 < ours.spent_epsilon < ours.committed_epsilon < ours.guarantee_epsilon


def test_a_changed_byte_a_missing_and_a_swapped_entry_are_found(governed: Governed) -> None:
    busy(governed)
    entries, _ = governed.queries.entries(governed.auditor, limit=1000)
    rows = [(e.index, e.body, e.leaf_hash) for e in entries]
    index, body, leaf = rows[5]
    changed = [*rows[:5], (index, body.replace(b'"v":1', b'"v":2'), leaf), *rows[6:]]
    for tampered in (changed, rows[:5] + rows[6:], [*rows[:5], rows[6], rows[5], *rows[7:]]):
        with pytest.raises(AuditError):
            recompute(iter(tampered), governed.population.id)
