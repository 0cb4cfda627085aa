"""From a checked ``ModelSpec`` to TensorFlow: a Keras model for evaluation, a pure function for training.

Invariants
- ``build`` and ``forward`` are the same mathematics, and use weights in the order of ``spec.weights()``, which is
  Keras' ``get_weights()`` order.
- Initial weights are public: a deterministic function of the model and the run's id. They depend on nobody's data.
- ``forward`` keeps no state and draws no randomness of its own: what dropout drops is a function of the seed it is
  given, so that one unit's training never depends on which units were trained before it (privacy rule 8).

This module does not: check a model (``runner.model_spec`` does), or train.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from runner.model_spec import Layer, ModelSpec

# Unrolled recurrent layers train many times faster inside TFF; beyond this the graph itself becomes the cost.
MAX_UNROLLED_STEPS = 128

_LAYERS: dict[str, Callable[..., Any]] = {
    "dense": tf.keras.layers.Dense,
    "conv1d": tf.keras.layers.Conv1D,
    "conv2d": tf.keras.layers.Conv2D,
    "max_pooling1d": tf.keras.layers.MaxPooling1D,
    "max_pooling2d": tf.keras.layers.MaxPooling2D,
    "average_pooling1d": tf.keras.layers.AveragePooling1D,
    "average_pooling2d": tf.keras.layers.AveragePooling2D,
    "global_average_pooling1d": tf.keras.layers.GlobalAveragePooling1D,
    "global_average_pooling2d": tf.keras.layers.GlobalAveragePooling2D,
    "global_max_pooling1d": tf.keras.layers.GlobalMaxPooling1D,
    "global_max_pooling2d": tf.keras.layers.GlobalMaxPooling2D,
    "flatten": tf.keras.layers.Flatten,
    "reshape": tf.keras.layers.Reshape,
    "dropout": tf.keras.layers.Dropout,
    "embedding": tf.keras.layers.Embedding,
    "lstm": tf.keras.layers.LSTM,
    "gru": tf.keras.layers.GRU,
    "layer_normalization": tf.keras.layers.LayerNormalization,
    "group_normalization": tf.keras.layers.GroupNormalization,
    "activation": tf.keras.layers.Activation,
}


def build(spec: ModelSpec, *, seed: int) -> tf.keras.Model:
    """A Keras model with the document's layer names; its initial weights follow from ``seed`` alone."""
    inputs = tf.keras.Input(spec.input_shape, dtype=spec.input_dtype)
    outputs = inputs
    for index, layer in enumerate(spec.layers):
        outputs = _make(layer, seed=(seed + 7919 * index) % 2**31)(outputs)
    return tf.keras.Model(inputs, outputs)


def initial_weights(spec: ModelSpec, run_id: str) -> list[npt.NDArray[np.float32]]:
    """Public randomness: anyone who knows the model and the run's id can compute them."""
    digest = hashlib.sha256(f"pysytff.initial-weights/1|{run_id}".encode()).digest()
    weights: list[npt.NDArray[np.float32]] = build(spec, seed=int.from_bytes(digest[:4], "big") >> 1).get_weights()
    return weights


def forward(spec: ModelSpec, weights: Sequence[tf.Tensor], inputs: tf.Tensor, dropout_seed: tf.Tensor) -> tf.Tensor:
    """The model's outputs in training, as a function of tensors. Only for use while a graph is traced.

    ``inputs``: [batch, *spec.input_shape]; ``dropout_seed``: int32 [2]. Tokens must lie in their embedding's range.
    """
    left = list(weights)

    def weight_instead_of_variable(_: Any, **kwargs: Any) -> tf.Tensor:
        return left.pop(0)

    outputs = inputs
    for index, layer in enumerate(spec.layers):
        if layer.type == "dropout":
            seed = tf.random.experimental.stateless_fold_in(dropout_seed, index)
            outputs = tf.nn.experimental.stateless_dropout(outputs, layer.config["rate"], seed)
            continue
        # Keras layers ask for a variable and use what they are given: a tensor makes them pure functions.
        with tf.variable_creator_scope(weight_instead_of_variable):
            outputs = _make(layer, seed=0)(outputs)
    if left:
        raise ValueError(f"{len(left)} weights were not used by the model")
    return outputs


def token_limit(spec: ModelSpec) -> int | None:
    """How many tokens the model's embedding knows, or None if its inputs are no tokens."""
    sizes = [int(layer.config["input_dim"]) for layer in spec.layers if layer.type == "embedding"]
    return sizes[0] if sizes else None


def _make(layer: Layer, *, seed: int) -> Any:
    config = {
        key: _initializer(value, seed + offset) if key.endswith("_initializer") else value
        for offset, (key, value) in enumerate(sorted(layer.config.items()))
    }
    if layer.type in ("lstm", "gru"):
        config["unroll"] = layer.input_shape[0] <= MAX_UNROLLED_STEPS
    return _LAYERS[layer.type](name=layer.name, **config)


def _initializer(name: str, seed: int) -> Any:
    seeded = {} if name in ("zeros", "ones") else {"seed": seed % 2**31}
    return tf.keras.initializers.deserialize(
        {"class_name": tf.keras.initializers.serialize(tf.keras.initializers.get(name))["class_name"], "config": seeded}
    )
