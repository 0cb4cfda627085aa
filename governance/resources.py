"""Bounds on what a run may need of the runner's host, from declared facts alone. Pure.

A run that ends for want of memory or time, for one person's data and not for another's, tells who is in it without any
noise (privacy rule 10). So what could exhaust a host is refused before it starts: every person is assumed to have as
many examples as the dataset's registration allows.

This module does not: measure anything, or know the runner's host. The bounds fit a host with 8 GB of memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from governance.model import Asset, Dataset, Reason, TrainRequest
from runner.model_spec import ModelSpec

MAX_STEP_ACTIVATIONS = 250_000_000  # numbers that one local step holds: 1 GB, about three with its gradients
MAX_RUN_OPERATIONS = 200_000_000_000_000  # of the expected run: well within a day on two cores
MAX_UNIT_BYTES = 2**30  # one person's examples travel to TFF's runtime in one message, which holds 2 GB
_STEP_OVERHEAD = 2_000_000  # operations that a step costs, however small the model is
_PASSES = 3  # forward, and backward twice as much
_ITEM_BYTES = {"float32": 4, "float64": 8, "int32": 4, "int64": 8, "uint8": 1}


def exceeded(request: TrainRequest, spec: ModelSpec, datasets: Sequence[Dataset]) -> Reason | None:
    """Why the request could exhaust a runner; None if it cannot. A person may have examples in every dataset."""
    examples = sum(dataset.max_examples_per_unit for dataset in datasets)
    rows = min(request.batch_size, examples)
    held = spec.activations * rows
    if held > MAX_STEP_ACTIVATIONS:
        text = (
            f"one local step of {rows} examples would hold {held:,} numbers; at most {MAX_STEP_ACTIVATIONS:,} are "
            "safe: use a smaller batch_size or smaller layers"
        )
        return Reason("step_too_large", text, "system", "batch_size")
    steps = math.ceil(examples / request.batch_size)
    of_unit = request.local_epochs * (_PASSES * spec.operations * examples + steps * _STEP_OVERHEAD)
    if of_unit * request.clients_per_round * request.rounds > MAX_RUN_OPERATIONS:
        text = "the run could take longer than a day: ask for fewer rounds, clients per round or local epochs"
        return Reason("run_too_long", text, "system", "rounds")
    return None


def unit_bytes(assets: Sequence[Asset], max_examples_per_unit: int) -> int:
    """The most that one person's examples can take."""
    return max_examples_per_unit * sum(_ITEM_BYTES[asset.dtype] * math.prod(asset.shape) for asset in assets)
