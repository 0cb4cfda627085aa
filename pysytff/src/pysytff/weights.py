"""A run's published weights: safetensors bytes, checked, and into a fresh Keras model.

Invariants
- Only the safetensors format is read: no pickle, so a file cannot run code.
- Every tensor is used exactly once and has exactly the shape of the weight it replaces; else nothing is set.

This module does not: import TensorFlow or Keras; it calls the model that it is given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from pysytff.errors import WeightsError
from pysytff.keras import to_document

Tensors = Mapping[str, npt.NDArray[Any]]

# Keras' own order within a layer; a layer has some of these.
_WITHIN_LAYER = ("embeddings", "kernel", "recurrent_kernel", "bias", "gamma", "beta")


def read(content: bytes, sha256: str) -> dict[str, npt.NDArray[Any]]:
    """Tensors by name. Raises ``WeightsError`` where the bytes are not what the node published."""
    if hashlib.sha256(content).hexdigest() != sha256.removeprefix("sha256:").lower():
        raise WeightsError("The weights that arrived are not those that the node published: fetch them again.")
    try:
        tensors: dict[str, npt.NDArray[Any]] = safetensors.numpy.load(content)
    except safetensors.SafetensorError as error:
        raise WeightsError(f"The weights are not in the safetensors format: {error}") from error
    broken = [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]
    if broken:
        raise WeightsError(f"The weights hold values that are not finite, in {', '.join(sorted(broken))}.")
    return tensors


def set_weights(model: Any, tensors: Tensors) -> None:
    """Puts a run's weights into a model of the same layers. Raises ``WeightsError``; then the model is unchanged."""
    names = [
        f"{layer['name']}/{weight}"
        for layer in to_document(model)["layers"]
        for weight in _WITHIN_LAYER
        if f"{layer['name']}/{weight}" in tensors
    ]
    unused = sorted(set(tensors) - set(names))
    present = model.get_weights()
    if unused or len(names) != len(present):
        missing = f"; not in the model: {', '.join(unused)}" if unused else ""
        raise WeightsError(
            f"The run has {len(tensors)} weights, of which {len(names)} find a place among the model's {len(present)}"
            f"{missing}. Does model_fn still build the model that was submitted?"
        )
    for name, weight in zip(names, present, strict=True):
        if tensors[name].shape != weight.shape:
            shapes = f"{list(tensors[name].shape)} in the run, {list(weight.shape)} in the model"
            raise WeightsError(f"{name} has another shape: {shapes}. Does model_fn still build the same model?")
    model.set_weights([tensors[name] for name in names])
