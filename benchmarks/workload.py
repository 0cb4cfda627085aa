"""W1 of ``governed``: scikit-learn's digits, dealt out at random to 200 units, 8 or 9 examples each.

This module does not: import TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from runner.ingest import AssetSpec, ingest, open_source
from runner.port import TrainParameters

MODEL: Mapping[str, Any] = {
    "schema": "pysytff.model/1",
    "input": {"shape": [64], "dtype": "float32"},
    "layers": [
        {"type": "dense", "name": "hidden", "units": 64, "activation": "relu"},
        {"type": "dense", "name": "output", "units": 10},
    ],
}
UNITS, COHORT = 200, 20
BATCH, CLIENT_RATE, SERVER_RATE, CLIPPING_NORM, NOISE = 8, 0.1, 1.0, 0.5, 0.5


def request() -> dict[str, Any]:
    """The fields of a train request."""
    return {
        "clients_per_round": COHORT,
        "noise_multiplier": NOISE,
        "clipping_norm": CLIPPING_NORM,
        "batch_size": BATCH,
        "client_learning_rate": CLIENT_RATE,
        "server_learning_rate": SERVER_RATE,
    }


def parameters() -> TrainParameters:
    """The same, as a grant says it."""
    return TrainParameters(
        rounds=1,
        expected_clients=COHORT,
        sampling_probability=COHORT / UNITS,
        pool_probability=1.0,
        noise_multiplier=NOISE,
        clipping_norm=CLIPPING_NORM,
        mechanism="gaussian_fixed_clipping",
        local_epochs=1,
        batch_size=BATCH,
        loss="sparse_categorical_crossentropy",
        client_optimizer="sgd",
        client_learning_rate=CLIENT_RATE,
        client_momentum=0.0,
        server_optimizer="sgd",
        server_learning_rate=SERVER_RATE,
        server_momentum=0.0,
    )


def lay_out(data_root: Path) -> str:
    """A dataset version as its owner would make it; its handle."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    file = data_root / "digits.npz"
    data_root.mkdir(parents=True, exist_ok=True)
    np.savez(
        file,
        person=np.arange(len(images)) * UNITS // len(images),
        images=(images[order] / 16).astype(np.float32),
        labels=labels[order].astype(np.int64),
    )
    assets = [AssetSpec("images", "float32", (64,)), AssetSpec("labels", "int64")]
    return ingest(open_source(file, "npz", "person"), assets, data_root, unit_column="person")
