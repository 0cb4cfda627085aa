"""Published weights as files in the results folder: written whole, synced, then named by the run.

Invariants
- A file exists under its final name only after every byte is on disk. The database row, in its own transaction, is what
  publishes it; a file without a row is never served.
- Weights are checked to be exactly the tensors of the run's model, float32 and finite, before anything is kept.

This module does not: know who may read them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from governance.errors import InvalidRequestError, StorageError
from runner.model_spec import parse


def check_weights(weights: bytes, model: Mapping[str, Any]) -> None:
    """Raises ``InvalidRequestError`` unless these are the model's tensors: names, shapes, float32, finite."""
    expected = dict(parse(model).weights())
    try:
        tensors = safetensors.numpy.load(weights)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise InvalidRequestError("the result is not a safetensors file") from error
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        raise InvalidRequestError("the result's tensors are not those of the run's model")
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            raise InvalidRequestError(f"the result's tensor {name!r} is not finite float32")


class ResultStore:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, run_id: str, weights: bytes) -> None:
        """Durably stores the weights of a run. Raises ``StorageError`` and leaves nothing behind."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        final, partial = self._path(run_id), self._path(run_id).with_suffix(".partial")
        try:
            with partial.open("wb") as file:
                file.write(weights)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(final)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise StorageError("the result could not be stored; is the disk full?") from error

    def discard(self, run_id: str) -> None:
        """Removes a file whose transaction did not commit."""
        self._path(run_id).unlink(missing_ok=True)

    def read(self, run_id: str) -> bytes:
        try:
            return self._path(run_id).read_bytes()
        except OSError as error:
            raise StorageError(
                "the weights of this run cannot be read; its operator finds them in the backup"
            ) from error

    def _path(self, run_id: str) -> Path:
        if not run_id.removeprefix("run_").isalnum():
            raise ValueError(f"{run_id!r} is not a run's id")
        return self._folder / f"{run_id}.safetensors"
