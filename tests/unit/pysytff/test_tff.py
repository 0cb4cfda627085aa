"""The announcement's notebook, with one import changed, against a node that speaks the contract."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import pysytff as sy
from pysytff import errors


def model_fn() -> Any:
    return tf.keras.models.Sequential([tf.keras.layers.Input((4,)), tf.keras.layers.Dense(2)])


def test_the_notebook_gives_a_model_and_its_metrics(
    node: Any, published_weights: dict[str, Any], decided: Callable[..., dict[str, Any]]
) -> None:
    clamp = {
        "parameter": "noise_multiplier",
        "requested": 0.05,
        "effective": 1.1,
        "by": "owner:digits",
        "why": "a floor",
    }
    node.decide = lambda body: decided(body, outcome="clamped", clamps=[clamp])
    node.run_to_the_end("run_1")

    domain = sy.login(email="sam@stargate.net", password="changethis", port=node.port)
    params = {
        "rounds": 10,
        "no_clients": 3,
        "noise_multiplier": 0.05,
        "clients_per_round": 2,
        "train_data_id": domain.datasets[0]["images"].id_at_location.to_string(),
        "label_data_id": domain.datasets[0]["labels"].id_at_location.to_string(),
    }
    with pytest.warns(errors.ClampedWarning, match=r"asked 0\.05, allowed 1\.1, because a floor") as caught:
        model, metrics = sy.tff.train_model(model_fn, params, domain, timeout=5000)

    assert [__file__] == [one.filename for one in caught if one.category is errors.ClampedWarning]
    assert {"holdout_accuracy": 0.93, "privacy": {**metrics["privacy"], "epsilon": 1.5}} == metrics
    kernel, bias = model.get_weights()
    np.testing.assert_array_equal(published_weights["dense/kernel"], kernel)
    np.testing.assert_array_equal(published_weights["dense/bias"], bias)
    ((_, body),) = node.sent("POST", "/v1/train-requests")
    assert params == {name: value for name, value in body.items() if name != "model"}


def test_a_model_without_input_comes_back_built(node: Any, params: dict[str, Any]) -> None:
    node.run_to_the_end("run_1")
    domain = sy.login(email="sam@stargate.net", password="changethis", port=node.port)

    model, _ = sy.tff.train_model(lambda: tf.keras.Sequential([tf.keras.layers.Dense(2)]), params, domain)

    assert (None, 4) == model.input_shape


def test_a_timeout_leaves_the_run_and_the_result_can_be_fetched_later(node: Any, params: dict[str, Any]) -> None:
    domain = sy.login(email="sam@stargate.net", password="changethis", port=node.port)

    with pytest.raises(errors.RunTimeoutError) as failure:
        sy.tff.train_model(model_fn, params, domain, timeout=0.05, progress=False)

    node.runs[failure.value.run_id]["state"] = "published"
    assert domain.runs[failure.value.run_id].result().load_into(model_fn()) is not None


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "5000"])
def test_a_timeout_that_is_none_is_refused_before_anything_is_sent(
    node: Any, params: dict[str, Any], timeout: Any
) -> None:
    domain = sy.login(email="sam@stargate.net", password="changethis", port=node.port)
    before = len(node.requests)

    with pytest.raises(errors.ParameterError, match="seconds above 0"):
        sy.tff.train_model(model_fn, params, domain, timeout=timeout)

    assert before == len(node.requests)


def test_a_run_that_fails_is_an_error(node: Any, params: dict[str, Any]) -> None:
    node.run_to_the_end("run_1", "failed")
    domain = sy.login(email="sam@stargate.net", password="changethis", port=node.port)

    with pytest.raises(errors.RunEndedError, match="run_1 ended failed"):
        sy.tff.train_model(model_fn, params, domain, progress=False)


def test_importing_the_package_imports_no_tensorflow_and_no_server() -> None:
    program = (
        "import sys, pysytff, pysytff.cli; heavy = {'tensorflow', 'keras', 'jax', 'fastapi', 'sqlalchemy',"
        " 'governance', 'runner', 'api', 'accountant'};"
        " print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "[]" == done.stdout.strip()
