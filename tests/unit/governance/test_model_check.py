"""A model document against a dataset's declared columns."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from governance.errors import InvalidModelError, InvalidRequestError
from governance.model import Asset, Dataset, TrainRequest
from governance.model_check import check_model, columns

ASSETS = (
    Asset("ast_x", "images", "float32", (8, 8)),
    Asset("ast_y", "digit", "int64", (), "", 0, 9),
    Asset("ast_z", "score", "float32", ()),
)
DATASET = Dataset(
    "dat_1", "pop_1", "d", "", "digits", 1, "ver_" + "0" * 24, None, 5, ASSETS, datetime(2026, 1, 1, tzinfo=UTC)
)


def model(*layers: dict[str, Any], shape: tuple[int, ...] = (8, 8)) -> dict[str, Any]:
    return {"schema": "pysytff.model/1", "input": {"shape": list(shape)}, "layers": [{"type": "flatten"}, *layers]}


def check(document: dict[str, Any], label: str = "ast_y", loss: str = "sparse_categorical_crossentropy") -> Any:
    request = TrainRequest(
        rounds=1,
        clients_per_round=1,
        noise_multiplier=1,
        train_data_id="ast_x",
        label_data_id=label,
        model=document,
        loss=loss,
    )
    return check_model(request, *columns(DATASET, request.train_data_id, request.label_data_id))


def test_a_model_that_fits_is_parsed() -> None:
    assert 650 == check(model({"type": "dense", "units": 10})).parameter_count


@pytest.mark.parametrize(
    ("document", "label", "loss", "path"),
    [
        (model({"type": "dense", "units": 10}, shape=(8, 9)), "ast_y", "sparse_categorical_crossentropy", "input"),
        (model({"type": "dense", "units": 9}), "ast_y", "sparse_categorical_crossentropy", "layers"),
        (model({"type": "dense", "units": 10}), "ast_z", "sparse_categorical_crossentropy", "layers"),
        (model({"type": "dense", "units": 2}), "ast_z", "mean_squared_error", "layers"),
        (model({"type": "lambda"}), "ast_y", "sparse_categorical_crossentropy", "layers"),
    ],
)
def test_what_does_not_fit_is_named(document: dict[str, Any], label: str, loss: str, path: str) -> None:
    with pytest.raises(InvalidModelError) as caught:
        check(document, label, loss)
    assert all(problem["path"].startswith(f"model.{path}") for problem in caught.value.problems)
    assert all(problem["hint"] for problem in caught.value.problems)


def test_regression_takes_one_unit_for_one_number() -> None:
    assert 65 == check(model({"type": "dense", "units": 1}), "ast_z", "mean_squared_error").parameter_count


def test_labels_of_another_dataset_are_refused() -> None:
    with pytest.raises(InvalidRequestError):
        check(model({"type": "dense", "units": 10}), "ast_elsewhere")
