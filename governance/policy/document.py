"""Builds the one input document that policies decide on (``policies/input.schema.json`` describes it).

Invariants
- Complete: no field missing, no null, every number finite. Time is given by us.
- Only declared values, the request, and readings of the budget: nothing computed from a person's data (privacy rule 7).

This module does not: send it, or decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from governance.model import (
    BudgetReading,
    Dataset,
    Population,
    Principal,
    Project,
    TrainRequest,
    timestamp,
)
from runner.model_spec import ModelSpec

SCHEMA_VERSION = 1


def policy_input(
    *,
    now: datetime,
    request: TrainRequest,
    spec: ModelSpec,
    requester: Principal,
    project: Project,
    dataset: Dataset,
    population: Population,
    budget: BudgetReading,
    quotas: Sequence[BudgetReading],
    pool: int,
) -> dict[str, Any]:
    """For one dataset of the request. ``pool``: units that may be sampled, of all populations that it touches."""
    return {
        "schema_version": SCHEMA_VERSION,
        "now": timestamp(now),
        "now_ns": int(now.timestamp()) * 1_000_000_000 + now.microsecond * 1000,
        "request": {
            "rounds": request.rounds,
            "clients_per_round": request.clients_per_round,
            "no_clients": pool,
            "pool_restricted": request.no_clients is not None,
            "sampling_probability": request.clients_per_round / pool,
            "noise_multiplier": request.noise_multiplier,
            "max_noise_multiplier": request.max_noise_multiplier,
            "clipping_norm": request.clipping_norm,
            "mechanism": request.mechanism,
            "loss": request.loss,
            "local_epochs": request.local_epochs,
            "batch_size": request.batch_size,
            "client_optimizer": request.client_optimizer,
            "client_learning_rate": request.client_learning_rate,
            "client_momentum": request.client_momentum,
            "server_optimizer": request.server_optimizer,
            "server_learning_rate": request.server_learning_rate,
            "server_momentum": request.server_momentum,
            "on_exceed": request.on_exceed.value,
            "model": {
                "parameters": spec.parameter_count,
                "layers": len(spec.layers),
                "layer_types": [layer.type for layer in spec.layers],
            },
        },
        "requester": {"id": requester.id, "role": requester.role.value},
        "project": {"id": project.id, "name": project.name, "members": len(project.member_ids)},
        "dataset": {
            "id": dataset.id,
            "name": dataset.name,
            "version": dataset.version,
            "policy": dataset.policy_id,
            "has_public_holdout": dataset.holdout_handle is not None,
        },
        "population": {
            "id": population.id,
            "name": population.name,
            "declared_size": population.declared_size,
            "relation": population.relation,
            "epsilon": population.epsilon,
            "delta": population.delta,
        },
        "budget": {
            "population": {
                "guarantee_epsilon": budget.guarantee_epsilon,
                "spent_epsilon": budget.spent_epsilon,
                "committed_epsilon": budget.committed_epsilon,
                "delta": budget.delta,
            },
            "quotas": [
                {
                    "scope": reading.scope,
                    "scope_id": reading.scope_id,
                    "guarantee_epsilon": reading.guarantee_epsilon,
                    "committed_epsilon": reading.committed_epsilon,
                }
                for reading in quotas
                if reading.scope != "window"  # of the whole population: it has no place in version 1 of the input
            ],
        },
        "purpose": request.purpose,
    }
