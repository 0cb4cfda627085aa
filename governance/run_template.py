"""What a run's grant will say: the effective parameters exactly as they were accounted, and handles for the data.

This module does not: hand out grants (``settlement.py``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from accountant.codec import canonical_bytes
from governance.clamping import Fitted
from governance.snapshot import Snapshot
from runner.port import DataGrant, Grant, JoinedData, TrainParameters

LEASE_SECONDS = 60
ROUNDS_PER_DEBIT = 5


def template_digest(template: Mapping[str, Any]) -> str:
    """What the decision's entry holds of a template, so that a claim hands out what was decided or nothing."""
    return hashlib.sha256(canonical_bytes(dict(template))).hexdigest()


def grant_template(fitted: Fitted, snapshot: Snapshot) -> dict[str, Any]:
    """A grant's JSON without the ids, which a claim fills in. The probabilities are those of the event (rule 6)."""
    request, event = fitted.request, fitted.event
    pool = 1.0 if request.no_clients is None else request.no_clients / snapshot.declared_size
    first, *others = snapshot.sources
    grant = Grant(
        grant_id="",
        run_id="",
        fencing_token=0,
        lease_seconds=LEASE_SECONDS,
        rounds_per_debit=ROUNDS_PER_DEBIT,
        model=snapshot.spec.to_document(),
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
            version_handle=first.dataset.version_handle,
            features=first.features.name,
            labels=first.labels.name,
            max_examples_per_unit=first.dataset.max_examples_per_unit,
            holdout_handle=first.dataset.holdout_handle,
            joined=tuple(
                JoinedData(
                    version_handle=other.dataset.version_handle,
                    features=other.features.name,
                    labels=other.labels.name,
                    max_examples_per_unit=other.dataset.max_examples_per_unit,
                )
                for other in others
            ),
        ),
    )
    return grant.to_json()
