"""The child process of one grant: trains, and says what it did over a pipe. ``python -m runner.job``, by the worker
only.

The steps:
(1) it makes itself private: umask, a network of its own, death with its parent;
(2) it reads its grant and the directories of its data, which is all that it is told about the world;
(3) it builds the computation from declared facts; a run that cannot work ends here, with nothing debited or opened;
(4) it asks for a batch of rounds to be debited, and goes on only if they may run: before the first permission, no
    data is opened, and before each, no coin of those rounds is tossed; versions that the grant joins become one after
    the first, in the scratch directory, and lose their names there as soon as they are mapped;
(5) it trains them, and reports how many are done;
(6) it evaluates on the public hold-out, writes the weights to its scratch directory, and says so.

Invariants
- Nothing computed from private data without noise is said over the pipe. Errors go to the operator's log; the worker
  only hears that the job failed.
- The sealed seed lives in this process and dies with it, so no round is ever run twice.
- stdout and stderr are a log; the port is two inherited file descriptors.

This module does not: hold a credential, know a database, or reach a network.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from runner.errors import DebitRefusedError, PortError
from runner.executor import Executor, die_with_parent
from runner.isolation import enter_private_network
from runner.joined import FEATURES, LABELS, check_joinable, join
from runner.model_spec import ModelSpec, parse
from runner.noise import GENERATOR, Streams
from runner.pipe import Pipe, expect, field
from runner.port import DataGrant, Grant
from runner.silos import Declared, Silos, read_declared, require_private, require_public

WEIGHTS_FILE: Final = "weights.safetensors"
MAX_SLOTS: Final = 8


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m runner.job", description="Started by the worker, once per grant.")
    parser.add_argument("--read-fd", type=int, required=True, help="where the worker's messages come from")
    parser.add_argument("--write-fd", type=int, required=True, help="where the job's messages go")
    parser.add_argument("--parent", type=int, required=True, help="the worker's process id: the job dies with it")
    options = parser.parse_args(arguments)
    os.umask(0o077)  # (1)
    private = enter_private_network()
    die_with_parent(options.parent)
    for fd in (options.read_fd, options.write_fd):
        os.set_inheritable(fd, False)
    pipe = Pipe(options.read_fd, options.write_fd)
    pipe.send("ready", private_network=private)
    try:
        return _run(pipe)
    except Exception:
        # The last line of defence: the text is private, the fact is not.
        traceback.print_exc(file=sys.stderr)
        pipe.send("failed")
        return 1


def _run(pipe: Pipe) -> int:
    start = expect(pipe.receive(), "start")  # (2)
    grant = Grant.from_json(field(start, "grant", dict))
    versions = [Path(directory) for directory in (field(start, "training", str), *field(start, "joined", list))]
    scratch = Path(field(start, "scratch", str))
    holdout = Path(start["holdout"]) if start.get("holdout") is not None else None
    executor = Executor.start(sys.stderr.fileno())  # while there is one thread; it starts while TensorFlow is loaded
    executor.end_us_if_it_ends()
    try:
        _train(pipe, grant, parse(grant.model), executor, versions, holdout, scratch)
    finally:
        executor.stop()
    return 0


def _train(
    pipe: Pipe,
    grant: Grant,
    spec: ModelSpec,
    executor: Executor,
    versions: Sequence[Path],
    holdout: Path | None,
    scratch: Path,
) -> None:
    # Only here, so that the process above is small and has one thread: these load TensorFlow.
    from safetensors.numpy import save_file

    from runner.evaluation import evaluate
    from runner.model_build import initial_weights
    from runner.training import Trainer, build_clipped_sum, check_compatible, use_executor

    data, parameters = grant.data, grant.parameters
    clipped_sum = build_clipped_sum(spec, parameters, _declared(versions, data))  # (3)
    if holdout is not None:
        require_public(holdout)
        check_compatible(spec, parameters, read_declared(holdout, data.features, data.labels))
    initial = initial_weights(spec, grant.run_id)
    executor.wait_ready()
    use_executor(executor)
    trainer: Trainer | None = None
    for first in range(0, parameters.rounds, grant.rounds_per_debit):
        rounds = min(grant.rounds_per_debit, parameters.rounds - first)
        _debit(pipe, first, rounds)  # (4)
        if trainer is None:
            silos = _open(versions, data, scratch)
            trainer = Trainer(spec, parameters, clipped_sum, silos, Streams(), initial, slots=_slots())
        for round_number in range(first, first + rounds):  # (5)
            trainer.run_round(round_number)
            pipe.send("progress", rounds_done=round_number + 1)
    if trainer is None:
        raise PortError("a grant without rounds")
    weights = trainer.weights
    metrics: dict[str, float] = {}
    if holdout is not None:  # (6)
        metrics = evaluate(spec, parameters.loss, weights, Silos(holdout, data.features, data.labels))
    named: dict[str, Any] = {name: weight for (name, _), weight in zip(spec.weights(), weights, strict=True)}
    save_file(named, scratch / WEIGHTS_FILE)
    pipe.send("finished", rounds=parameters.rounds, weights=WEIGHTS_FILE, public_metrics=metrics, generator=GENERATOR)


def _declared(versions: Sequence[Path], data: DataGrant) -> Declared:
    """From manifests alone: a run that cannot work has touched nothing."""
    if len(versions) != len(data.version_handles):
        raise PortError("the directories are not those of the granted versions")
    if data.joined:
        return check_joinable(versions, data)
    require_private(versions[0])
    return read_declared(versions[0], data.features, data.labels)


def _open(versions: Sequence[Path], data: DataGrant, scratch: Path) -> Silos:
    if not data.joined:
        return Silos(versions[0], data.features, data.labels, data.max_examples_per_unit)
    together = scratch / "joined"
    join(versions, data, together)
    silos = Silos(together, FEATURES, LABELS)
    # Mapped files need no name: however this process ends, nothing of them stays.
    shutil.rmtree(together)
    return silos


def _debit(pipe: Pipe, first_round: int, rounds: int) -> None:
    pipe.send("debit", first_round=first_round, rounds=rounds)
    if not field(expect(pipe.receive(), "debit_answer"), "permitted", bool):
        raise DebitRefusedError(first_round, rounds)


def _slots() -> int:
    return min(MAX_SLOTS, len(os.sched_getaffinity(0)))


if __name__ == "__main__":
    sys.exit(main())
