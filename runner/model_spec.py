"""The allow-list for a researcher's model: a versioned document, checked without TensorFlow. Standard library only.

A document is data: ``{"schema": "pysytff.model/1", "input": {"shape": [64]}, "layers": [{"type": "dense", …}]}``. It
names layer types of a closed vocabulary (``runner.model_layers``) and numbers within bounds, and nothing in it is ever
imported, evaluated or looked up by name anywhere else.

Invariants
- ``parse`` returns a ``ModelSpec`` or raises ``ModelSpecError`` with every problem found, and raises nothing else,
  whatever it is given: deep, large, cyclic, or no JSON at all.
- Size and depth are checked first, so that nothing later can be made expensive.
- Shapes, weight order and parameter count are exactly those of Keras 2.14 (a differential test holds them to it).
- ``parse(spec.to_document()) == spec``: the normalised document says everything, defaults too.

This module does not: build a model (``runner.model_build``), decide whether a model is wanted (policies do).
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.model_bounds import is_bounded
from runner.model_fields import Field, RefusedValueError, Report, choice, did_you_mean, quote, shape
from runner.model_layers import LAYER_TYPES, MAX_RANK, PROBABILITIES, Shape

SCHEMA = "pysytff.model/1"
MAX_LAYERS = 64
MAX_PARAMETERS = 20_000_000
MAX_ACTIVATIONS = 50_000_000  # numbers that one example's forward pass holds
MAX_OPERATIONS = 20_000_000_000  # of one example's forward pass

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_ABSENT = {
    "batch_normalization": "its moving averages would publish statistics of private data without noise: use "
    "layer_normalization or group_normalization, which work on each example alone",
    "lambda": "code does not travel: express the computation with the listed layers",
    "masking": "pad sequences with a token of their own: masks are not in this vocabulary",
    "input_layer": "the input is described by 'input', not by a layer",
    "re_lu": "write {'type': 'activation', 'activation': 'relu'}",
    "softmax": "write {'type': 'activation', 'activation': 'softmax'}",
}
_INPUT_FIELDS = {
    "shape": Field(shape(MAX_RANK, free=False)),
    "dtype": Field(choice("float32", "int32"), "float32"),
}


class ModelSpecError(ValueError):
    """The document is not an allowed model. ``problems``: one {path, message, hint} for each thing that is wrong."""

    def __init__(self, problems: tuple[dict[str, str], ...]) -> None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{first['path']}: {first['message']}; {first['hint']}{more}")
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Layer:
    """``config`` has every field of the type and is accepted as it stands by the Keras 2.14 constructor."""

    type: str
    name: str
    config: Mapping[str, Any]
    input_shape: Shape
    output_shape: Shape
    weights: tuple[tuple[str, Shape], ...]  # in the layer's get_weights() order


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A checked model. Shapes are those of one example, without the batch."""

    input_shape: Shape
    input_dtype: str
    layers: tuple[Layer, ...]
    output_shape: Shape
    parameter_count: int
    activations: int  # numbers that one example's forward pass holds
    operations: int  # of one example's forward pass

    def weights(self) -> tuple[tuple[str, Shape], ...]:
        """(``layer/weight``, shape) in the order of Keras' ``model.get_weights()``."""
        return tuple((f"{layer.name}/{name}", size) for layer in self.layers for name, size in layer.weights)

    @property
    def outputs_probabilities(self) -> bool:
        """Whether the outputs went through softmax or sigmoid, so that a loss must not do it again."""
        computing = [layer for layer in self.layers if layer.type not in ("flatten", "reshape")]
        return bool(computing) and computing[-1].config.get("activation") in PROBABILITIES

    def to_document(self) -> dict[str, Any]:
        """The normalised document, with every default filled in. A new object of plain JSON values each time."""
        layers = [{"type": layer.type, "name": layer.name, **layer.config} for layer in self.layers]
        shapes = {"shape": self.input_shape, "dtype": self.input_dtype}
        normalised: dict[str, Any] = json.loads(json.dumps({"schema": SCHEMA, "input": shapes, "layers": layers}))
        return normalised


def parse(document: object) -> ModelSpec:
    """Checks a decoded JSON document. Raises ``ModelSpecError`` and nothing else."""
    report = Report()
    if isinstance(document, Mapping) and is_bounded(document, report):
        spec = _read(document, report)
        if spec is not None and not report.problems:
            return spec
    elif not report.problems:
        hint = f'such as {{"schema": "{SCHEMA}", "input": …, "layers": […]}}'
        report.add("$", f"must be a JSON object, not {quote(document)}", hint)
    raise ModelSpecError(tuple(report.problems))


def _read(document: Mapping[str, Any], report: Report) -> ModelSpec | None:
    if "class_name" in document:
        report.add("$", "looks like Keras' own JSON", "translate it first: pysytff.keras.to_document(model) does that")
        return None
    if document.get("schema") != SCHEMA:
        report.add("$.schema", f"is {quote(document.get('schema'))}", f"this service reads {SCHEMA!r}")
    for key in document.keys() - {"schema", "input", "layers"}:
        hint = did_you_mean(key, ("schema", "input", "layers")) or "allowed here: schema, input, layers"
        report.add("$", f"unknown key {quote(key)}", hint)
    source = document.get("input")
    if not isinstance(source, Mapping):
        report.add("$.input", f"must be an object, not {quote(source)}", 'such as {"shape": [64], "dtype": "float32"}')
        given = None
    else:
        given = report.read("$.input", _INPUT_FIELDS, source)
    layers = document.get("layers")
    if not isinstance(layers, list | tuple) or not 1 <= len(layers) <= MAX_LAYERS:
        message = f"must be a list of layers, not {quote(layers)}"
        if isinstance(layers, list | tuple):
            message = f"has {len(layers)} layers"
        report.add("$.layers", message, f"a list of 1 to {MAX_LAYERS} layers")
        return None
    checked = [_read_layer(f"$.layers[{index}]", layer, report) for index, layer in enumerate(layers)]
    names = _names(layers, checked, report)
    if given is None or report.problems:
        return None
    return _Inference(given, report).model([c for c in checked if c is not None], names)


