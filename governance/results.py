"""Published weights as files in the results folder: written whole and synced, then named by the run.

Invariants
- A file gets its final name after every byte is on disk, inside the transaction that publishes it. The database row is
  what publishes: a file without a row is never served, and one that is not what the row says neither.
- Weights are checked to be exactly the tensors of the run's model, float32 and finite, before anything is kept.

This module does not: know who may read them.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
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

    def stage(self, weights: bytes) -> Path:
        """Durably writes weights under a name of their own; returns it. Raises ``StorageError``, leaving nothing."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        staged: Path | None = None
        try:
            descriptor, name = tempfile.mkstemp(dir=self._folder, suffix=".staged")
            staged = Path(name)
            with os.fdopen(descriptor, "wb") as file:
                file.write(weights)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if staged is not None:
                staged.unlink(missing_ok=True)
            raise StorageError("the result could not be stored; is the disk full?") from error
        return staged

    def put(self, run_id: str, staged: Path) -> None:
        """Gives staged weights the run's name: the last step of the transaction that publishes them, under its locks.

        If that transaction then fails to commit, the file has no row and is never served.
        """
        try:
            staged.replace(self._path(run_id))
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise StorageError("the result could not be stored") from error

    def read(self, run_id: str, sha256: str) -> bytes:
        """The published weights. Raises ``StorageError`` unless they are exactly those that were published."""
        try:
            weights = self._path(run_id).read_bytes()
        except OSError as error:
            raise StorageError(
                "the weights of this run cannot be read; its operator finds them in the backup"
            ) from error
        if hashlib.sha256(weights).hexdigest() != sha256:
            raise StorageError("the stored weights are not those that were published; restore them from the backup")
        return weights

    def _path(self, run_id: str) -> Path:
        if not run_id.removeprefix("run_").isalnum():
            raise ValueError(f"{run_id!r} is not a run's id")
        return self._folder / f"{run_id}.safetensors"
