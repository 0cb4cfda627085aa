"""W1 of ``governed``: scikit-learn's digits, dealt out at random to 200 units, 8 or 9 examples each.

This module does not: import TensorFlow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

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


def lay_out(version: Path) -> None:
    """Writes a dataset version, as ``runner.ingest`` lays it out."""
    images, labels = load_digits(return_X_y=True)
    chance = np.random.default_rng(0)
    order = chance.permutation(len(images))
    offsets = np.linspace(0, len(images), UNITS + 1).astype(np.int64)
    version.mkdir(parents=True)
    np.save(version / "offsets.npy", offsets)
    np.save(version / "images.npy", (images[order] / 16).astype(np.float32))
    np.save(version / "labels.npy", labels[order].astype(np.int64))
    assets = [{"name": "images", "dtype": "float32", "shape": [64]}, {"name": "labels", "dtype": "int64", "shape": []}]
    manifest = {"schema": "pysytff.data/1", "assets": assets, "units": UNITS, "examples": len(images)}
    (version / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
