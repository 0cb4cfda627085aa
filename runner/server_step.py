"""The server's optimizer: applies a noised average to the weights, in float64 on the host.

Invariants
- It sees noised averages only, so everything it computes and keeps is post-processing.
- The weights are kept in float64; a caller casts copies.

This module does not: add noise, or know TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from runner.errors import IncompatibleError
from runner.noise import Float64Array
from runner.port import TrainParameters

# FedAdam's constants (Reddi et al. 2021, "Adaptive Federated Optimization", τ = 1e-3).
ADAM_FIRST_MOMENT: Final = 0.9
ADAM_SECOND_MOMENT: Final = 0.99
ADAM_EPSILON: Final = 1e-3


class ServerOptimizer(Protocol):
    def step(self, weights: list[Float64Array], average: Sequence[Float64Array]) -> None:
        """Moves ``weights`` in place along the average update (trained minus initial)."""


class Sgd:
    """velocity ← momentum · velocity + average; weights ← weights + rate · velocity."""

    def __init__(self, learning_rate: float, momentum: float) -> None:
        self._learning_rate = learning_rate
        self._momentum = momentum
        self._velocity: list[Float64Array] = []

    def step(self, weights: list[Float64Array], average: Sequence[Float64Array]) -> None:
        self._velocity = self._velocity or _zeros(average)
        for velocity, weight, part in zip(self._velocity, weights, average, strict=True):
            velocity *= self._momentum
            velocity += part
            weight += self._learning_rate * velocity


class Adam:
    """Adam with bias correction; ``momentum`` is β₁, where 0 means the usual 0.9."""

    def __init__(self, learning_rate: float, momentum: float) -> None:
        self._learning_rate = learning_rate
        self._beta = momentum or ADAM_FIRST_MOMENT
        self._steps = 0
        self._first: list[Float64Array] = []
        self._second: list[Float64Array] = []

    def step(self, weights: list[Float64Array], average: Sequence[Float64Array]) -> None:
        self._first = self._first or _zeros(average)
        self._second = self._second or _zeros(average)
        self._steps += 1
        for first, second, weight, part in zip(self._first, self._second, weights, average, strict=True):
            first *= self._beta
            first += (1.0 - self._beta) * part
            second *= ADAM_SECOND_MOMENT
            second += (1.0 - ADAM_SECOND_MOMENT) * part**2
            mean = first / (1.0 - self._beta**self._steps)
            spread = np.sqrt(second / (1.0 - ADAM_SECOND_MOMENT**self._steps))
            weight += self._learning_rate * mean / (spread + ADAM_EPSILON)


def server_optimizer(parameters: TrainParameters) -> ServerOptimizer:
    """Raises ``IncompatibleError`` for a name that is not "sgd" or "adam"."""
    match parameters.server_optimizer:
        case "sgd":
            return Sgd(parameters.server_learning_rate, parameters.server_momentum)
        case "adam":
            return Adam(parameters.server_learning_rate, parameters.server_momentum)
    raise IncompatibleError(f"unknown server optimizer {parameters.server_optimizer!r}")


def _zeros(like: Sequence[npt.NDArray[Any]]) -> list[Float64Array]:
    return [np.zeros(part.shape, dtype=np.float64) for part in like]
