"""What the allow-list accepts, what it refuses, and that it explains each refusal."""

from __future__ import annotations

import ast
import copy
import json
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

import runner.model_spec
from runner.model_bounds import MAX_DEPTH, MAX_DOCUMENT_BYTES
from runner.model_fields import MAX_PROBLEMS
from runner.model_layers import LAYER_TYPES
from runner.model_spec import MAX_LAYERS, MAX_PARAMETERS, SCHEMA, ModelSpecError, parse

DENSE = {"type": "dense", "units": 10}


def document(*layers: Any, shape: Any = (64,), **rest: Any) -> dict[str, Any]:
    return {"schema": SCHEMA, "input": {"shape": list(shape)}, "layers": list(layers), **rest}


def problems(candidate: object) -> tuple[dict[str, str], ...]:
    with pytest.raises(ModelSpecError) as refusal:
        parse(candidate)
    return refusal.value.problems


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def cyclic() -> dict[str, Any]:
    candidate = document(DENSE)
    candidate["layers"].append(candidate)
    return candidate


def wide_and_cyclic() -> dict[str, Any]:
    items: list[Any] = []
    items.extend([items] * 50)
    return document(DENSE, *items)


def test_a_document_becomes_a_model_with_shapes_weights_and_defaults() -> None:
    spec = parse(
        document(
            {"type": "conv2d", "name": "first", "filters": 4, "kernel_size": 3, "activation": "relu"},
            {"type": "max_pooling2d"},
            {"type": "flatten"},
            {"type": "dense", "units": 10},
            shape=(8, 8, 1),
        )
    )

    assert (8, 8, 1) == spec.input_shape
    assert "float32" == spec.input_dtype
    assert [(6, 6, 4), (3, 3, 4), (36,), (10,)] == [layer.output_shape for layer in spec.layers]
    assert (10,) == spec.output_shape
    assert 3 * 3 * 4 + 4 + 36 * 10 + 10 == spec.parameter_count
    assert (
        ("first/kernel", (3, 3, 1, 4)),
        ("first/bias", (4,)),
        ("dense/kernel", (36, 10)),
        ("dense/bias", (10,)),
    ) == spec.weights()
    assert (2, 2) == spec.layers[1].config["strides"]


def test_the_normalised_document_is_json_and_means_the_same() -> None:
    for kind in sorted(LAYER_TYPES):
        required = {
            "units": 3, "filters": 3, "kernel_size": 2, "target_shape": [-1], "rate": 0, "input_dim": 5,
            "output_dim": 2, "activation": "relu", "groups": 2,
        }  # fmt: skip
        layer = {"type": kind} | {name: required[name] for name in LAYER_TYPES[kind].fields if name in required}
        shape = (6, 6, 4) if kind.endswith("2d") else (6, 4)
        start = {"shape": list(shape), "dtype": "int32" if kind == "embedding" else "float32"}
        candidate = document(layer, DENSE) | {"input": start}

        spec = parse(candidate)

        normalised = spec.to_document()
        assert normalised == json.loads(json.dumps(normalised))
        assert spec == parse(normalised)
        assert {"type", "name", *LAYER_TYPES[kind].fields} == set(normalised["layers"][0])


def test_reading_a_document_leaves_it_as_it_was() -> None:
    candidate = document({"type": "max_pooling1d"}, DENSE, shape=(6, 4))
    before = copy.deepcopy(candidate)

    parse(candidate)

    assert before == candidate


def test_a_read_only_mapping_is_read_like_a_dict() -> None:
    assert parse(document(DENSE)) == parse(MappingProxyType(document(DENSE)))


def test_missing_names_are_numbered_and_avoid_given_ones() -> None:
    spec = parse(document(DENSE, DENSE | {"name": "dense_1"}, DENSE))

    assert ["dense", "dense_1", "dense_2"] == [layer.name for layer in spec.layers]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([DENSE], False),
        ([DENSE | {"activation": "softmax"}], True),
        ([DENSE | {"activation": "sigmoid"}], True),
        ([DENSE | {"activation": "relu"}], False),
        ([DENSE, {"type": "activation", "activation": "softmax"}, {"type": "reshape", "target_shape": [2, 5]}], True),
        ([DENSE | {"activation": "softmax"}, DENSE], False),
    ],
)
def test_a_model_knows_whether_it_outputs_probabilities(layers: list[Any], expected: bool) -> None:
    assert expected == parse(document(*layers)).outputs_probabilities


