"""The announcement's call: train a model under the node's policy and budget, and get it with its metrics.

This module does not: import TensorFlow. The model is whatever ``model_fn`` builds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from pysytff import keras
from pysytff.domain import Domain
from pysytff.errors import ParameterError
from pysytff.params import request_body

__all__ = ["train_model"]


def train_model(
    model_fn: Callable[[], Any],
    params: Mapping[str, Any],
    domain: Domain,
    timeout: float | None = 5000,
    *,
    progress: bool = True,
) -> tuple[Any, dict[str, Any]]:
    """Submits, waits up to ``timeout`` seconds (None: as long as it takes), and returns (Keras model, metrics).

    The model is built anew by ``model_fn`` and gets the run's weights; ``metrics`` are those of the public hold-out,
    and ``metrics['privacy']`` is the privacy statement. ``params`` are the fields of a train request. Initial weights
    are not sent: training starts from fresh ones.

    Warns ``ClampedWarning`` where the node made a parameter stricter. Raises ``RequestRefusedError`` with its reasons;
    ``RunTimeoutError`` when the time is over (the run goes on, and the error says how to continue); ``RunEndedError``
    where the run ended without a result; ``RunLeftRunning`` on Ctrl-C; and what ``Domain.submit`` raises.
    """
    if timeout is not None and not (isinstance(timeout, (int, float)) and math.isfinite(timeout) and timeout > 0):
        problem = {"path": "timeout", "message": f"is {timeout!r}", "hint": "seconds above 0, or None to wait on"}
        raise ParameterError([problem])
    request_body(params)  # first, because it is cheap and building a model may not be
    document = domain.model_document(model_fn, params)
    run = domain.submit(document, params, stacklevel=3)
    result = run.watch(timeout, progress=progress).result()
    model = model_fn()
    keras.ensure_input(model, document["input"]["shape"])
    return result.load_into(model), {**result.metrics, "privacy": dict(result.privacy)}
