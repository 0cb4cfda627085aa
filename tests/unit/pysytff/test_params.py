"""Every parameter is sent or refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from api.schemas import TrainRequestIn
from pysytff.errors import ParameterError
from pysytff.models import Asset, Project
from pysytff.params import KINDS, REQUIRED, first_dataset, request_body


def problem(params: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(ParameterError) as refusal:
        request_body(params)
    (only,) = refusal.value.problems
    return dict(only)


def test_parameters_are_sent_as_they_are_and_defaults_are_left_to_the_node(params: dict[str, Any]) -> None:
    assert params == request_body(params)


def test_the_parameters_are_exactly_the_fields_of_the_nodes_request() -> None:
    fields = TrainRequestIn.model_fields

    assert set(fields) - {"model", "joined"} == set(KINDS)  # lists of data ids become ``joined``
    assert {name for name, field in fields.items() if field.is_required()} - {"model"} == set(REQUIRED)


def test_numpy_numbers_and_objects_of_the_sdk_become_plain_json(params: dict[str, Any]) -> None:
    asset = Asset(id="ast_9", name="images", dtype="float32", shape=(4,))
    given = params | {
        "rounds": np.int64(3),
        "noise_multiplier": np.float32(0.5),
        "train_data_id": asset,
        "label_data_id": asset.id_at_location,
        "project": Project(id="prj_2", name="mine"),
        "clipping_norm": 1,
        "no_clients": None,
    }

    body = request_body(given)

    expected = {"rounds": 3, "noise_multiplier": 0.5, "train_data_id": "ast_9", "label_data_id": "ast_9"}
    assert params | expected | {"project": "prj_2", "clipping_norm": 1} == body
    assert {int, float, str} == {type(value) for value in body.values()}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("round", "rounds"),
        ("noise_multiplyer", "noise_multiplier"),
        ("clients_pr_round", "clients_per_round"),
        ("sigma", "noise_multiplier"),
        ("num_clients", "no_clients"),
        ("lr", "client_learning_rate"),
        ("Batch_Size", "batch_size"),
    ],
)
def test_an_unknown_parameter_is_refused_with_the_nearest(params: dict[str, Any], name: str, meant: str) -> None:
    found = problem(params | {name: 1})

    assert f"params[{name!r}]" == found["path"]
    assert f"did you mean {meant!r}?" == found["hint"]


def test_a_parameter_like_none_is_refused_with_all_of_them(params: dict[str, Any]) -> None:
    assert "sampling" not in KINDS
    assert "clipping_norm" in problem(params | {"zzzz": 1})["hint"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("rounds", "10", "is '10', not an integer"),
        ("rounds", 10.0, "is 10.0, not an integer"),
        ("rounds", True, "is True, not an integer"),
        ("rounds", 10**400, "is larger than any parameter can be"),
        ("noise_multiplier", 10**400, "is larger than any parameter can be"),
        ("purpose", 10**5000, "is a huge integer, not a string"),
        ("noise_multiplier", float("nan"), "is nan, not a finite number"),
        ("noise_multiplier", np.float64("inf"), "is inf, not a finite number"),
        ("noise_multiplier", "a" * 500, "is str, not a number"),
        ("noise_multiplier", [1.0], "is [1.0], not a number"),
        ("train_data_id", 7, "is 7, not a string"),
        ("purpose", b"x", "is b'x', not a string"),
    ],
    ids=range(12),
)
def test_a_value_of_the_wrong_kind_is_refused(params: dict[str, Any], name: str, value: Any, message: str) -> None:
    found = problem(params | {name: value})

    assert (f"params[{name!r}]", message) == (found["path"], found["message"])


def test_everything_that_is_wrong_is_reported_at_once() -> None:
    with pytest.raises(ParameterError) as refusal:
        request_body({"rounds": "x", "sigma": 1})

    assert 6 == len(refusal.value.problems)
    assert "domain.datasets[0]['images'].id_at_location.to_string()" in str(refusal.value)


def test_lists_of_datasets_are_joined_in_one_run(params: dict[str, Any]) -> None:
    several = params | {"train_data_id": ["ast_1", "ast_3"], "label_data_id": ("ast_2", "ast_4")}
    body = request_body(several)
    assert ("ast_1", "ast_2") == (body["train_data_id"], body["label_data_id"])
    assert [{"train_data_id": "ast_3", "label_data_id": "ast_4"}] == body["joined"]
    assert "ast_1" == first_dataset(several)


@pytest.mark.parametrize(
    ("features", "labels"),
    [(["ast_1", "ast_3"], ["ast_2"]), (["ast_1"], "ast_2"), ([], []), (["ast_1", None], ["ast_2", "ast_4"])],
)
def test_datasets_without_their_labels_are_refused(features: object, labels: object, params: dict[str, Any]) -> None:
    with pytest.raises(ParameterError):
        request_body(params | {"train_data_id": features, "label_data_id": labels})
