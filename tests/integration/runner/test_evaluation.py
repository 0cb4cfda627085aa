"""Metrics of the public hold-out are plain means, and nothing that is not finite or not there enters them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runner.evaluation
from runner.evaluation import evaluate
from runner.silos import Silos
from tests.integration.runner.made_data import HOLDOUT, spec_of, write_version

SOFTMAX = spec_of({"type": "dense", "units": 3, "activation": "softmax"}, shape=(3,))
IDENTITY = [5 * np.eye(3, dtype=np.float32), np.zeros(3, np.float32)]  # predicts the largest feature


def holdout(path: Path, x: Any, y: Any) -> Silos:
    units = [(np.array([a], np.float32), np.array([b])) for a, b in zip(x, y, strict=True)]
    return Silos(write_version(path, HOLDOUT, units), "x", "y")


def test_loss_and_accuracy_are_means_over_all_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner.evaluation, "BATCH", 2)
    x, y = np.eye(3)[[0, 1, 2, 0, 1]], [0, 1, 2, 1, 1]
    metrics = evaluate(SOFTMAX, "sparse_categorical_crossentropy", IDENTITY, holdout(tmp_path, x, y))
    right, wrong = np.log(np.exp(5) + 2) - 5, np.log(np.exp(5) + 2)
    assert 5.0 == metrics["holdout_examples"]
    assert pytest.approx(0.8) == metrics["holdout_accuracy"]
    assert pytest.approx((4 * right + wrong) / 5, rel=1e-4) == metrics["holdout_loss"]


def test_examples_whose_class_does_not_exist_are_not_counted(tmp_path: Path) -> None:
    metrics = evaluate(SOFTMAX, "sparse_categorical_crossentropy", IDENTITY, holdout(tmp_path, np.eye(3), [0, 7, -1]))
    assert (1.0, 1.0) == (metrics["holdout_examples"], metrics["holdout_accuracy"])


def test_without_a_usable_example_there_are_no_metrics(tmp_path: Path) -> None:
    assert {} == evaluate(SOFTMAX, "sparse_categorical_crossentropy", IDENTITY, holdout(tmp_path, [[1, 0, 0]], [9]))


def test_a_model_that_diverged_has_no_loss_but_still_an_accuracy(tmp_path: Path) -> None:
    weights = [np.full((3, 3), np.nan, np.float32), np.zeros(3, np.float32)]
    metrics = evaluate(SOFTMAX, "sparse_categorical_crossentropy", weights, holdout(tmp_path, np.eye(3), [0, 1, 2]))
    assert {"holdout_examples", "holdout_accuracy"} == set(metrics)


@pytest.mark.parametrize(("activation", "scale"), [("sigmoid", 1.0), ("linear", 1.0)])
def test_a_binary_model_is_right_on_its_side_of_one_half(tmp_path: Path, activation: str, scale: float) -> None:
    spec = spec_of({"type": "dense", "units": 1, "activation": activation}, shape=(1,))
    weights = [np.full((1, 1), scale, np.float32), np.zeros(1, np.float32)]
    data = holdout(tmp_path, [[0.3], [2.0], [-1.0], [-0.2]], [1, 1, 0, 1])
    assert pytest.approx(0.75) == evaluate(spec, "binary_crossentropy", weights, data)["holdout_accuracy"]


def test_a_regression_has_a_loss_and_no_accuracy(tmp_path: Path) -> None:
    spec = spec_of({"type": "dense", "units": 1}, shape=(1,))
    weights = [np.ones((1, 1), np.float32), np.zeros(1, np.float32)]
    metrics = evaluate(spec, "mean_squared_error", weights, holdout(tmp_path, [[1.0], [2.0]], [1.0, 4.0]))
    assert {"holdout_loss": 2.0, "holdout_examples": 2.0} == metrics
