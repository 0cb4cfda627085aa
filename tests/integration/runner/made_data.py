"""Small dataset versions and grants for these tests: numbers nobody needs to protect."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runner.ingest import AssetSpec, ingest, open_source
from runner.model_spec import ModelSpec, parse
from runner.port import DataGrant, Grant, TrainParameters

HANDLE = "ver_" + "0" * 24
HOLDOUT = "ver_" + "1" * 24
SOFTMAX: dict[str, Any] = {
    "schema": "pysytff.model/1",
    "input": {"shape": [6], "dtype": "float32"},
    "layers": [{"type": "dense", "name": "dense", "units": 3, "activation": "softmax"}],
}
PARAMETERS = TrainParameters(
    rounds=4,
    expected_clients=5,
    sampling_probability=0.5,
    pool_probability=1.0,
    noise_multiplier=1.0,
    clipping_norm=0.5,
    mechanism="gaussian_fixed_clipping",
    local_epochs=1,
    batch_size=4,
    loss="sparse_categorical_crossentropy",
    client_optimizer="sgd",
    client_learning_rate=0.3,
    client_momentum=0.0,
    server_optimizer="sgd",
    server_learning_rate=1.0,
    server_momentum=0.0,
)


def spec_of(*layers: dict[str, Any], shape: Sequence[int] = (6,), dtype: str = "float32") -> ModelSpec:
    return parse({"schema": "pysytff.model/1", "input": {"shape": list(shape), "dtype": dtype}, "layers": list(layers)})


def parameters(**changes: Any) -> TrainParameters:
    return replace(PARAMETERS, **changes)


def grant(**changes: Any) -> Grant:
    data = DataGrant(HANDLE, "x", "y", max_examples_per_unit=100, holdout_handle=None)
    made = Grant(
        "gra_1", "run_1", 7, lease_seconds=30, rounds_per_debit=2, model=SOFTMAX, parameters=PARAMETERS, data=data
    )
    return replace(made, **changes)


def write_version(
    data_root: Path,
    handle: str,
    units: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    *,
    public: bool = False,
) -> Path:
    """The layout of ``runner.silos``, with assets x and y, from each unit's examples."""
    directory = data_root / "datasets" / handle
    directory.mkdir(parents=True)
    x, y = np.concatenate([u[0] for u in units]), np.concatenate([u[1] for u in units])
    offsets = np.concatenate([[0], np.cumsum([len(u[0]) for u in units])]).astype(np.int64)
    assets = [{"name": n, "dtype": a.dtype.name, "shape": list(a.shape[1:])} for n, a in (("x", x), ("y", y))]
    about = {"schema": "pysytff.data/1", "assets": assets, "units": len(units), "examples": len(x), "public": public}
    (directory / "manifest.json").write_text(json.dumps(about))
    for name, array in (("offsets", offsets), ("x", x), ("y", y)):
        np.save(directory / f"{name}.npy", array)
    return directory


def ingested(data_root: Path, who: Sequence[Any], x: npt.NDArray[Any], y: npt.NDArray[Any]) -> str:
    """A version laid out by the ingestion itself, with assets x and y. Returns its handle."""
    source = data_root.parent / "source.npz"
    np.savez(source, who=np.array(who), x=x, y=y)
    assets = [AssetSpec("x", x.dtype.name, x.shape[1:]), AssetSpec("y", y.dtype.name, y.shape[1:])]
    return ingest(open_source(source, "npz", "who"), assets, data_root, unit_column="who")


def classified_units(count: int, seed: int = 0) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Units of one to nine examples in three classes that a softmax regression can tell apart."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(3, 6))
    made = []
    for _ in range(count):
        labels = random.integers(0, 3, size=random.integers(1, 10))
        made.append(((centres[labels] + 0.3 * random.normal(size=(len(labels), 6))).astype(np.float32), labels))
    return made