def test_limits_are_inclusive() -> None:
    exact = document({"type": "dense", "units": 20_000, "use_bias": False}, shape=(1000,))

    assert MAX_PARAMETERS == parse(exact).parameter_count
    assert "parameters" in problems(document({"type": "dense", "units": 20_000}, shape=(1000,)))[0]["message"]


def test_every_problem_of_a_document_is_reported_at_once_with_its_path() -> None:
    found = problems(
        document(
            {"type": "dense", "unitz": 3},
            {"type": "dropout", "rate": 1.5},
            {"type": "Dence"},
            scheme=1,
        )
    )

    assert [
        ("$", "unknown key 'scheme'", "did you mean 'schema'?"),
        ("$.layers[0]", "unknown key 'unitz'", "did you mean 'units'?"),
        ("$.layers[0].units", "is missing", "add 'units' here"),
        ("$.layers[1].rate", "1.5 is out of range", "a number from 0.0 to below 1.0"),
        ("$.layers[2].type", "'Dence' is not a known layer", "did you mean 'dense'?"),
    ] == [(problem["path"], problem["message"], problem["hint"]) for problem in found]


def test_batch_normalisation_is_refused_with_the_layer_to_use_instead() -> None:
    for name in ("batch_normalization", "BatchNormalization"):
        (problem,) = problems(document({"type": name}, DENSE))

        assert "moving averages" in problem["hint"]
        assert "layer_normalization or group_normalization" in problem["hint"]


def test_a_report_has_a_bounded_length() -> None:
    many = {f"key{index}": 1 for index in range(2000)}

    assert MAX_PROBLEMS == len(problems(document(DENSE | many)))


def test_what_a_document_says_is_quoted_as_short_ascii_only() -> None:
    found = problems(document({"type": "\x1b[31m\u202e" + "x" * 500}, DENSE | {"ключ\n": 1}))

    for problem in found:
        text = problem["path"] + problem["message"] + problem["hint"]
        assert text.isascii()
        assert text.isprintable()
        assert len(problem["message"]) < 100


