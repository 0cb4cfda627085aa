"""Only the granted model's weights leave a job's scratch directory."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save, save_file

from runner.errors import PortError
from runner.result_check import public_metrics, read_weights
from tests.integration.runner.made_data import SOFTMAX, grant

NAME = "weights.safetensors"
GOOD = {"dense/kernel": np.ones((6, 3), np.float32), "dense/bias": np.zeros(3, np.float32)}


def test_the_weights_of_the_granted_model_are_read(tmp_path: Path) -> None:
    save_file(GOOD, tmp_path / NAME)
    read = load(read_weights(tmp_path, NAME, SOFTMAX))
    assert GOOD.keys() == read.keys()
    np.testing.assert_array_equal(read["dense/kernel"], GOOD["dense/kernel"])


def test_metadata_does_not_travel_along(tmp_path: Path) -> None:
    save_file(GOOD, tmp_path / NAME, metadata={"cohort": "1,2,3"})
    assert b"cohort" not in read_weights(tmp_path, NAME, SOFTMAX)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04N.",
        save({"dense/kernel": GOOD["dense/kernel"]}),
        save(GOOD | {"extra": np.zeros(1, np.float32)}),
        save(GOOD | {"dense/bias": np.zeros(4, np.float32)}),
        save(GOOD | {"dense/bias": np.zeros(3, np.float64)}),
    ],
    ids=["empty", "pickle", "missing", "extra", "shape", "dtype"],
)
def test_anything_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(PortError):
        read_weights(tmp_path, NAME, SOFTMAX)


def test_links_pipes_and_other_places_are_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    save_file(GOOD, tmp_path / "elsewhere" / NAME)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / NAME).symlink_to(tmp_path / "elsewhere" / NAME)
    os.mkfifo(scratch / "pipe")
    for name in (NAME, "pipe", "../elsewhere/" + NAME, "nothing", ".."):
        with pytest.raises(PortError):
            read_weights(scratch, name, SOFTMAX)


def test_a_file_larger_than_the_model_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / NAME).open("wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(PortError, match="size"):
        read_weights(tmp_path, NAME, SOFTMAX)


WITH_HOLDOUT = replace(grant().data, holdout_handle="ver_" + "1" * 24)


def test_metrics_of_a_public_holdout_pass() -> None:
    metrics = {"holdout_loss": 0.5, "holdout_accuracy": 0.9, "holdout_examples": 10.0}
    assert metrics == public_metrics(metrics, WITH_HOLDOUT)
    assert {} == public_metrics({}, grant().data)


@pytest.mark.parametrize(
    "metrics",
    [{"train_loss": 0.5}, {"holdout_loss": float("nan")}, {"holdout_loss": "0.5"}, {"holdout_loss": True}],
)
def test_other_metrics_are_refused(metrics: dict[str, Any]) -> None:
    with pytest.raises(PortError):
        public_metrics(metrics, WITH_HOLDOUT)


def test_metrics_without_a_holdout_are_refused() -> None:
    with pytest.raises(PortError):
        public_metrics({"holdout_loss": 0.5}, grant().data)
