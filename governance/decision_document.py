"""A decision as JSON and back, and as the facts of its ledger entry. Pure.

Invariants
- ``decode(encode(decision)) == decision``: a repeated request gets the very answer of the first.
- The ledger's facts hold codes, numbers, opaque ids and digests: no purpose, no messages, no names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from governance.model import Clamp, Cost, Decision, Outcome, Reason, TrainRequest, timestamp

_NOT_PARAMETERS = ("model", "joined")  # the model is large, and in the grant


def parameters(request: TrainRequest) -> dict[str, Any]:
    """Every parameter with its default filled in, but the model document."""
    found = {
        field.name: getattr(request, field.name)
        for field in dataclasses.fields(request)
        if field.name not in _NOT_PARAMETERS
    } | {"on_exceed": request.on_exceed.value}
    if request.joined:
        found["joined"] = [{"train_data_id": one, "label_data_id": other} for one, other in request.joined]
    return found


def encode(decision: Decision) -> dict[str, Any]:
    return _fields(decision) | {
        "outcome": decision.outcome.value,
        "reasons": [_fields(reason) for reason in decision.reasons],
        "warnings": [_fields(warning) for warning in decision.warnings],
        "clamps": [_fields(clamp) for clamp in decision.clamps],
        "obligations": list(decision.obligations),
        "cost": None if decision.cost is None else _fields(decision.cost),
        "decided_at": timestamp(decision.decided_at),
    }


def _fields(value: Decision | Reason | Clamp | Cost) -> dict[str, Any]:
    """One level deep: dataclasses.asdict copies everything below too, which an answer in a hurry need not wait for."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def decode(document: Mapping[str, Any]) -> Decision:
    fields = dict(document)
    cost = fields["cost"]
    fields |= {
        "outcome": Outcome(fields["outcome"]),
        "reasons": tuple(Reason(**reason) for reason in fields["reasons"]),
        "warnings": tuple(Reason(**warning) for warning in fields["warnings"]),
        "clamps": tuple(Clamp(**clamp) for clamp in fields["clamps"]),
        "obligations": tuple(fields["obligations"]),
        "cost": None if cost is None else Cost(**cost),
        "decided_at": datetime.fromisoformat(fields["decided_at"]),
    }
    return Decision(**fields)


def entry_facts(
    decision: Decision,
    versions: Sequence[tuple[str, int]],
    populations: Sequence[str],
    charge: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Of one population's entry. ``versions``: (dataset, version) of that population; ``populations``: all of the
    request; ``charge``: event, accountant and curve (decimal strings) of what was reserved, None for a refusal."""
    accounted = ("rounds", "clients_per_round", "no_clients", "noise_multiplier", "clipping_norm", "mechanism")
    effective = decision.effective
    facts = {
        "decision": decision.id,
        "outcome": decision.outcome.value,
        "dataset_version": versions[0][1],
        "reasons": [{"code": reason.code, "source": reason.source} for reason in decision.reasons],
        "requested": {name: decision.requested[name] for name in accounted},
        "effective": None if effective is None else {name: effective[name] for name in accounted},
        "clamps": [
            {"parameter": c.parameter, "requested": c.requested, "effective": c.effective, "by": c.by}
            for c in decision.clamps
        ],
        "charge": None if charge is None else dict(charge),
        "obligations": [obligation["type"] for obligation in decision.obligations],
        "policy_revision": decision.policy_revision,
        "policy_digests": dict(decision.policy_digests),
        "opa_decision_id": decision.opa_decision_id,
        "input_digest": decision.input_digest,
    }
    if len(versions) > 1:
        facts["joined"] = [{"dataset": dataset, "version": version} for dataset, version in versions[1:]]
    if len(populations) > 1:
        facts["populations"] = list(populations)
    return facts
