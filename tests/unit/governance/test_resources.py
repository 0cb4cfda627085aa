"""What could exhaust a runner is refused from declared facts, whoever is in the data."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from governance.model import Asset, Dataset, TrainRequest
from governance.resources import MAX_UNIT_BYTES, exceeded, unit_bytes
from runner.model_spec import ModelSpec, parse

ASSETS = (Asset("ast_x", "images", "float32", (64,)), Asset("ast_y", "digit", "int64", (), "", 0, 9))
DATASET = Dataset(
    "dat_1", "pop_1", "d", "", "digits", 1, "ver_" + "0" * 24, None, 1000, ASSETS, datetime(2026, 1, 1, tzinfo=UTC)
)
REQUEST = TrainRequest(
    rounds=100,
    clients_per_round=60,
    noise_multiplier=2.0,
    train_data_id="ast_x",
    label_data_id="ast_y",
    model={},
)


def spec(*layers: dict[str, Any]) -> ModelSpec:
    document = {"schema": "pysytff.model/1", "input": {"shape": [64]}, "layers": list(layers)}
    return parse(document)


SMALL = spec({"type": "dense", "units": 10})
# Within the vocabulary's bounds for one example, and gigabytes for a batch of a thousand.
WIDE = spec(
    {"type": "dense", "units": 60_000},
    *({"type": "activation", "activation": "relu"} for _ in range(10)),
    {"type": "dense", "units": 10},
)


def code(request: TrainRequest, model: ModelSpec, dataset: Dataset = DATASET) -> str | None:
    reason = exceeded(request, model, [dataset])
    return None if reason is None else reason.code


def test_a_sensible_run_is_within_bounds() -> None:
    assert code(REQUEST, SMALL) is None


def test_a_step_that_could_exhaust_memory_is_refused_whoever_has_how_many_rows() -> None:
    assert code(replace(REQUEST, batch_size=1024), WIDE) == "step_too_large"
    assert code(replace(REQUEST, batch_size=1024), WIDE, replace(DATASET, max_examples_per_unit=10)) is None


def test_a_batch_holds_at_most_what_one_person_may_have() -> None:
    assert code(replace(REQUEST, batch_size=1024, rounds=1), SMALL, replace(DATASET, max_examples_per_unit=2)) is None


def test_a_run_that_could_outlast_the_runners_patience_is_refused() -> None:
    assert code(replace(REQUEST, rounds=10_000_000, batch_size=1), SMALL) == "run_too_long"


def test_one_persons_examples_are_counted_over_all_columns() -> None:
    assert 1000 * (64 * 4 + 8) == unit_bytes(ASSETS, 1000)
    assert unit_bytes(ASSETS, 10**7) > MAX_UNIT_BYTES
