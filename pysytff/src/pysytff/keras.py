"""A Keras model (2 or 3) as a model document: data, never code.

Invariants
- TensorFlow and Keras are not imported: the model's own configuration is read.
- Whatever the document cannot express is refused, never dropped: no option may train another model
  unnoticed.
- Weights are not sent: a run starts from fresh ones that the node draws with the layers' initializers. Seeds are
  dropped for the same reason.

This module does not: check shapes or sizes; the node does, by the same vocabulary.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pysytff.errors import UnsupportedModelError
from pysytff.keras_layers import LAYERS, NOT_SUPPORTED, ConfigError, translate

SCHEMA = "pysytff.model/1"
_LIBRARY = re.compile(r"(keras|tf_keras|tensorflow\.(python\.)?keras|tensorflow\.python|jax)(\.|$)")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


def to_document(model: Any) -> dict[str, Any]:
    """The document of a Keras model, of its ``to_json()`` (text or decoded), or of a document itself.

    Raises ``UnsupportedModelError`` with every layer and option that cannot travel, and what to use instead.
    """
    if isinstance(model, (str, bytes)):
        try:
            model = json.loads(model)
        except ValueError as error:
            raise _unsupported("$", "is not JSON", "give model.to_json() or a model document") from error
    if isinstance(model, Mapping):
        if "schema" in model:
            return dict(model)
        return _from_config(model.get("class_name"), model.get("config"))
    _refuse_foreign_code(model)
    try:
        config = dict(model.get_config())
    except Exception as error:  # Keras raises many kinds, NotImplementedError among them, for subclassed models
        raise _unsupported("model", "has no configuration", "build it with Sequential([...]) or as a chain") from error
    if getattr(model, "built", False) and isinstance(getattr(model, "input_shape", None), tuple):
        config.setdefault("build_input_shape", model.input_shape)
    kind = "Functional" if "input_layers" in config else "Sequential"
    return _from_config(kind, config)


def lacks_input(model: Any) -> bool:
    """Whether a Keras model was built without an input shape."""
    return getattr(model, "built", True) is False


def ensure_input(model: Any, example_shape: Sequence[int]) -> None:
    """Builds a model that lacks its input for examples of this shape, as Keras would on first use."""
    if lacks_input(model):
        model.build((None, *example_shape))


def _unsupported(path: str, message: str, hint: str) -> UnsupportedModelError:
    return UnsupportedModelError([{"path": path, "message": message, "hint": hint}])


def _refuse_foreign_code(model: Any) -> None:
    """A subclass or a function of the researcher's own can bear a library's name; where it was defined tells."""
    if not hasattr(model, "get_config") or not hasattr(model, "layers"):
        hint = "model_fn must return a Keras model: lambda: tf.keras.Sequential([...])"
        raise _unsupported("model", f"is {type(model).__name__}, not a Keras model", hint)
    problems = []
    if not _LIBRARY.match(type(model).__module__):
        hint = "code does not travel: build it with Sequential([...]) or as a chain of layers"
        problems.append({"path": "model", "message": f"is of your own class {type(model).__name__}", "hint": hint})
    for layer in model.layers:
        path = f"layer {getattr(layer, 'name', '?')!r}"
        if not _LIBRARY.match(type(layer).__module__):
            hint = "code does not travel: use " + ", ".join(sorted({rule.type for rule in LAYERS.values()}))
            problems.append({"path": path, "message": f"is of your own class {type(layer).__name__}", "hint": hint})
        for option in ("activation", "recurrent_activation"):
            function = getattr(layer, option, None)
            module = getattr(function, "__module__", None) or type(function).__module__
            if function is not None and not _LIBRARY.match(module):
                message = f"has a function of your own as {option}"
                hint = "code does not travel: name an activation, such as 'relu'"
                problems.append({"path": path, "message": message, "hint": hint})
    if problems:
        raise UnsupportedModelError(problems)


def _from_config(class_name: object, config: object) -> dict[str, Any]:
    if not isinstance(config, Mapping) or not isinstance(config.get("layers"), Sequence):
        hint = "give a Sequential model, or a functional model that is one chain of layers"
        raise _unsupported("model", f"{class_name!r} has no list of layers", hint)
    layers = [layer for layer in config["layers"] if isinstance(layer, Mapping)]
    if class_name != "Sequential":
        layers = _chain(config, layers)
    return _Translation(config, layers).document()


def _chain(config: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The layers of a functional model from its one input to its one output; refuses branches and shared layers."""
    hint = "a model must be one chain of layers, each used once: the node knows no branches"
    before = {str(layer.get("name")): _sources(layer.get("inbound_nodes")) for layer in layers}
    by_name = {str(layer.get("name")): layer for layer in layers}
    outputs = _sources(config.get("output_layers"))
    if len(outputs) != 1 or len(_sources(config.get("input_layers"))) != 1:
        raise _unsupported("model", "has several inputs or outputs", hint)
    chain: list[Mapping[str, Any]] = []
    current = outputs[0]
    while True:
        if current not in by_name or by_name[current] in chain:
            raise _unsupported(f"layer {current!r}", "is not part of one chain", hint)
        chain.insert(0, by_name[current])
        if not before[current]:
            break
        if len(before[current]) > 1:
            raise _unsupported(f"layer {current!r}", "has several inputs, or is used more than once", hint)
        current = before[current][0]
    if len(chain) != len(layers):
        raise _unsupported("model", "has layers beside the chain from input to output", hint)
    return chain