def test_the_vocabulary_needs_nothing_but_the_standard_library() -> None:
    folder = Path(runner.model_spec.__file__).parent
    allowed = sys.stdlib_module_names | {"runner"}
    for module in sorted(folder.glob("model_*.py")):
        if module.name == "model_build.py":
            continue
        tree = ast.parse(module.read_text())
        roots = {
            (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert set() == {root for root in roots if root.split(".")[0] not in allowed}
        assert set() == {root for root in roots if root.startswith("runner.") and not root.startswith("runner.model_")}


HOSTILE: dict[str, Any] = {
    # another kind of thing altogether
    "null": None,
    "a list": [DENSE],
    "a string": json.dumps(document(DENSE)),
    "bytes": b"{}",
    "an object that is no JSON": object(),
    "a class": dict,
    "an empty object": {},
    "keras json": {"class_name": "Sequential", "config": {"layers": []}, "keras_version": "2.14.0"},
    "keras json with lambda": {"class_name": "Lambda", "config": {"function": ["4wEAAAAAAAAA", None, None]}},
    # code and foreign names
    "lambda": document({"type": "lambda", "function": "lambda x: x"}, DENSE),
    "Lambda": document({"type": "Lambda", "function": {"code": "4wEAAA=="}}, DENSE),
    "module path": document({"type": "os.system", "command": "id"}, DENSE),
    "keras module path": document({"type": "keras.src.layers.core.lambda_layer.Lambda"}, DENSE),
    "module key": document(DENSE | {"module": "os", "class_name": "system"}),
    "registered name": document({"type": "Custom>Layer"}, DENSE),
    "a custom object": document({"type": "dense", "units": 3, "activation": {"class_name": "F", "module": "m"}}),
    "custom_objects": document(DENSE, custom_objects={"f": "os.system"}),
    "an activation by path": document(DENSE | {"activation": "tensorflow.io.write_file"}),
    "an initializer by path": document(DENSE | {"kernel_initializer": "builtins.eval"}),
    "a regularizer": document(DENSE | {"kernel_regularizer": "l2"}),
    "a dunder": document(DENSE | {"__class__": "x"}),
    "a file layer": document({"type": "TFSMLayer", "filepath": "/etc/passwd"}, DENSE),
    "a path as type": document({"type": "../../etc/passwd"}, DENSE),
    "batch normalization": document({"type": "batch_normalization"}, DENSE),
    # numbers
    "NaN rate": document({"type": "dropout", "rate": float("nan")}, DENSE),
    "infinite rate": document({"type": "dropout", "rate": float("inf")}, DENSE),
    "negative rate": document({"type": "dropout", "rate": -0.1}, DENSE),
    "NaN units": document(DENSE | {"units": float("nan")}),
    "negative units": document(DENSE | {"units": -1}),
    "zero units": document(DENSE | {"units": 0}),
    "boolean units": document(DENSE | {"units": True}),
    "real units": document(DENSE | {"units": 10.0}),
    "string units": document(DENSE | {"units": "10"}),
    "huge units": document(DENSE | {"units": 10**30}),
    "units of ten thousand digits": document(DENSE | {"units": 10**10_000}),
    "a rate of ten thousand digits": document({"type": "dropout", "rate": 10**10_000}, DENSE),
    "null units": document(DENSE | {"units": None}),
    "integer as boolean": document(DENSE | {"use_bias": 1}),
    "NaN epsilon": document({"type": "layer_normalization", "epsilon": float("nan")}, DENSE),
    "zero epsilon": document({"type": "layer_normalization", "epsilon": 0}, DENSE),
    "negative stride": document({"type": "conv1d", "filters": 2, "kernel_size": 2, "strides": -1}, shape=(6, 1)),
    "kernel of three sizes": document({"type": "conv2d", "filters": 2, "kernel_size": [2, 2, 2]}, shape=(6, 6, 1)),
    "kernel as string": document({"type": "conv2d", "filters": 2, "kernel_size": "22"}, shape=(6, 6, 1)),
    "kernel with a boolean": document({"type": "conv2d", "filters": 2, "kernel_size": [True, 2]}, shape=(6, 6, 1)),
    # giants
    "a billion parameters": document(DENSE | {"units": 40_000}, shape=(40_000,)),
    "a giant embedding": {
        "schema": SCHEMA,
        "input": {"shape": [5], "dtype": "int32"},
        "layers": [{"type": "embedding", "input_dim": 2**24, "output_dim": 60_000}],
    },
    "a giant input": document(DENSE, shape=(2**24, 2**24, 2**24, 64)),
    "giant activations": document(
        {"type": "conv2d", "filters": 60_000, "kernel_size": 1}, {"type": "flatten"}, DENSE, shape=(512, 512, 1)
    ),
    "a giant recurrence": document({"type": "lstm", "units": 1000}, shape=(100_000, 10)),
    "giant work": document(
        {"type": "conv2d", "filters": 64, "kernel_size": 64, "padding": "same"}, shape=(700, 700, 64)
    ),
    "a giant window": document(
        {"type": "max_pooling2d", "pool_size": 4096, "strides": 1, "padding": "same"},
        {"type": "conv2d", "filters": 1, "kernel_size": 1},
        shape=(500, 500, 3),
    ),
    "too many layers": document(*[DENSE] * (MAX_LAYERS + 1)),
    "a huge string": document(DENSE | {"name": "a" * 10_000_000}),
    "a huge type": document({"type": "d" * 60_000}, DENSE),
    "a huge key": document(DENSE | {"x" * 10_000_000: 1}),
    "a huge document": document(DENSE | {"extra": [1.5] * MAX_DOCUMENT_BYTES}),
    "deep nesting": document(DENSE, extra=nested(100_000)),
    "slightly too deep": document(DENSE, extra=nested(MAX_DEPTH)),
    "a cycle": cyclic(),
    "a wide cycle": wide_and_cyclic(),
    # names
    "duplicate names": document(DENSE | {"name": "a"}, DENSE | {"name": "a"}),
    "an empty name": document(DENSE | {"name": ""}),
    "a name that is a path": document(DENSE | {"name": "a/../b"}),
    "a name with a newline": document(DENSE | {"name": "dense\n"}),
    "an upper-case name": document(DENSE | {"name": "Dense"}),
    "a name of 65": document(DENSE | {"name": "a" * 65}),
    "a number as name": document(DENSE | {"name": 5}),
    "a list as name": document(DENSE | {"name": ["dense"]}),
    "a null name": document(DENSE | {"name": None}),
    "a cyrillic look-alike": document(DENSE | {"name": "d\u0435nse"}),
    "a cyrillic type": document({"type": "d\u0435nse", "units": 10}),
    "full-width digits": document(DENSE | {"units": "\uff11\uff10"}),
    "a zero-width key": document(DENSE | {"units\u200b": 10}),
    "a lone surrogate": document(DENSE | {"name": "a\ud800"}),
    "a NUL": document(DENSE | {"name": "a\x00b"}),
    # structure and shapes
    "another schema": document(DENSE) | {"schema": "pysytff.model/2"},
    "a schema of a wrong type": document(DENSE) | {"schema": ["pysytff.model/1"]},
    "no schema": {"input": {"shape": [4]}, "layers": [DENSE]},
    "no input": {"schema": SCHEMA, "layers": [DENSE]},
    "no layers": document(),
    "layers as object": document(DENSE) | {"layers": {"0": DENSE}},
    "layers as string": document(DENSE) | {"layers": "dense"},
    "a layer as string": document("dense"),
    "a layer as null": document(None),
    "an unhashable type": document({"type": ["dense"]}, DENSE),
    "an object as type": document({"type": {"a": 1}}, DENSE),
    "input as list": document(DENSE) | {"input": [64]},
    "an unknown input key": document(DENSE) | {"input": {"shape": [64], "batch": 3}},
    "another dtype": document(DENSE) | {"input": {"shape": [64], "dtype": "object"}},
    "string dtype": document(DENSE) | {"input": {"shape": [64], "dtype": "string"}},
    "no dimensions": document(DENSE, shape=()),
    "a null dimension": document(DENSE, shape=(None, 3)),
    "a zero dimension": document(DENSE, shape=(0,)),
    "a negative dimension": document(DENSE, shape=(-1,)),
    "five dimensions": document(DENSE, shape=(2, 2, 2, 2, 2)),
    "shape as number": document(DENSE) | {"input": {"shape": 64}},
    "channels first": document({"type": "flatten", "data_format": "channels_first"}, DENSE),
    "causal padding": document({"type": "conv1d", "filters": 1, "kernel_size": 2, "padding": "causal"}, shape=(9, 1)),
    "mismatched rank": document({"type": "conv2d", "filters": 2, "kernel_size": 2}, DENSE),
    "a window larger than its input": document({"type": "conv1d", "filters": 2, "kernel_size": 9}, shape=(8, 1)),
    "a reshape that does not fit": document({"type": "reshape", "target_shape": [5, 5]}, DENSE),
    "two open dimensions": document({"type": "reshape", "target_shape": [-1, -1]}, DENSE),
    "groups that do not divide": document({"type": "group_normalization", "groups": 5}, DENSE, shape=(3, 64)),
    "an embedding of real numbers": document({"type": "embedding", "input_dim": 5, "output_dim": 2}),
    "dense on integers": document(DENSE) | {"input": {"shape": [64], "dtype": "int32"}},
    "two embeddings": {
        "schema": SCHEMA,
        "input": {"shape": [5], "dtype": "int32"},
        "layers": [{"type": "embedding", "input_dim": 5, "output_dim": 2}] * 2,
    },
    "nothing to train": document({"type": "flatten"}),
    "a stateful recurrence": document({"type": "lstm", "units": 3, "stateful": True}, shape=(5, 2)),
    "an unhashable key": {("schema",): SCHEMA},
    "a number as key": document(DENSE | {3: 4}),
    "a set": document(DENSE | {"units": {3}}),
    "bytes as type": document({"type": b"dense", "units": 3}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_document_is_refused_with_an_explanation(name: str) -> None:
    found = problems(HOSTILE[name])

    assert found
    for problem in found:
        assert {"path", "message", "hint"} == set(problem)
        assert problem["path"].startswith("$")
        assert problem["message"]
        assert problem["hint"]
        assert len(json.dumps(problem)) < 1000


def test_every_field_refuses_every_wrong_kind_of_value() -> None:
    wrong: list[Any] = [
        None,
        True,
        -7,
        0.5,
        float("nan"),
        float("-inf"),
        10**400,
        "",
        "x",
        [],
        {},
        [[]],
        [None],
        [True],
    ]
    for kind, layer_type in LAYER_TYPES.items():
        for name, rule in layer_type.fields.items():
            for value in wrong:
                allowed = (name in ("use_bias", "center", "scale", "return_sequences", "go_backwards", "keepdims",
                                    "unit_forget_bias", "reset_after") and value is True) or (
                    (name, value) in (("rate", 0.5), ("epsilon", 0.5))
                ) or (name == "strides" and value is None and "pooling" in kind)  # fmt: skip
                if allowed:
                    assert rule.check(value) == value
                else:
                    found = problems(document({"type": kind, name: value}, DENSE))
                    assert f"$.layers[0].{name}" in {problem["path"] for problem in found}
