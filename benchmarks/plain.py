"""``python -m benchmarks.plain KIND FOLDER SEED``: the work of ``governed`` without PySyTFF's gate, as a script.

KIND: ``keras`` and ``functional`` are plain ``tff.learning`` with its own clipping and noise, as a researcher would
write it; ``ours`` is ``runner.training`` without worker, API and debits. It reads numbers of rounds from standard
input, one a line, and answers each with the seconds that its rounds took: whoever measures takes turns between scripts.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import workload
from runner.executor import Executor
from runner.silos import Silos

Round = Callable[[], None]


def main() -> None:
    kind, folder, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    run_round = _ours(folder) if kind == "ours" else _tff_learning(kind, folder, np.random.default_rng(seed))
    print("ready", flush=True)
    for line in sys.stdin:
        took = []
        for _ in range(int(line)):
            began = time.perf_counter()
            run_round()
            took.append(time.perf_counter() - began)
        print(json.dumps(took), flush=True)


def _tff_learning(kind: str, folder: Path, chance: np.random.Generator) -> Round:
    import tensorflow as tf
    import tensorflow_federated as tff

    silos = Silos(folder, "images", "labels")
    people = [silos.gather(np.array([unit])) for unit in range(silos.units)]
    slices = [tf.data.Dataset.from_tensor_slices((one.features, one.labels)) for one in people]
    datasets = [one.shuffle(16).batch(workload.BATCH) for one in slices]
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def network() -> Any:
        layers = [tf.keras.layers.Dense(64, activation="relu", input_shape=(64,)), tf.keras.layers.Dense(10)]
        return tf.keras.Sequential(layers)

    spec = datasets[0].element_spec
    if kind == "keras":
        model: Any = lambda: tff.learning.models.from_keras_model(network(), input_spec=spec, loss=loss)  # noqa: E731
    else:
        model = tff.learning.models.functional_model_from_keras(network(), loss, spec)
    process = tff.learning.algorithms.build_unweighted_fed_avg(
        model,
        tff.learning.optimizers.build_sgdm(workload.CLIENT_RATE),
        tff.learning.optimizers.build_sgdm(workload.SERVER_RATE),
        model_aggregator=tff.aggregators.DifferentiallyPrivateFactory.gaussian_fixed(
            workload.NOISE, float(workload.COHORT), workload.CLIPPING_NORM
        ),
    )
    state = process.initialize()

    def run_round() -> None:
        nonlocal state
        cohort = np.flatnonzero(chance.random(workload.UNITS) < workload.COHORT / workload.UNITS)
        state = process.next(state, [datasets[unit] for unit in cohort]).state

    return run_round


def _ours(folder: Path) -> Round:
    executor = Executor.start(sys.stderr.fileno())  # before TensorFlow is loaded, as the job does

    from runner.model_build import initial_weights
    from runner.model_spec import parse
    from runner.noise import Streams
    from runner.silos import read_declared
    from runner.training import Trainer, build_clipped_sum, use_executor

    spec, parameters = parse(workload.MODEL), workload.parameters()
    clipped_sum = build_clipped_sum(spec, parameters, read_declared(folder, "images", "labels"))
    executor.wait_ready()
    use_executor(executor)
    silos, slots = Silos(folder, "images", "labels"), len(os.sched_getaffinity(0))
    trainer = Trainer(spec, parameters, clipped_sum, silos, Streams(), initial_weights(spec, "plain"), slots=slots)
    done = 0

    def run_round() -> None:
        nonlocal done
        trainer.run_round(done)
        done += 1

    return run_round


if __name__ == "__main__":
    main()
