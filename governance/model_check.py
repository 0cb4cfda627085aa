"""Checks a request's model and columns against the dataset, from declared metadata alone.

This module does not: build a model, import TensorFlow, or look at data.
"""

from __future__ import annotations

from collections.abc import Mapping

from governance.errors import InvalidModelError, InvalidRequestError
from governance.model import Asset, Dataset, TrainRequest
from runner.model_spec import ModelSpec, ModelSpecError, parse

LOSSES = ("sparse_categorical_crossentropy", "binary_crossentropy", "mean_squared_error", "mean_absolute_error")
_INTEGERS = ("int32", "int64", "uint8")


def check_model(request: TrainRequest, features: Asset, labels: Asset) -> ModelSpec:
    """The parsed model, if it fits the dataset's features and labels and the loss.

    Raises ``InvalidModelError`` with the problems found.
    """
    try:
        spec = parse(request.model)
    except ModelSpecError as error:
        problems = [{**problem, "path": f"model.{problem['path'].lstrip('$.')}"} for problem in error.problems]
        raise InvalidModelError("the model document is not allowed as it stands", problems) from error
    misfits: list[Mapping[str, str]] = [*_input_problems(spec, features), *_output_problems(spec, labels, request.loss)]
    if misfits:
        raise InvalidModelError("the model does not fit the dataset", misfits)
    return spec


def columns(dataset: Dataset, features_id: str, labels_id: str, path: str = "") -> tuple[Asset, Asset]:
    """The assets that feed the model and the loss. ``path``: where in the request they are named.

    Raises ``InvalidRequestError`` if they are not two of this dataset.
    """
    by_id = {asset.id: asset for asset in dataset.assets}
    if labels_id not in by_id:
        message = "is not a column of the same dataset as train_data_id"
        raise InvalidRequestError(
            f"{path}label_data_id {message}",
            [{"path": f"{path}label_data_id", "message": message, "hint": f"choose one of dataset {dataset.name!r}"}],
        )
    return by_id[features_id], by_id[labels_id]


def _input_problems(spec: ModelSpec, features: Asset) -> list[Mapping[str, str]]:
    if spec.input_shape == features.shape:
        return []
    return [
        {
            "path": "model.input.shape",
            "message": f"is {list(spec.input_shape)}, but one example of {features.name!r} is {list(features.shape)}",
            "hint": "give the model the dataset's shape, and reshape inside it",
        }
    ]


def _output_problems(spec: ModelSpec, labels: Asset, loss: str) -> list[Mapping[str, str]]:
    def problem(message: str, hint: str) -> list[Mapping[str, str]]:
        return [{"path": "model.layers", "message": message, "hint": hint}]

    output = spec.output_shape
    if loss == "sparse_categorical_crossentropy":
        if labels.dtype not in _INTEGERS:
            return problem(f"{loss} needs integer labels; {labels.name!r} is {labels.dtype}", "choose another loss")
        if len(output) == 0 or output[:-1] != labels.shape or output[-1] < 2:
            return problem(
                f"the output is {list(output)}; {loss} on labels of shape {list(labels.shape)} needs "
                f"{[*labels.shape, 'classes']}",
                "end with a dense layer of one unit per class",
            )
        if labels.maximum is not None and output[-1] <= labels.maximum:
            return problem(
                f"the output has {output[-1]} classes, but labels go up to {labels.maximum:g}",
                f"end with at least {int(labels.maximum) + 1} units",
            )
        return []
    if output != labels.shape and output != (*labels.shape, 1):
        return problem(
            f"the output is {list(output)}, but one label of {labels.name!r} is {list(labels.shape)}",
            "end with one unit for each number in a label",
        )
    return []
