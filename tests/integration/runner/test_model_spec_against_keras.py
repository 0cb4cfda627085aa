"""The shape, weight and parameter arithmetic of ``runner.model_spec`` against Keras 2.14 itself, for every layer type.

Each case is built twice: from the checked document by the arithmetic, and from the layers' configs by Keras.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from runner.model_layers import ACTIVATIONS, INITIALIZERS, LAYER_TYPES
from runner.model_spec import SCHEMA, ModelSpec, ModelSpecError, parse

KERAS_CLASSES = {
    "dense": "Dense",
    "conv1d": "Conv1D",
    "conv2d": "Conv2D",
    "max_pooling1d": "MaxPooling1D",
    "max_pooling2d": "MaxPooling2D",
    "average_pooling1d": "AveragePooling1D",
    "average_pooling2d": "AveragePooling2D",
    "global_max_pooling1d": "GlobalMaxPooling1D",
    "global_max_pooling2d": "GlobalMaxPooling2D",
    "global_average_pooling1d": "GlobalAveragePooling1D",
    "global_average_pooling2d": "GlobalAveragePooling2D",
    "flatten": "Flatten",
    "reshape": "Reshape",
    "dropout": "Dropout",
    "embedding": "Embedding",
    "lstm": "LSTM",
    "gru": "GRU",
    "layer_normalization": "LayerNormalization",
    "group_normalization": "GroupNormalization",
    "activation": "Activation",
}

PADDINGS = ("valid", "same")
ONE_D = [
    {"padding": padding, "strides": stride, "size": size}
    for padding, stride, size in itertools.product(PADDINGS, (1, 2, 3), (1, 2, 3, 5))
]
TWO_D = [
    {"padding": padding, "strides": strides, "size": size}
    for padding, strides, size in itertools.product(
        PADDINGS, (1, 2, [2, 2], [1, 2], [3, 1]), (1, 3, [3, 2], [5, 1], [5, 4])
    )
]


Case = tuple[list[int], str, list[dict[str, Any]]]


def _sized(kind: str, size_field: str, cases: list[dict[str, Any]], **extra: Any) -> list[dict[str, Any]]:
    return [
        {"type": kind, size_field: case["size"], "strides": case["strides"], "padding": case["padding"], **extra}
        for case in cases
    ]


# (input shape, input dtype, layers)
CASES: list[Any] = [
    *(
        (shape, "float32", [{"type": "dense", "units": 5, "use_bias": bias}])
        for shape, bias in itertools.product(([7], [4, 7], [3, 4, 7], [2, 3, 4, 7]), (True, False))
    ),
    *(([11, 3], "float32", [layer]) for layer in _sized("conv1d", "kernel_size", ONE_D, filters=4)),
    *(([7, 5, 3], "float32", [layer]) for layer in _sized("conv2d", "kernel_size", TWO_D, filters=4)),
    ([7, 5, 3], "float32", [{"type": "conv2d", "filters": 4, "kernel_size": 3, "use_bias": False}]),
    *(
        ([11, 3], "float32", [layer, {"type": "dense", "units": 2}])
        for kind in ("max_pooling1d", "average_pooling1d")
        for layer in [{"type": kind}, *_sized(kind, "pool_size", ONE_D)]
    ),
    *(
        ([7, 5, 3], "float32", [layer, {"type": "dense", "units": 2}])
        for kind in ("max_pooling2d", "average_pooling2d")
        for layer in [{"type": kind}, {"type": kind, "pool_size": 3}, *_sized(kind, "pool_size", TWO_D)]
    ),
    *(
        (shape, "float32", [{"type": f"global_{how}_pooling{len(shape) - 1}d", "keepdims": keep}, {"type": "flatten"},
                            {"type": "dense", "units": 2}])
        for how, shape, keep in itertools.product(("max", "average"), ([6, 3], [6, 5, 3]), (True, False))
    ),
    *(
        ([4, 6], "float32", [{"type": "reshape", "target_shape": target}, {"type": "dense", "units": 2}])
        for target in ([24], [-1], [2, -1], [-1, 3, 2], [2, 3, 4], [1, -1, 1, 4])
    ),
    ([4, 6, 2], "float32", [{"type": "flatten"}, {"type": "dropout", "rate": 0.4}, {"type": "dense", "units": 2}]),
    *(
        (shape, "int32", [{"type": "embedding", "input_dim": 50, "output_dim": 4}])
        for shape in ([9], [3, 9])
    ),
    ([3, 4], "int32", [{"type": "flatten"}, {"type": "embedding", "input_dim": 50, "output_dim": 4}]),
    ([12], "int32", [{"type": "reshape", "target_shape": [3, 4]},
                     {"type": "embedding", "input_dim": 9, "output_dim": 2}]),
    *(
        ([9, 4], "float32", [{"type": kind, "units": 6, "return_sequences": sequences, "use_bias": bias,
                              "go_backwards": backwards}])
        for kind, sequences, bias, backwards in itertools.product(
            ("lstm", "gru"), (True, False), (True, False), (True, False)
        )
    ),
    *(
        ([9, 4], "float32", [{"type": "gru", "units": 6, "reset_after": after, "use_bias": bias}])
        for after, bias in itertools.product((True, False), (True, False))
    ),
    ([9, 4], "float32", [{"type": "lstm", "units": 6, "unit_forget_bias": False}]),
    *(
        (shape, "float32", [{"type": "layer_normalization", "center": center, "scale": scale, "epsilon": 1e-5},
                            {"type": "dense", "units": 2}])
        for shape, center, scale in itertools.product(([6], [5, 6], [4, 5, 6]), (True, False), (True, False))
    ),
    *(
        (shape, "float32", [{"type": "group_normalization", "groups": groups, "center": center, "scale": scale},
                            {"type": "dense", "units": 2}])
        for shape, groups, center, scale in itertools.product(
            ([5, 6], [4, 5, 6]), (1, 2, 6), (True, False), (True, False)
        )
    ),
    *(
        ([6], "float32", [{"type": "dense", "units": 4}, {"type": "activation", "activation": name}])
        for name in ACTIVATIONS
    ),
    *(([6], "float32", [{"type": "dense", "units": 4, "kernel_initializer": name}]) for name in INITIALIZERS),
    *(([6, 3], "float32", [{"type": "gru", "units": 4, "recurrent_initializer": name}]) for name in INITIALIZERS),
    *(
        ([6], "int32", [{"type": "embedding", "input_dim": 7, "output_dim": 4, "embeddings_initializer": name}])
        for name in INITIALIZERS
    ),
    (
        [28, 28, 1],
        "float32",
        [
            {"type": "conv2d", "filters": 16, "kernel_size": 3, "activation": "relu", "padding": "same"},
            {"type": "group_normalization", "groups": 4},
            {"type": "max_pooling2d"},
            {"type": "conv2d", "filters": 32, "kernel_size": [3, 5], "strides": 2, "use_bias": False},
            {"type": "layer_normalization"},
            {"type": "average_pooling2d", "pool_size": 2, "strides": 1, "padding": "same"},
            {"type": "flatten"},
            {"type": "dropout", "rate": 0.25},
            {"type": "dense", "units": 64, "activation": "relu"},
            {"type": "dense", "units": 10, "activation": "softmax"},
        ],
    ),
    (
        [20],
        "int32",
        [
            {"type": "embedding", "input_dim": 80, "output_dim": 8},
            {"type": "conv1d", "filters": 12, "kernel_size": 3, "strides": 2},
            {"type": "lstm", "units": 16, "return_sequences": True},
            {"type": "gru", "units": 8},
            {"type": "dense", "units": 80},
        ],
    ),
]  # fmt: skip


def _by_keras(spec: ModelSpec) -> tf.keras.Model:
    layers = [
        getattr(tf.keras.layers, KERAS_CLASSES[layer.type])(name=layer.name, **layer.config) for layer in spec.layers
    ]
    return tf.keras.Sequential([tf.keras.Input(spec.input_shape, dtype=spec.input_dtype), *layers])


def _label(case: Case) -> str:
    return f"{case[0]}-" + "+".join("{type}".format(**layer) for layer in case[2])


@pytest.mark.parametrize("case", CASES, ids=_label)
def test_shapes_weights_and_count_equal_those_of_keras(case: Case) -> None:
    shape, dtype, layers = case
    spec = parse({"schema": SCHEMA, "input": {"shape": shape, "dtype": dtype}, "layers": layers})
    model = _by_keras(spec)

    assert [layer.output_shape for layer in spec.layers] == [layer.output_shape[1:] for layer in model.layers]
    assert [layer.input_shape for layer in spec.layers] == [layer.input_shape[1:] for layer in model.layers]
    assert spec.output_shape == model.output_shape[1:]
    assert spec.parameter_count == model.count_params()
    assert [size for _, size in spec.weights()] == [weight.shape for weight in model.get_weights()]
    # Every weight is trained: nothing leaves with the weights but what was clipped and noised.
    assert not model.non_trainable_weights
    names = [
        variable.name.split("/")[0] + "/" + variable.name.split("/")[-1].split(":")[0] for variable in model.weights
    ]
    assert [name for name, _ in spec.weights()] == names
    # What is allowed also runs, and its gradient too.
    batch = np.zeros((2, *shape), dtype=dtype)
    with tf.GradientTape() as tape:
        output = model(batch, training=True)
        loss = tf.reduce_sum(output)
    assert output.shape[1:] == spec.output_shape
    assert len(tape.gradient(loss, model.trainable_weights)) == len(spec.weights())


def test_every_layer_type_of_the_vocabulary_occurs_in_a_case() -> None:
    assert {layer["type"] for case in CASES for layer in case[2]} == set(LAYER_TYPES)


@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        ([2, 3], {"type": "conv1d", "filters": 1, "kernel_size": 3}),
        ([5, 2, 3], {"type": "conv2d", "filters": 1, "kernel_size": [3, 3]}),
        ([4, 6], {"type": "reshape", "target_shape": [5, -1]}),
        ([4, 6], {"type": "reshape", "target_shape": [5, 5]}),
        ([4], {"type": "conv1d", "filters": 1, "kernel_size": 1}),
        ([4, 4], {"type": "conv2d", "filters": 1, "kernel_size": 1}),
        ([4], {"type": "lstm", "units": 2}),
        ([4, 4, 4], {"type": "gru", "units": 2}),
        ([4], {"type": "global_max_pooling1d"}),
        ([4, 4], {"type": "average_pooling2d"}),
        ([4, 6], {"type": "group_normalization", "groups": 4}),
    ],
)
def test_shapes_that_keras_refuses_are_refused(shape: list[int], layer: dict[str, Any]) -> None:
    config = {key: value for key, value in layer.items() if key != "type"}
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        tf.keras.Sequential([tf.keras.Input(shape), getattr(tf.keras.layers, KERAS_CLASSES[layer["type"]])(**config)])

    with pytest.raises(ModelSpecError):
        parse({"schema": SCHEMA, "input": {"shape": shape}, "layers": [layer, {"type": "dense", "units": 1}]})