def _read_layer(path: str, layer: object, report: Report) -> tuple[str, dict[str, object]] | None:
    if not isinstance(layer, Mapping):
        report.add(path, f"must be an object, not {quote(layer)}", 'such as {"type": "dense", "units": 10}')
        return None
    kind = layer.get("type")
    if not isinstance(kind, str) or kind not in LAYER_TYPES:
        report.add(f"{path}.type", f"{quote(kind)} is not a known layer", _instead_of(kind))
        return None
    rest = {key: value for key, value in layer.items() if key not in ("type", "name")}
    config = report.read(path, LAYER_TYPES[kind].fields, rest)
    if config is None:
        return None
    if config.get("strides", 0) is None:  # pooling windows do not overlap unless the document says so
        config["strides"] = config["pool_size"]
    return kind, config


def _instead_of(kind: object) -> str:
    if not isinstance(kind, str):
        return "write the type as a string: " + ", ".join(LAYER_TYPES)
    if any(mark in kind for mark in ".:/>\\"):
        return "a layer is named by its type alone, never by a module, class or file"
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind[:64]).lower()
    near = _ABSENT.get(snake) or did_you_mean(snake, LAYER_TYPES)
    return near or "one of: " + ", ".join(LAYER_TYPES)


def _names(layers: Sequence[Any], checked: Sequence[Any], report: Report) -> list[str]:
    """Given names, checked; where one is missing, the type with a running number as in Keras (dense, dense_1, …)."""
    taken: dict[str, int] = {}
    for index, layer in enumerate(layers):
        if not isinstance(layer, Mapping) or "name" not in layer:
            continue
        name, path = layer["name"], f"$.layers[{index}].name"
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            hint = "a lower-case ASCII letter, then at most 63 lower-case letters, digits and underscores"
            report.add(path, f"{quote(name)} is not a valid name", hint)
        elif name in taken:
            message = f"{quote(name)} is already the name of layer {taken[name]}"
            report.add(path, message, "give each layer its own name")
        else:
            taken[name] = index
    names = []
    for index, layer in enumerate(layers):
        kind = checked[index][0] if checked[index] else "layer"
        if isinstance(layer, Mapping) and "name" in layer:
            names.append(str(layer["name"]) if isinstance(layer["name"], str) else kind)
            continue
        free = next(n for n in itertools.chain([kind], (f"{kind}_{i}" for i in itertools.count(1))) if n not in taken)
        taken[free] = index
        names.append(free)
    return names


class _Inference:
    """Carries shape and dtype through the layers and adds up what the model needs."""

    def __init__(self, given: Mapping[str, Any], report: Report) -> None:
        self.input_shape: Shape = given["shape"]
        self.input_dtype: str = given["dtype"]
        self.report = report
        self.parameters = 0
        self.activations = math.prod(self.input_shape)
        self.operations = 0

    def model(self, checked: list[tuple[str, dict[str, Any]]], names: list[str]) -> ModelSpec | None:
        current, integers = self.input_shape, self.input_dtype == "int32"
        layers = []
        for index, ((kind, config), name) in enumerate(zip(checked, names, strict=True)):
            path, layer_type = f"$.layers[{index}]", LAYER_TYPES[kind]
            if kind == "embedding" and not integers:
                hint = "set input.dtype to 'int32' and put the embedding first"
                self.report.add(path, "an embedding reads integers, but gets real numbers", hint)
            elif integers and kind != "embedding" and not layer_type.preserves_integers:
                hint = "set input.dtype to 'float32', or begin with an embedding"
                self.report.add(path, f"{kind} reads real numbers, but gets integers", hint)
            integers = integers and kind != "embedding"
            try:
                inferred = layer_type.infer(config, current)
            except RefusedValueError as refused:
                self.report.add(path, refused.message, refused.hint)
                return None  # what follows has no shape to start from
            layers.append(Layer(kind, name, config, current, inferred.output, inferred.weights))
            if not self._within_limits(path, inferred):
                return None
            current = inferred.output
        if not self.parameters:
            self.report.add("$.layers", "has nothing to train", "add a layer with weights, such as dense")
        if integers:
            self.report.add("$.layers", "never turns its integers into real numbers", "add an embedding")
        return ModelSpec(
            self.input_shape,
            self.input_dtype,
            tuple(layers),
            current,
            self.parameters,
            self.activations,
            self.operations,
        )

    def _within_limits(self, path: str, inferred: Any) -> bool:
        held = math.prod(inferred.output) if inferred.activations is None else inferred.activations
        self.parameters += sum(math.prod(size) for _, size in inferred.weights)
        self.activations += held
        self.operations += inferred.operations
        for what, amount, limit in (
            ("parameters", self.parameters, MAX_PARAMETERS),
            ("activations for one example", self.activations, MAX_ACTIVATIONS),
            ("operations for one example", self.operations, MAX_OPERATIONS),
        ):
            if amount > limit:
                message = f"the model would have {amount:,} {what} up to here"
                self.report.add(path, message, f"at most {limit:,}: use smaller layers, strides or pooling")
                return False
        return True
