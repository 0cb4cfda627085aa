"""Loss and accuracy of a finished model on the hold-out that its owner marked public.

Invariants
- Never computed on training data: a statistic of private data would need its own noise and its own debit (privacy
  rule 9).
- Its inputs are public data and noised weights, so everything it returns is public.
- Only finite numbers are returned; examples whose tokens or classes do not exist are left out, and not counted.

This module does not: choose the hold-out, or decide whether there is one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from runner.model_build import build
from runner.model_spec import ModelSpec
from runner.silos import Silos
from runner.training import SPARSE, example_losses, in_range

BATCH: Final = 1024


def evaluate(
    spec: ModelSpec, loss: str, weights: Sequence[npt.NDArray[np.float32]], holdout: Silos
) -> dict[str, float]:
    """Means over all usable examples; accuracy only for losses of classification. Empty if no example is usable."""
    model = build(spec, seed=0)
    model.set_weights(list(weights))
    examples, total_loss, total_right, has_accuracy = 0, 0.0, 0.0, False
    for batch in holdout.pieces(np.arange(holdout.units, dtype=np.int64), _batch_bytes(spec)):
        features, labels = _usable(spec, loss, batch.features, batch.labels)
        if not len(features):
            continue
        outputs = model(features, training=False)
        examples += len(features)
        total_loss += float(np.sum(example_losses(spec, loss, labels, outputs).numpy(), dtype=np.float64))
        if (right := _right(spec, loss, labels, outputs.numpy())) is not None:
            has_accuracy = True
            total_right += right
    if not examples:
        return {}
    metrics = {"holdout_loss": total_loss / examples, "holdout_examples": float(examples)}
    if has_accuracy:
        metrics["holdout_accuracy"] = total_right / examples
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _batch_bytes(spec: ModelSpec) -> int:
    return BATCH * 4 * (math.prod(spec.input_shape) + 1)


def _usable(spec: ModelSpec, loss: str, features: npt.NDArray[Any], labels: npt.NDArray[Any]) -> tuple[Any, Any]:
    features = features.astype(spec.input_dtype, copy=False)
    labels = labels.astype(np.int64 if loss == SPARSE else np.float32, copy=False)
    if not len(features):
        return features, labels
    good = in_range(spec, loss, tf.constant(features), tf.constant(labels)).numpy()
    return features[good], labels[good]


def _right(spec: ModelSpec, loss: str, labels: npt.NDArray[Any], outputs: npt.NDArray[Any]) -> float | None:
    """How many examples are right; where one example has several predictions, the share of them counts."""
    if loss == SPARSE:
        hits = outputs.argmax(axis=-1) == labels
    elif loss == "categorical_crossentropy":
        hits = outputs.argmax(axis=-1) == labels.argmax(axis=-1)
    elif loss == "binary_crossentropy":
        hits = (outputs > (0.5 if spec.outputs_probabilities else 0.0)) == (labels.reshape(outputs.shape) > 0.5)
    else:
        return None
    return float(hits.reshape(len(labels), -1).mean(axis=1).sum())
