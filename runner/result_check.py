"""What a worker checks before it publishes what a job left: exactly the weights of the granted model, and nothing
else.

Invariants
- A result file is one plain file in the job's scratch directory, no link, of the size that the model implies.
- Names, shapes and dtype are those of the model's document. The bytes are written anew, so that no metadata travels
  along.
- Metrics are finite numbers under names that are known to be computed on the public hold-out.

This module does not: judge values. They are noised; whatever they are, they may be published.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from runner.errors import PortError
from runner.model_spec import parse
from runner.port import DataGrant

METRICS: Final = frozenset({"holdout_loss", "holdout_accuracy", "holdout_examples"})
_HEADER_BYTES: Final = 2**20


def read_weights(scratch: Path, name: str, model: Mapping[str, Any]) -> bytes:
    """The weights as safetensors. Raises ``PortError`` if the file is anything but the model's weights."""
    spec = parse(model)
    content = _read_plain_file(scratch, name, 4 * spec.parameter_count + _HEADER_BYTES)
    try:
        arrays = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise PortError("the result is not a safetensors file") from error
    if {key: (value.shape, value.dtype) for key, value in arrays.items()} != {
        key: (shape, np.dtype(np.float32)) for key, shape in spec.weights()
    }:
        raise PortError("the result does not have the weights of the granted model")
    return save({key: arrays[key] for key, _ in spec.weights()})


def public_metrics(metrics: Mapping[str, Any], data: DataGrant) -> dict[str, float]:
    """Raises ``PortError`` for any metric that could come from elsewhere than the public hold-out."""
    if metrics and (data.holdout_handle is None or not metrics.keys() <= METRICS):
        raise PortError("the job reports metrics that are not of a public hold-out")
    if not all(type(value) is float and math.isfinite(value) for value in metrics.values()):
        raise PortError("a metric is not a finite number")
    return dict(metrics)


def _read_plain_file(scratch: Path, name: str, max_bytes: int) -> bytes:
    if Path(name).name != name:
        raise PortError("the result is not a file in the scratch directory")
    try:
        fd = os.open(scratch / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise PortError("the result file cannot be opened") from error
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode) or about.st_size > max_bytes:
            raise PortError("the result is no plain file of the expected size")
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(max_bytes)
    finally:
        os.close(fd)
