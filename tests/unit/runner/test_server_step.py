"""The server's optimizers, against their formulas."""

from __future__ import annotations

import numpy as np
import pytest

from runner.errors import IncompatibleError
from runner.server_step import server_optimizer
from tests.integration.runner.made_data import parameters


def test_sgd_with_momentum_adds_the_velocity() -> None:
    optimizer = server_optimizer(parameters(server_learning_rate=0.5, server_momentum=0.9))
    weights = [np.array([1.0, 2.0])]
    optimizer.step(weights, [np.array([1.0, -1.0])])
    np.testing.assert_allclose(weights[0], [1.5, 1.5])
    optimizer.step(weights, [np.array([0.0, 1.0])])
    np.testing.assert_allclose(weights[0], [1.5 + 0.5 * 0.9, 1.5 + 0.5 * 0.1])


def test_adam_follows_the_bias_corrected_recurrence() -> None:
    optimizer = server_optimizer(parameters(server_optimizer="adam", server_learning_rate=0.1))
    weights, reference = [np.array([0.0, 1.0])], np.array([0.0, 1.0])
    first, second = np.zeros(2), np.zeros(2)
    for step, update in enumerate((np.array([1.0, -2.0]), np.array([0.5, 0.0]), np.array([-3.0, 1e-9])), start=1):
        optimizer.step(weights, [update])
        first = 0.9 * first + 0.1 * update
        second = 0.99 * second + 0.01 * update**2
        reference = reference + 0.1 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-3)
        np.testing.assert_allclose(weights[0], reference, rtol=1e-12)


def test_adams_first_moment_takes_the_requested_momentum() -> None:
    usual, asked = (server_optimizer(parameters(server_optimizer="adam", server_momentum=m)) for m in (0.0, 0.5))
    ends = []
    for optimizer in (usual, asked):
        weights = [np.zeros(1)]
        for update in (1.0, -1.0):
            optimizer.step(weights, [np.array([update])])
        ends.append(float(weights[0][0]))
    assert ends[0] != ends[1]


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(IncompatibleError, match="lamb"):
        server_optimizer(parameters(server_optimizer="lamb"))
