"""A decision as JSON and back, and as what the ledger keeps of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from governance import decision_document
from governance.model import Clamp, Cost, Decision, Outcome, Reason, TrainRequest

REQUEST = TrainRequest(
    rounds=10,
    clients_per_round=5,
    noise_multiplier=1.5,
    train_data_id="ast_1",
    label_data_id="ast_2",
    model={"x": 1},
    purpose="something personal",
)
DECISION = Decision(
    id="dec_1",
    outcome=Outcome.CLAMPED,
    reasons=(Reason("code", "a message", "owner:digits", "rounds"),),
    warnings=(Reason("hint", "a warning", "organisation"),),
    requested=decision_document.parameters(REQUEST),
    effective=decision_document.parameters(REQUEST),
    clamps=(Clamp("rounds", 20, 10, "budget", "why"),),
    obligations=({"type": "publish_weights", "params": {}},),
    cost=Cost({"type": "poisson_gaussian"}, 1.0, 2.0, 3.0, 1e-5, "rdp/1"),
    policy_revision="1-abc",
    policy_digests={"organisation": "sha256:0"},
    opa_decision_id="opa-1",
    input_digest="sha256:1",
    decided_at=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
    timings_ms={"policy": 1.25},
    run_id="run_1",
    entry_index=7,
)


def test_a_decision_survives_json() -> None:
    document = json.loads(json.dumps(decision_document.encode(DECISION)))
    assert DECISION == decision_document.decode(document)


def test_the_model_does_not_travel_in_decisions() -> None:
    assert "model" not in decision_document.parameters(REQUEST)


def test_the_ledger_keeps_codes_and_numbers_and_no_text() -> None:
    text = json.dumps(decision_document.entry_facts(DECISION, [("dat_1", 1)], ["pop_1"], None))
    for kept in ("dec_1", "code", "owner:digits", "1-abc", "sha256:1"):
        assert kept in text
    for personal in ("something personal", "a message", "a warning", "why"):
        assert personal not in text
