"""What a run's grant will say: the effective parameters exactly as they were accounted, and handles for the data.

This module does not: hand out grants (``settlement.py``).
"""

from __future__ import annotations

from typing import Any

from governance.clamping import Fitted
from governance.model import Asset, Dataset, Population
from runner.model_spec import ModelSpec
from runner.port import DataGrant, Grant, TrainParameters

LEASE_SECONDS = 60
ROUNDS_PER_DEBIT = 5


def grant_template(
    fitted: Fitted, spec: ModelSpec, dataset: Dataset, population: Population, *, features: Asset, labels: Asset
) -> dict[str, Any]:
    """A grant's JSON without the ids, which a claim fills in. The probabilities are those of the event (rule 6)."""
    request, event = fitted.request, fitted.event
    pool = 1.0 if request.no_clients is None else request.no_clients / population.declared_size
    grant = Grant(
        grant_id="",
        run_id="",
        fencing_token=0,
        lease_seconds=LEASE_SECONDS,
        rounds_per_debit=ROUNDS_PER_DEBIT,
        model=spec.to_document(),
        parameters=TrainParameters(
            rounds=event.rounds,
            expected_clients=request.clients_per_round,
            sampling_probability=event.sampling_probability,
            pool_probability=pool,
            noise_multiplier=event.noise_multiplier,
            clipping_norm=request.clipping_norm,
            mechanism=request.mechanism,
            local_epochs=request.local_epochs,
            batch_size=request.batch_size,
            loss=request.loss,
            client_optimizer=request.client_optimizer,
            client_learning_rate=request.client_learning_rate,
            client_momentum=request.client_momentum,
            server_optimizer=request.server_optimizer,
            server_learning_rate=request.server_learning_rate,
            server_momentum=request.server_momentum,
        ),
        data=DataGrant(
            version_handle=dataset.version_handle,
            features=features.name,
            labels=labels.name,
            max_examples_per_unit=dataset.max_examples_per_unit,
            holdout_handle=dataset.holdout_handle,
        ),
    )
    return grant.to_json()
