"""The function that is trained and the Keras model that is published agree, for every layer of the vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from runner.model_build import MAX_UNROLLED_STEPS, build, forward, initial_weights
from runner.model_layers import LAYER_TYPES
from runner.model_spec import ModelSpec
from tests.integration.runner.made_data import HANDLE, parameters, spec_of, write_version

END: dict[str, Any] = {"type": "dense", "name": "end", "units": 3, "activation": "softmax"}
FLAT_END: list[dict[str, Any]] = [{"type": "flatten"}, END]


def lstm(**config: Any) -> dict[str, Any]:
    return {"type": "lstm", "units": 4, **config}


# Examples of shape (6,) or as given, through every layer type.
MODELS: dict[str, ModelSpec] = {
    "dense": spec_of({"type": "dense", "units": 4, "activation": "gelu", "use_bias": False}, END),
    "conv1d": spec_of({"type": "conv1d", "filters": 4, "kernel_size": 2, "padding": "same"}, *FLAT_END, shape=(6, 2)),
    "conv2d": spec_of({"type": "conv2d", "filters": 4, "kernel_size": [2, 3]}, *FLAT_END, shape=(6, 5, 2)),
    **{
        f"{how}_pooling{rank}d": spec_of({"type": f"{how}_pooling{rank}d"}, *FLAT_END, shape=(6,) * rank + (2,))
        for how in ("max", "average")
        for rank in (1, 2)
    },
    **{
        f"global_{how}_pooling{rank}d": spec_of({"type": f"global_{how}_pooling{rank}d"}, END, shape=(6,) * rank + (2,))
        for how in ("max", "average")
        for rank in (1, 2)
    },
    "flatten": spec_of({"type": "flatten"}, END, shape=(2, 3)),
    "reshape": spec_of({"type": "reshape", "target_shape": [2, -1]}, {"type": "dense", "units": 2}, *FLAT_END),
    "embedding": spec_of({"type": "embedding", "input_dim": 9, "output_dim": 3}, *FLAT_END, shape=(4,), dtype="int32"),
    "lstm": spec_of(lstm(return_sequences=True), lstm(go_backwards=True), END, shape=(5, 3)),
    "gru": spec_of(
        {"type": "gru", "units": 4, "return_sequences": True},
        {"type": "gru", "units": 2, "reset_after": False},
        END,
        shape=(5, 3),
    ),
    "long lstm": spec_of(lstm(), END, shape=(MAX_UNROLLED_STEPS + 1, 2)),
    "layer_normalization": spec_of(
        {"type": "layer_normalization"}, {"type": "layer_normalization", "scale": False}, END
    ),
    "group_normalization": spec_of({"type": "group_normalization", "groups": 2}, *FLAT_END, shape=(3, 4)),
    "activation": spec_of({"type": "activation", "activation": "selu"}, END),
    "dropout": spec_of({"type": "dropout", "rate": 0.0}, END),
}


def some_inputs(spec: ModelSpec, random: np.random.Generator, count: int = 3) -> Any:
    if spec.input_dtype == "int32":
        return random.integers(0, 9, (count, *spec.input_shape)).astype(np.int32)
    return random.normal(size=(count, *spec.input_shape)).astype(np.float32)


def test_every_layer_of_the_vocabulary_is_compared() -> None:
    assert LAYER_TYPES.keys() <= {layer.type for spec in MODELS.values() for layer in spec.layers}


@pytest.mark.parametrize("name", MODELS)
def test_the_trained_function_is_the_keras_model(name: str) -> None:
    spec, random = MODELS[name], np.random.default_rng(0)
    model, inputs = build(spec, seed=1), some_inputs(MODELS[name], random)
    # Other weights than the initial ones, biases too: an exchange of two weights would show.
    weights = [random.normal(size=weight.shape).astype(np.float32) for weight in model.get_weights()]
    model.set_weights(weights)
    assert [shape for _, shape in spec.weights()] == [weight.shape for weight in weights]

    pure = tf.function(lambda tensors, x: forward(spec, tensors, x, tf.zeros(2, tf.int32)))
    np.testing.assert_allclose(pure(weights, inputs), model(inputs, training=False), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("tff_runtime")
@pytest.mark.parametrize("name", ["embedding", "lstm", "gru", "long lstm", "conv1d", "layer_normalization"])
def test_a_unit_trains_in_tff_as_in_keras_for_other_kinds_of_models(name: str, tmp_path: Path) -> None:
    from runner.noise import Streams
    from runner.silos import Silos, read_declared
    from runner.training import Trainer, build_clipped_sum

    spec, random = MODELS[name], np.random.default_rng(2)
    x, y = some_inputs(spec, random, 4), random.integers(0, 3, 4)
    settings = parameters(batch_size=8, local_epochs=2, clipping_norm=1e6)
    directory = write_version(tmp_path, HANDLE, [(x, y)])
    computation = build_clipped_sum(spec, settings, read_declared(directory, "x", "y"))
    initial = initial_weights(spec, "run_1")
    trainer = Trainer(spec, settings, computation, Silos(directory, "x", "y"), Streams(), initial, slots=1)
    ours = trainer.sum_of_clipped_updates(0, np.array([0]))

    model = build(spec, seed=0)
    model.set_weights(initial)
    model.compile(tf.keras.optimizers.SGD(settings.client_learning_rate), "sparse_categorical_crossentropy")
    for _ in range(settings.local_epochs):
        model.train_on_batch(x, y)
    for before, after, got in zip(initial, model.get_weights(), ours, strict=True):
        np.testing.assert_allclose(got, after - before, rtol=1e-3, atol=1e-5)


def test_initial_weights_follow_from_model_and_run_and_differ_between_runs() -> None:
    spec = MODELS["lstm"]
    first, again, other = (initial_weights(spec, run) for run in ("run_1", "run_1", "run_2"))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])
    kernels = [weight for weight in first if weight.ndim == 2]
    assert len({float(kernel.flat[0]) for kernel in kernels}) == len(kernels)  # no two layers start alike


def test_initializers_are_those_of_the_document() -> None:
    spec = spec_of({"type": "dense", "units": 3, "kernel_initializer": "zeros", "bias_initializer": "ones"})
    kernel, bias = initial_weights(spec, "run_1")
    assert not kernel.any()
    assert (bias == 1).all()


def test_layers_keep_the_documents_names() -> None:
    model = build(spec_of({"type": "dense", "name": "first", "units": 2}, END), seed=0)
    assert ["first", "end"] == [layer.name for layer in model.layers[1:]]
