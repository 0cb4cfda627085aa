"""Keras models as documents: what real Keras 2.14 and (by its own JSON) Keras 3 models become, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pysytff.errors import UnsupportedModelError
from pysytff.keras import ensure_input, lacks_input, to_document
from pysytff.weights import set_weights
from runner.model_layers import LAYER_TYPES
from runner.model_spec import parse

L = tf.keras.layers
KERAS_3 = json.loads((Path(__file__).parent / "keras3_models.json").read_text())


def image_model() -> Any:
    return tf.keras.Sequential(
        [
            tf.keras.Input((12, 12, 3)),
            L.Conv2D(4, 3, padding="same", activation="relu", kernel_initializer="he_normal"),
            L.GroupNormalization(2),
            L.MaxPooling2D(),
            L.Conv2D(6, (3, 1), strides=2, use_bias=False),
            L.LayerNormalization(epsilon=1e-5),
            L.AveragePooling2D(2, strides=1, padding="same"),
            L.ReLU(),
            L.GlobalAveragePooling2D(keepdims=True),
            L.Flatten(),
            L.Dropout(0.2, seed=4),
            L.Reshape((3, 2)),
            L.Conv1D(5, 2),
            L.MaxPooling1D(2, padding="same"),
            L.AveragePooling1D(1),
            L.GlobalMaxPooling1D(),
            L.Dense(8, activation=tf.nn.silu, kernel_initializer=tf.keras.initializers.Zeros()),
            L.Activation("tanh"),
            L.Dense(10),
            L.Softmax(),
        ]
    )


def text_model() -> Any:
    tokens = tf.keras.Input((20,))
    hidden = L.Embedding(80, 8)(tokens)
    hidden = L.LSTM(6, return_sequences=True)(hidden)
    hidden = L.GRU(5, reset_after=False)(hidden)
    return tf.keras.Model(tokens, L.Dense(3, name="logits")(hidden))


def pooled_model() -> Any:
    pools: list[Any] = [L.GlobalMaxPooling2D(), L.Reshape((2, 2)), L.GlobalAveragePooling1D(), L.Dense(1)]
    return tf.keras.Sequential([tf.keras.Input((4, 4, 4)), *pools])


MODELS: list[Callable[[], Any]] = [image_model, text_model, pooled_model]


@pytest.mark.parametrize("model_fn", MODELS)
def test_a_keras_model_becomes_a_document_with_the_same_weights(model_fn: Callable[[], Any]) -> None:
    model = model_fn()

    spec = parse(to_document(model))

    assert [weight.shape for weight in model.get_weights()] == [size for _, size in spec.weights()]
    assert model.output_shape[1:] == spec.output_shape
    assert model.count_params() == spec.parameter_count


def test_the_models_above_hold_every_layer_of_the_vocabulary() -> None:
    types = {layer["type"] for model_fn in MODELS for layer in to_document(model_fn())["layers"]}

    assert set(LAYER_TYPES) == types


@pytest.mark.parametrize("model_fn", MODELS)
def test_a_live_model_and_its_json_give_the_same_document(model_fn: Callable[[], Any]) -> None:
    model = model_fn()

    assert to_document(model) == to_document(model.to_json())


@pytest.mark.parametrize("model_fn", MODELS)
def test_the_same_model_fn_gives_the_same_document_whatever_keras_counted_before(model_fn: Callable[[], Any]) -> None:
    assert to_document(model_fn()) == to_document(model_fn())


def test_given_names_are_kept_and_automatic_ones_counted_within_the_model() -> None:
    L.Dense(1)
    model = tf.keras.Sequential(
        [tf.keras.Input((4,)), L.Dense(4), L.Dense(4, name="mine"), L.Dense(4), L.Dense(2, name="A")]
    )

    assert ["dense", "mine", "dense_1", "dense_2"] == [layer["name"] for layer in to_document(model)["layers"]]


def test_options_are_carried_over() -> None:
    first, second = to_document(image_model())["layers"][0], to_document(image_model())["layers"][3]

    assert ("conv2d", 4, [3, 3], "same", "relu", "he_normal") == tuple(
        first[name] for name in ("type", "filters", "kernel_size", "padding", "activation", "kernel_initializer")
    )
    assert ([3, 1], [2, 2], False) == (second["kernel_size"], second["strides"], second["use_bias"])


def test_an_embedding_at_the_start_reads_integers() -> None:
    assert {"shape": [20], "dtype": "int32"} == to_document(text_model())["input"]


def test_an_input_length_says_the_shape() -> None:
    model = tf.keras.Sequential([L.Embedding(9, 2, input_length=7), L.Flatten(), L.Dense(1)])

    assert {"shape": [7], "dtype": "int32"} == to_document(model)["input"]


def test_a_model_without_input_is_built_for_the_data() -> None:
    model = tf.keras.Sequential([L.Dense(4, activation="relu"), L.Dense(2)])
    assert lacks_input(model)
    with pytest.raises(UnsupportedModelError, match=r"shape of its input.*tf\.keras\.Input"):
        to_document(model)

    ensure_input(model, (6,))

    assert 6 * 4 + 4 + 4 * 2 + 2 == parse(to_document(model)).parameter_count


@pytest.mark.parametrize("kind", ["sequential", "functional"])
def test_keras_3_models_become_documents_too(kind: str) -> None:
    spec = parse(to_document(KERAS_3[kind]))

    expected = {
        "sequential": ["conv2d", "max_pooling2d", "group_normalization", "layer_normalization", "activation", "flatten",
                       "dropout", "dense"],
        "functional": ["embedding", "gru", "lstm", "dense"],
    }  # fmt: skip
    assert expected[kind] == [layer.type for layer in spec.layers]
    assert {"sequential": (8, 8, 1), "functional": (20,)}[kind] == spec.input_shape


def test_a_function_that_keras_3_defines_otherwise_is_refused() -> None:
    model = json.loads(json.dumps(KERAS_3["sequential"]).replace('"softmax"', '"hard_sigmoid"'))

    with pytest.raises(UnsupportedModelError, match="another function in Keras 3"):
        to_document(model)


def test_a_document_passes_as_it_is() -> None:
    document = to_document(image_model())

    assert document == to_document(document)
    assert document == to_document(json.dumps(document))


class OwnDense(tf.keras.layers.Dense):  # type: ignore[misc]
    pass


class OwnModel(tf.keras.Sequential):  # type: ignore[misc]
    pass


class Subclassed(tf.keras.Model):  # type: ignore[misc]
    def call(self, inputs: Any) -> Any:
        return inputs


def relu(value: Any) -> Any:
    return value


def chain(*layers: Any, shape: tuple[Any, ...] = (6,)) -> Any:
    return tf.keras.Sequential([tf.keras.Input(shape), *layers, L.Dense(2)])


def branched() -> Any:
    start = tf.keras.Input((4,))
    return tf.keras.Model(start, L.Add()([L.Dense(3)(start), L.Dense(3)(start)]))


def shared() -> Any:
    start, layer = tf.keras.Input((4,)), L.Dense(4)
    return tf.keras.Model(start, layer(layer(start)))


def two_outputs() -> Any:
    start = tf.keras.Input((4,))
    return tf.keras.Model(start, [L.Dense(3)(start), L.Dense(2)(start)])


def operation() -> Any:
    start = tf.keras.Input((4,))
    return tf.keras.Model(start, L.Dense(3)(start * 2.0))


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "lambda layer": (lambda: chain(L.Lambda(lambda x: x)), "Lambda cannot travel"),
    "own layer": (lambda: chain(OwnDense(3)), "of your own class OwnDense"),
    "own model": (lambda: OwnModel([tf.keras.Input((3,)), L.Dense(2)]), "of your own class OwnModel"),
    "subclassed model": (Subclassed, "of your own class Subclassed"),
    "own activation": (lambda: chain(L.Dense(3, activation=lambda x: x)), "function of your own as activation"),
    "own activation with a known name": (lambda: chain(L.Dense(3, activation=relu)), "function of your own"),
    "batch normalisation": (lambda: chain(L.BatchNormalization()), "GroupNormalization"),
    "unknown layer": (lambda: chain(L.GaussianNoise(0.1)), "GaussianNoise is not one of the layers that travel"),
    "nested model": (lambda: chain(tf.keras.Sequential([tf.keras.Input((6,)), L.Dense(2)])), "not one of the layers"),
    "regularizer": (lambda: chain(L.Dense(3, kernel_regularizer="l2")), "kernel_regularizer"),
    "constraint": (lambda: chain(L.Dense(3, kernel_constraint="non_neg")), "kernel_constraint"),
    "frozen layer": (lambda: chain(L.Dense(3, trainable=False)), "trainable: False cannot travel"),
    "initializer option": (
        lambda: chain(L.Dense(3, kernel_initializer=tf.keras.initializers.RandomNormal(stddev=2.0))),
        r"stddev = 2\.0 cannot travel",
    ),
    "unknown initializer": (
        lambda: chain(L.Dense(3, kernel_initializer=tf.keras.initializers.Identity())),
        "initializer 'Identity' cannot travel",
    ),
    "dilation": (lambda: chain(L.Conv1D(2, 2, dilation_rate=2), L.Flatten(), shape=(6, 1)), "dilation_rate"),
    "groups": (lambda: chain(L.Conv1D(2, 2, groups=2), L.Flatten(), shape=(6, 2)), "groups: 2 cannot travel"),
    "capped relu": (lambda: chain(L.ReLU(max_value=6.0)), "max_value"),
    "recurrent dropout": (lambda: chain(L.LSTM(3, dropout=0.2), shape=(4, 2)), "dropout: 0.2 cannot travel"),
    "stateful": (
        lambda: tf.keras.Sequential([tf.keras.Input((4, 2), batch_size=3), L.LSTM(3, stateful=True)]),
        "stateful: True cannot travel",
    ),
    "masked embedding": (lambda: chain(L.Embedding(5, 2, mask_zero=True), L.Flatten()), "mask_zero"),
    "another axis": (lambda: chain(L.LayerNormalization(axis=1), L.Flatten(), shape=(4, 3)), "only the last axis"),
    "half precision": (lambda: chain(L.Dense(3, dtype="float16")), "the node trains in float32"),
    "open shape": (lambda: chain(L.LSTM(3), shape=(None, 2)), r"open shape \[None, 2\]"),
    "branches": (branched, "several inputs, or is used more than once"),
    "a shared layer": (shared, "used more than once"),
    "two outputs": (two_outputs, "several inputs or outputs"),
    "operations": (operation, "operations between layers do not travel"),
    "no model": (lambda: 3, "is int, not a Keras model"),
    "no JSON": (lambda: "{", "is not JSON"),
    "other JSON": (lambda: '{"a": 1}', "no list of layers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_travel_is_refused_with_an_explanation(name: str) -> None:
    make, pattern = REFUSED[name]

    with pytest.raises(UnsupportedModelError, match=pattern) as refusal:
        to_document(make())

    for problem in refusal.value.problems:
        assert {"path", "message", "hint"} == set(problem)
        assert all(problem.values())


def test_weights_of_a_run_go_into_a_fresh_model_in_its_order() -> None:
    model, fresh = image_model(), image_model()
    names = [name for name, _ in parse(to_document(model)).weights()]
    tensors = dict(reversed(list(zip(names, model.get_weights(), strict=True))))

    set_weights(fresh, tensors)

    batch = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype(np.float32)
    np.testing.assert_array_equal(model(batch), fresh(batch))
