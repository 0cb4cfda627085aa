"""Which Keras layers and options a model document can express, and how.

Invariants
- An option is translated, or must have the one value that changes nothing, or is null; all else is refused by name.

This module does not: know models, only single layers' configurations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SHOWN = 60  # characters of a value that a message repeats
_ACTIVATIONS = {"silu": "swish", "softmax_v2": "softmax"}  # other names of the same functions
_INITIALIZERS = {
    "GlorotUniform": "glorot_uniform",
    "GlorotNormal": "glorot_normal",
    "HeUniform": "he_uniform",
    "HeNormal": "he_normal",
    "LecunUniform": "lecun_uniform",
    "LecunNormal": "lecun_normal",
    "Orthogonal": "orthogonal",
    "OrthogonalInitializer": "orthogonal",
    "RandomUniform": "random_uniform",
    "RandomNormal": "random_normal",
    "TruncatedNormal": "truncated_normal",
    "Zeros": "zeros",
    "Ones": "ones",
}
# What Keras fills in; another value is another initializer, which the document cannot name.
_INITIALIZER_DEFAULTS = {"gain": 1.0, "mean": 0.0, "stddev": 0.05, "minval": -0.05, "maxval": 0.05}

NOT_SUPPORTED = {
    "BatchNormalization": "its moving averages would publish statistics of private data without noise: use "
    "LayerNormalization or GroupNormalization, which work on each example alone",
    "Lambda": "code does not travel: express it with listed layers",
    "TFOpLambda": "operations between layers do not travel: use a listed layer, such as Activation or Reshape",
    "SlicingOpLambda": "operations between layers do not travel: use a listed layer, such as Reshape",
    "Rescaling": "scale the data when it is registered; its owner knows the range",
    "Normalization": "its statistics come from data: scale by public constants instead",
    "TextVectorization": "the data owner registers token numbers",
    "StringLookup": "the data owner registers numbers",
    "Masking": "masks do not travel: pad with a token of its own",
    "Bidirectional": "use one LSTM or GRU; go_backwards=True reverses it",
    "TimeDistributed": "Dense works on every step already",
}


class ConfigError(ValueError):
    """``problems``: (option, message, hint) each."""

    def __init__(self, problems: list[tuple[str, str, str]]) -> None:
        super().__init__(str(problems))
        self.problems = problems


@dataclass(frozen=True)
class _Rule:
    """``takes``: options of the document under their own names. ``fixed``: options with the one value that will do."""

    type: str
    takes: tuple[str, ...] = ()
    fixed: tuple[tuple[str, Any], ...] = ()
    implied: tuple[tuple[str, Any], ...] = ()


_ANY = object()  # the option changes how fast or where, not what
_COMMON: dict[str, Any] = {
    "name": _ANY,
    "trainable": True,
    "batch_input_shape": _ANY,
    "batch_shape": _ANY,
    "seed": _ANY,
}
_BIAS = ("use_bias", "kernel_initializer", "bias_initializer")
_CONV = ("filters", "kernel_size", "strides", "padding", "data_format", "activation", *_BIAS)
_POOL = ("pool_size", "strides", "padding", "data_format")
_RECURRENT = (
    "units", "activation", "recurrent_activation", "recurrent_initializer", "return_sequences", "go_backwards", *_BIAS,
)  # fmt: skip
_RECURRENT_FIXED = (
    ("return_state", False), ("stateful", False), ("time_major", False), ("dropout", 0.0), ("recurrent_dropout", 0.0),
    ("unroll", _ANY), ("implementation", _ANY), ("use_cudnn", _ANY), ("zero_output_for_mask", _ANY),
)  # fmt: skip
_NORM = ("epsilon", "center", "scale")
_NORM_FIXED = (("beta_initializer", "zeros"), ("gamma_initializer", "ones"), ("rms_scaling", False))
_CONV_FIXED = (("groups", 1), ("dilation_rate", 1))

LAYERS: Mapping[str, _Rule] = {
    "Dense": _Rule("dense", ("units", "activation", *_BIAS)),
    "Conv1D": _Rule("conv1d", _CONV, _CONV_FIXED),
    "Conv2D": _Rule("conv2d", _CONV, _CONV_FIXED),
    "MaxPooling1D": _Rule("max_pooling1d", _POOL),
    "MaxPooling2D": _Rule("max_pooling2d", _POOL),
    "AveragePooling1D": _Rule("average_pooling1d", _POOL),
    "AveragePooling2D": _Rule("average_pooling2d", _POOL),
    "GlobalAveragePooling1D": _Rule("global_average_pooling1d", ("data_format", "keepdims")),
    "GlobalAveragePooling2D": _Rule("global_average_pooling2d", ("data_format", "keepdims")),
    "GlobalMaxPooling1D": _Rule("global_max_pooling1d", ("data_format", "keepdims")),
    "GlobalMaxPooling2D": _Rule("global_max_pooling2d", ("data_format", "keepdims")),
    "Flatten": _Rule("flatten", ("data_format",)),
    "Reshape": _Rule("reshape", ("target_shape",)),
    "Dropout": _Rule("dropout", ("rate",)),
    "Embedding": _Rule(
        "embedding",
        ("input_dim", "output_dim", "embeddings_initializer"),
        (("mask_zero", False), ("input_length", _ANY)),
    ),
    "LSTM": _Rule("lstm", (*_RECURRENT, "unit_forget_bias"), _RECURRENT_FIXED),
    "GRU": _Rule("gru", (*_RECURRENT, "reset_after"), _RECURRENT_FIXED),
    "LayerNormalization": _Rule("layer_normalization", _NORM, _NORM_FIXED),
    "GroupNormalization": _Rule("group_normalization", ("groups", *_NORM), _NORM_FIXED),
    "Activation": _Rule("activation", ("activation",)),
    "ReLU": _Rule("activation", (), (("negative_slope", 0.0), ("threshold", 0.0)), implied=(("activation", "relu"),)),
    "Softmax": _Rule("activation", (), (), implied=(("activation", "softmax"),)),
}


def translate(kind: str, config: Mapping[str, Any], build_config: object = None) -> dict[str, Any]:
    """The layer's document without its name. Raises ``ConfigError`` for every option that cannot be expressed."""
    rule = LAYERS[kind]
    document: dict[str, Any] = {"type": rule.type, **dict(rule.implied)}
    required = _COMMON | dict(rule.fixed)
    problems: list[tuple[str, str, str]] = []
    newer = isinstance(config.get("dtype"), Mapping)  # Keras 3 writes a dtype policy
    for option, value in config.items():
        try:
            if option in rule.takes:
                document[option] = _value(option, value, newer)
            elif option == "dtype":
                _require_float32(value)
            elif option == "axis":
                _require_last_axis(value, build_config)
            elif value is not None and not _is_neutral(value, required.get(option)):
                hint = "leave it out" if required.get(option) is None else f"only {required[option]!r} can be expressed"
                raise ValueError(f"{_shown(value)} cannot travel", hint)
        except ValueError as error:
            message, hint = error.args
            problems.append((option, message, hint))
    if problems:
        raise ConfigError(problems)
    return {option: value for option, value in document.items() if value is not None}


