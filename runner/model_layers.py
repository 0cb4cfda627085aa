"""The vocabulary of layers: the fields of each type, its output shape, and its weights. Standard library only.

Invariants
- The vocabulary is closed. A layer outside it is refused, whatever module it claims to come from.
- Field names are those of the Keras 2.14 constructors, so ``runner.model_build`` passes a checked config on as it is.
- Shapes and weights follow Keras 2.14; a differential test holds them to it, layer by layer.
- Every layer works on one example alone. Batch normalisation is absent on purpose: its moving averages are statistics
  of private data that would leave without noise (privacy rules 8 and 9).

This module does not: read a document, know names or limits of whole models (``runner.model_spec`` does).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from runner.model_fields import (
    MAX_DIMENSION,
    Field,
    RefusedValueError,
    boolean,
    choice,
    extent,
    integer,
    number,
    optional,
    shape,
)

Shape = tuple[int, ...]
Config = Mapping[str, Any]

MAX_RANK = 4
MAX_UNITS = 65_536
MAX_KERNEL = 64
MAX_POOL = 4_096

ACTIVATIONS = (
    "linear", "relu", "elu", "selu", "gelu", "mish", "swish", "tanh", "sigmoid", "hard_sigmoid", "softplus", "softsign",
    "exponential", "softmax",
)  # fmt: skip
PROBABILITIES = frozenset({"softmax", "sigmoid"})
INITIALIZERS = (
    "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_uniform", "lecun_normal", "orthogonal",
    "random_uniform", "random_normal", "truncated_normal", "zeros", "ones",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Inferred:
    """For one example: ``operations`` counts multiplications or comparisons, ``activations`` the numbers held."""

    output: Shape
    weights: tuple[tuple[str, Shape], ...] = ()
    operations: int = 0
    activations: int | None = None  # None: the size of the output


@dataclass(frozen=True, slots=True)
class LayerType:
    fields: Mapping[str, Field]
    infer: Callable[[Config, Shape], Inferred]
    preserves_integers: bool = False  # moves numbers about without computing: may stand before an embedding


def _rank(given: Shape, rank: int, what: str) -> None:
    if len(given) != rank:
        hint = f"its input must be {what}; use reshape or flatten, or the layer for {len(given)} dimension(s)"
        raise RefusedValueError(f"needs an example of {rank} dimensions, but gets {list(given)}", hint)


def _window(given: Shape, size: Shape, strides: Shape, padding: str) -> Shape:
    """Spatial output sizes of a convolution or pooling without dilation."""
    output = []
    for length, extent_, stride in zip(given, size, strides, strict=True):
        if padding == "valid" and extent_ > length:
            message = f"a window of {extent_} does not fit into {length}"
            raise RefusedValueError(message, "use a smaller window, or padding 'same'")
        output.append(-(-length // stride) if padding == "same" else (length - extent_) // stride + 1)
    return tuple(output)


def _biased(config: Config, kernels: tuple[tuple[str, Shape], ...], bias: Shape) -> tuple[tuple[str, Shape], ...]:
    return (*kernels, ("bias", bias)) if config["use_bias"] else kernels


def _dense(config: Config, given: Shape) -> Inferred:
    units = config["units"]
    weights = _biased(config, (("kernel", (given[-1], units)),), (units,))
    return Inferred((*given[:-1], units), weights, operations=math.prod(given) * units)


_PLACES = {1: "[steps, channels]", 2: "[rows, columns, channels]"}


def _conv(rank: int) -> Callable[[Config, Shape], Inferred]:
    def infer(config: Config, given: Shape) -> Inferred:
        _rank(given, rank + 1, _PLACES[rank])
        filters = config["filters"]
        places = _window(given[:-1], config["kernel_size"], config["strides"], config["padding"])
        kernel = (*config["kernel_size"], given[-1], filters)
        weights = _biased(config, (("kernel", kernel),), (filters,))
        return Inferred((*places, filters), weights, operations=math.prod(kernel) * math.prod(places))

    return infer


def _pool(rank: int) -> Callable[[Config, Shape], Inferred]:
    def infer(config: Config, given: Shape) -> Inferred:
        _rank(given, rank + 1, _PLACES[rank])
        output = (*_window(given[:-1], config["pool_size"], config["strides"], config["padding"]), given[-1])
        return Inferred(output, operations=math.prod(output) * math.prod(config["pool_size"]))

    return infer


def _global_pool(rank: int) -> Callable[[Config, Shape], Inferred]:
    def infer(config: Config, given: Shape) -> Inferred:
        _rank(given, rank + 1, _PLACES[rank])
        return Inferred((*(1 for _ in range(rank)), given[-1]) if config["keepdims"] else given[-1:])

    return infer


def _flatten(config: Config, given: Shape) -> Inferred:
    return Inferred((math.prod(given),))


def _reshape(config: Config, given: Shape) -> Inferred:
    target: Shape = config["target_shape"]
    known, total = math.prod(size for size in target if size != -1), math.prod(given)
    if total % known if -1 in target else total != known:
        message = f"{list(given)} has {total} numbers, which do not fit {list(target)}"
        raise RefusedValueError(message, "the numbers in input and target must be equal; one dimension may be -1")
    return Inferred(tuple(total // known if size == -1 else size for size in target))


def _unchanged(config: Config, given: Shape) -> Inferred:
    return Inferred(given)


def _embedding(config: Config, given: Shape) -> Inferred:
    size = (config["input_dim"], config["output_dim"])
    return Inferred((*given, config["output_dim"]), (("embeddings", size),))


def _recurrent(gates: int) -> Callable[[Config, Shape], Inferred]:
    def infer(config: Config, given: Shape) -> Inferred:
        _rank(given, 2, _PLACES[1].replace("channels", "features"))
        units, (steps, features) = config["units"], given
        kernels = (("kernel", (features, gates * units)), ("recurrent_kernel", (units, gates * units)))
        # GRU with reset_after keeps separate biases for the input and the recurrent half.
        bias = (2, gates * units) if config.get("reset_after") else (gates * units,)
        output = (steps, units) if config["return_sequences"] else (units,)
        operations = steps * sum(math.prod(kernel) for _, kernel in kernels)
        held = steps * (gates + 1) * units
        return Inferred(output, _biased(config, kernels, bias), operations, held)

    return infer


def _normalization(config: Config, given: Shape) -> Inferred:
    channels = given[-1]
    groups = config.get("groups", 1)
    if channels % groups:
        message = f"{channels} channels do not divide into {groups} groups"
        raise RefusedValueError(message, "choose a number of groups that divides the channels")
    if "groups" in config and len(given) == 1:
        hint = "use layer_normalization, or put the layer before flattening"
        raise RefusedValueError("needs an example of at least 2 dimensions: places and channels", hint)
    names = [name for name, used in (("gamma", config["scale"]), ("beta", config["center"])) if used]
    return Inferred(given, tuple((name, (channels,)) for name in names))


_KERNEL_INITIALIZER = Field(choice(*INITIALIZERS), "glorot_uniform")
_BIAS = {"use_bias": Field(boolean, True), "bias_initializer": Field(choice("zeros", "ones"), "zeros")}
_ACTIVATION = Field(choice(*ACTIVATIONS), "linear")
_PADDING = Field(choice("valid", "same"), "valid")
_CHANNELS_LAST = Field(choice("channels_last"), "channels_last")
_DENSE = {
    "units": Field(integer(1, MAX_UNITS)),
    "activation": _ACTIVATION,
    "kernel_initializer": _KERNEL_INITIALIZER,
    **_BIAS,
}
_GATES = ("tanh", "sigmoid", "hard_sigmoid", "relu", "linear", "softsign", "elu", "selu", "softplus", "gelu", "swish")
_RECURRENT = _DENSE | {
    "activation": Field(choice(*_GATES), "tanh"),
    "recurrent_activation": Field(choice(*_GATES), "sigmoid"),
    "recurrent_initializer": Field(choice(*INITIALIZERS), "orthogonal"),
    "return_sequences": Field(boolean, False),
    "go_backwards": Field(boolean, False),
}
_NORMALIZATION = {
    "epsilon": Field(number(1e-7, 1.0), 1e-3),
    "center": Field(boolean, True),
    "scale": Field(boolean, True),
}


def _conv_fields(rank: int) -> dict[str, Field]:
    own = {
        "filters": Field(integer(1, MAX_UNITS)),
        "kernel_size": Field(extent(rank, MAX_KERNEL)),
        "strides": Field(extent(rank, MAX_KERNEL), (1,) * rank),
        "padding": _PADDING,
        "data_format": _CHANNELS_LAST,
    }
    return own | {name: rule for name, rule in _DENSE.items() if name != "units"}


def _pool_fields(rank: int) -> dict[str, Field]:
    return {
        "pool_size": Field(extent(rank, MAX_POOL), (2,) * rank),
        "strides": Field(optional(extent(rank, MAX_POOL)), None),
        "padding": _PADDING,
        "data_format": _CHANNELS_LAST,
    }


_GLOBAL = {"keepdims": Field(boolean, False), "data_format": _CHANNELS_LAST}
_POOLS = {
    f"{how}_pooling{rank}d": LayerType(_pool_fields(rank), _pool(rank)) for how in ("max", "average") for rank in (1, 2)
}
_GLOBAL_POOLS = {
    f"global_{how}_pooling{rank}d": LayerType(_GLOBAL, _global_pool(rank))
    for how in ("max", "average")
    for rank in (1, 2)
}

LAYER_TYPES: Mapping[str, LayerType] = {
    "dense": LayerType(_DENSE, _dense),
    "conv1d": LayerType(_conv_fields(1), _conv(1)),
    "conv2d": LayerType(_conv_fields(2), _conv(2)),
    **_POOLS,
    **_GLOBAL_POOLS,
    "flatten": LayerType({"data_format": _CHANNELS_LAST}, _flatten, preserves_integers=True),
    "reshape": LayerType({"target_shape": Field(shape(MAX_RANK, free=True))}, _reshape, preserves_integers=True),
    "dropout": LayerType({"rate": Field(number(0.0, 1.0))}, _unchanged),
    "embedding": LayerType(
        {
            "input_dim": Field(integer(1, MAX_DIMENSION)),
            "output_dim": Field(integer(1, MAX_UNITS)),
            "embeddings_initializer": Field(choice(*INITIALIZERS), "random_uniform"),
        },
        _embedding,
    ),
    "lstm": LayerType(_RECURRENT | {"unit_forget_bias": Field(boolean, True)}, _recurrent(4)),
    "gru": LayerType(_RECURRENT | {"reset_after": Field(boolean, True)}, _recurrent(3)),
    "layer_normalization": LayerType(_NORMALIZATION, _normalization),
    "group_normalization": LayerType({"groups": Field(integer(1, MAX_UNITS), 32), **_NORMALIZATION}, _normalization),
    "activation": LayerType({"activation": Field(choice(*ACTIVATIONS))}, _unchanged),
}
