"""A researcher's ``params`` dictionary to the body of a train request.

Invariants
- Every key is either sent or refused by name; none is ignored.
- Values are made plain JSON (numpy scalars too) and checked for type and finiteness only: what is allowed is the node's
  decision, and defaults are the node's, so that there is one place for each.

This module does not: know ranges, policies or budgets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pysytff.errors import ParameterError
from pysytff.names import nearest

KINDS: Mapping[str, type] = {
    "rounds": int,
    "clients_per_round": int,
    "noise_multiplier": float,
    "train_data_id": str,
    "label_data_id": str,
    "no_clients": int,
    "max_noise_multiplier": float,
    "clipping_norm": float,
    "mechanism": str,
    "loss": str,
    "local_epochs": int,
    "batch_size": int,
    "client_optimizer": str,
    "client_learning_rate": float,
    "client_momentum": float,
    "server_optimizer": str,
    "server_learning_rate": float,
    "server_momentum": float,
    "project": str,
    "purpose": str,
    "on_exceed": str,
}
REQUIRED = ("rounds", "clients_per_round", "noise_multiplier", "train_data_id", "label_data_id")
_SHOWN = 60  # characters of a value that a message repeats
_LARGEST_INTEGER = 2**53 - 1  # beyond it JSON numbers lose digits
_NAMED = {int: "an integer", float: "a number", str: "a string"}
_OTHER_NAMES = {
    "sigma": "noise_multiplier",
    "noise": "noise_multiplier",
    "clip": "clipping_norm",
    "l2_norm_clip": "clipping_norm",
    "epochs": "local_epochs",
    "lr": "client_learning_rate",
    "learning_rate": "client_learning_rate",
    "optimizer": "client_optimizer",
    "num_clients": "no_clients",
    "num_rounds": "rounds",
}


def request_body(params: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON body but for the model. Raises ``ParameterError`` with every problem found.

    Lists of ``train_data_id`` and ``label_data_id``, of the same length, join several datasets in one run.
    """
    problems: list[dict[str, str]] = []
    params, joined = _joined(params, problems)
    body: dict[str, Any] = {"joined": joined} if joined else {}
    for key, value in params.items():
        if key not in KINDS:
            other = _OTHER_NAMES.get(str(key))
            hint = f"did you mean {other!r}?" if other else nearest(key, KINDS).removeprefix("; ")
            problems.append({"path": f"params[{key!r}]", "message": "is no parameter of a training", "hint": hint})
            continue
        plain, message = _plain(value, KINDS[key])
        if message:
            problems.append({"path": f"params[{key!r}]", "message": message, "hint": f"give {_NAMED[KINDS[key]]}"})
        elif plain is not None:  # None says "the node's default"
            body[key] = plain
    for key in REQUIRED:
        if params.get(key) is None:
            problems.append({"path": f"params[{key!r}]", "message": "is missing", "hint": _missing(key)})
    if problems:
        raise ParameterError(problems)
    return body


def first_dataset(params: Mapping[str, Any]) -> object:
    """What ``train_data_id`` names; of several datasets the first, whose shape they all share."""
    value = params.get("train_data_id")
    return value[0] if isinstance(value, (list, tuple)) and value else value


def _joined(params: Mapping[str, Any], problems: list[dict[str, str]]) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The parameters of the first dataset, and the further ones as the node wants them."""
    single = dict(params)
    features, labels = single.get("train_data_id"), single.get("label_data_id")
    if not isinstance(features, (list, tuple)) and not isinstance(labels, (list, tuple)):
        return single, []
    columns: dict[str, list[str]] = {}
    for key, values in (("train_data_id", features), ("label_data_id", labels)):
        found = [_plain(value, str) for value in values] if isinstance(values, (list, tuple)) else []
        if not found or any(message or value is None for value, message in found):
            hint = "give a list of ids for both, in the same order"
            problems.append({"path": f"params[{key!r}]", "message": "does not name each dataset", "hint": hint})
            return single, []
        columns[key] = [str(value) for value, _ in found]
        single[key] = columns[key][0]
    if len(columns["train_data_id"]) != len(columns["label_data_id"]):
        hint = "one label_data_id for each train_data_id"
        problems.append({"path": "params['label_data_id']", "message": "is of another length", "hint": hint})
    pairs = zip(columns["train_data_id"][1:], columns["label_data_id"][1:], strict=False)
    return single, [{"train_data_id": one, "label_data_id": other} for one, other in pairs]


def _plain(value: object, kind: type) -> tuple[object, str]:
    """(JSON value, "") or (None, what is wrong)."""
    if isinstance(value, np.generic):
        value = value.item()
    value = getattr(value, "id", value) if kind is str else value  # an Asset, Dataset or Project names itself
    if value is None:
        return None, ""
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
        return None, f"is {_shown(value)}, not {_NAMED[kind]}"
    if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        return None, "is larger than any parameter can be"
    if isinstance(value, float) and not math.isfinite(value):
        return None, f"is {value}, not a finite number"
    return (str(value) if isinstance(value, str) else value), ""


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:  # repr itself refuses huge integers
        return "a huge integer"
    text = repr(value)
    return text if len(text) <= _SHOWN else type(value).__name__


def _missing(key: str) -> str:
    if key.endswith("_data_id"):
        return "such as domain.datasets[0]['images'].id_at_location.to_string()"
    return f"give {_NAMED[KINDS[key]]}"