def _value(option: str, value: Any, newer: bool) -> Any:
    if option in ("activation", "recurrent_activation"):
        return _activation(value, newer)
    if option.endswith("_initializer"):
        return _initializer(value)
    return list(value) if isinstance(value, (list, tuple)) else value


def _activation(value: Any, newer: bool) -> str | None:
    if value is None or isinstance(value, str):
        if value == "hard_sigmoid" and newer:
            raise ValueError("'hard_sigmoid' means another function in Keras 3 than on the node", "use 'sigmoid'")
        return _ACTIVATIONS.get(value, value) if value else "linear"
    raise ValueError(f"{_shown(value)} is not a named activation", "name one, such as 'relu': code does not travel")


def _initializer(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return _INITIALIZERS.get(value, value) if value else None
    name = value.get("class_name") if isinstance(value, Mapping) else None
    options = value.get("config") or {} if isinstance(value, Mapping) else {}
    if name not in _INITIALIZERS:
        known = ", ".join(sorted(set(_INITIALIZERS.values())))
        raise ValueError(f"the initializer {_shown(name)} cannot travel", f"use one of: {known}")
    for option, setting in options.items():
        if option == "seed" or setting is None:
            continue
        if setting != _INITIALIZER_DEFAULTS.get(option):
            message = f"the initializer's {option} = {_shown(setting)} cannot travel"
            raise ValueError(message, "use the initializer's defaults")
    return _INITIALIZERS[name]


def _require_float32(value: Any) -> None:
    name = value.get("config", {}).get("name") if isinstance(value, Mapping) else value
    if name not in (None, "float32", "int32", "int64"):
        raise ValueError(f"{_shown(name)} cannot travel", "the node trains in float32")


def _require_last_axis(value: Any, build_config: object) -> None:
    axis = value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value
    shape = build_config.get("input_shape") if isinstance(build_config, Mapping) else None
    last = {-1} | ({len(shape) - 1} if isinstance(shape, (list, tuple)) else set())
    if axis not in last:
        raise ValueError(f"axis {_shown(value)} cannot travel", "only the last axis can be normalised")


def _is_neutral(value: Any, wanted: Any) -> bool:
    if wanted is _ANY:
        return True
    if wanted is None:
        return False
    if isinstance(wanted, str):
        return bool(_initializer(value) == wanted)
    if isinstance(value, (list, tuple)):
        return all(item == wanted for item in value)
    return bool(value == wanted)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else type(value).__name__