def _sources(nodes: Any) -> list[str]:
    """Names of layers in Keras' notations: [["a", 0, 0]], ["a", 0, 0], and Keras 3's keras_history inside of args."""
    if isinstance(nodes, Mapping):
        history = nodes.get("keras_history")
        if history:
            return [str(history[0])]
        return [name for value in nodes.values() for name in _sources(value)]
    if isinstance(nodes, (list, tuple)):
        if len(nodes) > 1 and isinstance(nodes[0], str) and isinstance(nodes[1], int):
            return [nodes[0]]
        return [name for value in nodes for name in _sources(value)]
    return []


class _Translation:
    def __init__(self, config: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]) -> None:
        self.config = config
        self.layers = layers
        self.problems: list[dict[str, str]] = []
        self.shape: list[Any] | None = None
        self.dtype = "float32"

    def document(self) -> dict[str, Any]:
        documents = []
        names: set[str] = set()
        for index, layer in enumerate(self.layers):
            given = layer.get("config")
            kind, options = str(layer.get("class_name")), dict(given) if isinstance(given, Mapping) else {}
            path = f"layer {index} {options.get('name', kind)!r}"
            if index == 0:
                self._read_input(options)
            if kind == "InputLayer":
                continue
            translated = self._layer(path, kind, layer, options)
            if translated is not None:
                translated["name"] = _name(str(options.get("name", "")), kind, translated["type"], names)
                documents.append(translated)
        if self.shape is None:
            hint = "begin with tf.keras.Input(shape=(...)): the node checks every shape before anything is decided"
            self._problem("model", "does not say the shape of its input", hint)
        if self.problems:
            raise UnsupportedModelError(self.problems)
        # Keras lets an embedding read real numbers that are whole; the document asks for integers from the start.
        dtype = "int32" if documents and _reads_integers(documents) else self.dtype
        return {"schema": SCHEMA, "input": {"shape": self.shape, "dtype": dtype}, "layers": documents}

    def _problem(self, path: str, message: str, hint: str) -> None:
        self.problems.append({"path": path, "message": message, "hint": hint})

    def _read_input(self, options: Mapping[str, Any]) -> None:
        """Keras 2 says batch_input_shape, Keras 3 batch_shape; a model built later keeps it beside its layers."""
        for shape in (
            self.config.get("build_input_shape"),
            options.get("batch_input_shape"),
            options.get("batch_shape"),
        ):
            if isinstance(shape, (list, tuple)) and len(shape) > 1:
                self.shape = list(shape[1:])
        if self.shape is not None and None in self.shape:
            hint = "every example has one fixed shape: pad or cut sequences, and say Input(shape=(length,))"
            self._problem("model input", f"has the open shape {self.shape}", hint)
        if options.get("sparse") or options.get("ragged"):
            self._problem("model input", "is sparse or ragged", "give dense examples of one shape")

    def _layer(self, path: str, kind: str, layer: Mapping[str, Any], options: dict[str, Any]) -> dict[str, Any] | None:
        if kind in NOT_SUPPORTED:
            self._problem(path, f"{kind} cannot travel", NOT_SUPPORTED[kind])
            return None
        module = layer.get("module")
        foreign = layer.get("registered_name") not in (None, kind) or not (
            module is None or _LIBRARY.match(str(module)) or str(module) == "builtins"
        )
        if kind not in LAYERS or foreign:
            own = f"{layer.get('module') or ''}.{kind}".lstrip(".")
            known = "use " + ", ".join(sorted(LAYERS))
            self._problem(path, f"{own} is not one of the layers that travel", f"code does not travel: {known}")
            return None
        try:
            return translate(kind, options, layer.get("build_config"))
        except ConfigError as error:
            for option, message, hint in error.problems:
                self._problem(f"{path}, {option}", message, hint)
            return None


def _reads_integers(documents: Sequence[Mapping[str, Any]]) -> bool:
    computing = [layer for layer in documents if layer["type"] not in ("flatten", "reshape")]
    return bool(computing) and computing[0]["type"] == "embedding"


def _name(given: str, class_name: str, kind: str, taken: set[str]) -> str:
    """The researcher's own name where the document allows it, else the type with a number, counted in this model.

    Keras counts its automatic names over the whole process (dense_7); here the same ``model_fn`` always gives the same
    document, so its weights can be matched by name later, in another process too.
    """
    automatic = re.sub(r"_\d+$", "", given).replace("_", "") == class_name.lower()
    name = kind if automatic or not _NAME.fullmatch(given) else given
    base, number = name[:56], 0
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    taken.add(name)
    return name
