"""DP-FedAvg with TFF: training, clipping and summing in TFF's runtime; sampling, noise and server step on the host.

One round:
(1) the cohort is drawn: every unit of the pool independently;
(2) each unit trains from the public weights on its own examples; its update is trained minus initial weights;
(3) an update that is not finite, or whose examples are out of range, becomes zero, for this unit alone;
(4) the whole update, over all tensors at once, is scaled to at most ``clipping_norm`` in L2;
(5) the updates are summed, unweighted;
(6) Gaussian noise of standard deviation ``noise_multiplier · clipping_norm`` is added to the sum, whoever took part;
(7) the noised sum is divided by ``expected_clients``, whoever took part, and the server optimizer applies it.

Invariants
- Steps 3 to 7 are in float64, so that rounding cannot push an update past the norm that was accounted; ``_MARGIN``
  covers the rounding of the computed norm.
- Each unit's update is a function of its own examples, the public weights and its own randomness. Units share no
  batch.
- A batch holds a unit's examples and nothing else: the last one of an epoch is shorter, never padded.
- Only a noised sum leaves ``Trainer``.

A TFF client is here a slot of the host that trains several units, one after another: how many slots there are changes
speed and the order of a float64 sum, and nothing else. This module does not: debit, publish, read files.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any, Final

import grpc  # type: ignore[import-untyped]  # TFF's dependency; its stubs are a package that nothing else needs
import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_federated as tff

from runner.errors import IncompatibleError
from runner.executor import Executor
from runner.model_build import forward, token_limit
from runner.model_spec import ModelSpec
from runner.noise import Float64Array, Streams, gaussian
from runner.port import TrainParameters
from runner.server_step import server_optimizer
from runner.silos import Declared, Examples, Sampler, Silos

MECHANISM: Final = "gaussian_fixed_clipping"
PIECE_BYTES: Final = 32 * 2**20  # of examples per slot and call: what a round holds in memory at once
_MARGIN: Final = 1.0 - 2.0**-30  # the norm of 2·10⁷ numbers is computed to within 1e-9 in float64
_MESSAGE_BYTES: Final = 2 * 1000**3

Weights = list[npt.NDArray[np.float32]]

SPARSE: Final = "sparse_categorical_crossentropy"
_REGRESSION: Final = frozenset({"mean_squared_error", "mean_absolute_error"})
LOSSES: Final = {
    SPARSE: tf.keras.losses.sparse_categorical_crossentropy,
    "categorical_crossentropy": tf.keras.losses.categorical_crossentropy,
    "binary_crossentropy": tf.keras.losses.binary_crossentropy,
    "mean_squared_error": tf.keras.losses.mean_squared_error,
    "mean_absolute_error": tf.keras.losses.mean_absolute_error,
}


def use_executor(executor: Executor) -> None:
    """Makes a ``worker_binary`` that we own TFF's runtime for this process."""
    limits = [(f"grpc.max_{way}message_length", _MESSAGE_BYTES) for way in ("", "receive_", "send_")]
    channel = grpc.insecure_channel(f"localhost:{executor.port}", limits)
    grpc.channel_ready_future(channel).result(timeout=60)
    stub = tff.framework.RemoteExecutorGrpcStub(channel)

    def stack(cardinalities: dict[Any, int]) -> Any:
        cardinalities.setdefault(tff.CLIENTS, 0)
        remote = tff.framework.RemoteExecutor(stub)
        remote.set_cardinalities(cardinalities)
        return remote

    context = tff.framework.SyncExecutionContext(
        executor_fn=tff.framework.ResourceManagingExecutorFactory(stack),
        compiler_fn=tff.backends.native.desugar_and_transform_to_native,
        transform_args=tff.tensorflow.transform_args,
        transform_result=tff.tensorflow.transform_result,
    )
    tff.framework.set_default_context(context)


def check_compatible(spec: ModelSpec, parameters: TrainParameters, declared: Declared) -> None:
    """Declared facts only, before anything is debited. Raises ``IncompatibleError``."""
    loss, shape = parameters.loss, declared.label_shape
    if parameters.mechanism != MECHANISM:
        raise IncompatibleError(f"unknown mechanism {parameters.mechanism!r}")
    if parameters.client_optimizer != "sgd":
        raise IncompatibleError(f"unknown client optimizer {parameters.client_optimizer!r}")
    if loss not in LOSSES:
        raise IncompatibleError(f"unknown loss {loss!r}")
    if declared.feature_shape != spec.input_shape:
        raise IncompatibleError(f"the model reads {spec.input_shape}, the data has {declared.feature_shape}")
    if loss == SPARSE:
        if shape != spec.output_shape[:-1] or declared.label_dtype.kind not in "iub":
            raise IncompatibleError(f"{loss} needs integer labels of shape {spec.output_shape[:-1]}, not {shape}")
    elif shape != spec.output_shape and (*shape, 1) != spec.output_shape:
        raise IncompatibleError(f"{loss} needs labels of shape {spec.output_shape}, not {shape}")


def example_losses(spec: ModelSpec, loss: str, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """[batch]: the mean over whatever one example predicts. Sparse labels must lie in range."""
    if loss != SPARSE:
        labels = tf.reshape(tf.cast(labels, outputs.dtype), tf.shape(outputs))
    options = {} if loss in _REGRESSION else {"from_logits": not spec.outputs_probabilities}
    losses = LOSSES[loss](labels, outputs, **options)
    return tf.reduce_mean(tf.reshape(losses, (tf.shape(outputs)[0], -1)), axis=1)


def in_range(spec: ModelSpec, loss: str, features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """For each example, whether its tokens and its class exist. An op that raised would be an oracle without
    noise.
    """
    good = tf.ones(tf.shape(features)[:1], tf.bool)
    if (tokens := token_limit(spec)) is not None:
        good &= _all_within(features, tokens)
    if loss == SPARSE:
        good &= _all_within(labels, spec.output_shape[-1])
    return good


def _all_within(values: tf.Tensor, limit: int) -> tf.Tensor:
    flat = tf.reshape(values, (tf.shape(values)[0], values.shape[1:].num_elements()))
    return tf.reduce_all((flat >= 0) & (flat < limit), axis=1)


def clip(update: Sequence[tf.Tensor], usable: tf.Tensor, clipping_norm: float) -> list[tf.Tensor]:
    """Steps (3) and (4) for one unit: float64, norm at most ``clipping_norm``; zero if not ``usable`` or not
    finite.
    """
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(part)) for part in update])
    # where, not a product: 0 · NaN is NaN.
    kept = [tf.where(usable & finite, tf.cast(part, tf.float64), tf.zeros_like(part, tf.float64)) for part in update]
    norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(part)) for part in kept]))
    bound = tf.constant(clipping_norm * _MARGIN, tf.float64)
    scale = tf.where(norm > bound, bound / norm, tf.ones_like(norm))
    return [part * scale for part in kept]


def client_update(
    spec: ModelSpec, parameters: TrainParameters, weights: Sequence[tf.Tensor], unit: Mapping[str, tf.Tensor]
) -> list[tf.Tensor]:
    """Step (2) for one unit: plain SGD with momentum over its batches; trained minus initial weights, float32.

    ``unit``: all features and labels of the piece, and ``order`` [epochs, examples of the unit], whose rows say in
    which order each epoch reads this unit's rows; ``seed`` int32 [2] is the unit's own.
    """
    examples = tf.shape(unit["order"])[1]
    batch_size = parameters.batch_size
    batches = (examples + batch_size - 1) // batch_size
    rate, momentum = parameters.client_learning_rate, parameters.client_momentum

    def batch(step: tf.Tensor, current: Sequence[tf.Tensor], velocity: Sequence[tf.Tensor]) -> tuple[Any, ...]:
        start = (step % batches) * batch_size
        rows = unit["order"][step // batches, start : start + batch_size]
        features, labels = tf.gather(unit["features"], rows), tf.gather(unit["labels"], rows)
        with tf.GradientTape() as tape:
            tape.watch(current)
            seed = tf.random.experimental.stateless_fold_in(unit["seed"], step)
            outputs = forward(spec, current, features, seed)
            loss = tf.reduce_mean(example_losses(spec, parameters.loss, labels, outputs))
        gradients = tape.gradient(loss, current, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        velocity = [momentum * v + tf.convert_to_tensor(g) for v, g in zip(velocity, gradients, strict=True)]
        return step + 1, [w - rate * v for w, v in zip(current, velocity, strict=True)], velocity

    _, trained, _ = tf.while_loop(
        lambda step, *_: step < batches * parameters.local_epochs,
        batch,
        (tf.constant(0), list(weights), [tf.zeros_like(w) for w in weights]),
        parallel_iterations=1,
    )
    return [after - before for after, before in zip(trained, weights, strict=True)]


def build_clipped_sum(spec: ModelSpec, parameters: TrainParameters, declared: Declared) -> Any:
    """The TFF computation of steps (2) to (5): (weights@SERVER, pieces@CLIENTS) → sum of clipped updates@SERVER.

    It needs declared facts only, so that a run which cannot work ends before anything is debited or opened. Raises
    ``IncompatibleError``.
    """
    check_compatible(spec, parameters, declared)
    weights_type = tff.to_type([tff.TensorType(np.float32, shape) for _, shape in spec.weights()])
    label_dtype = np.int64 if parameters.loss == SPARSE else np.float32
    piece_type = tff.to_type(
        collections.OrderedDict(
            features=tff.TensorType(np.dtype(spec.input_dtype).type, [None, *spec.input_shape]),
            labels=tff.TensorType(label_dtype, [None, *declared.label_shape]),
            offsets=tff.TensorType(np.int64, [None]),
            order=tff.TensorType(np.int64, [parameters.local_epochs, None]),
            seeds=tff.TensorType(np.int32, [None, 2]),
        )
    )

    def sum_of_piece(weights: Sequence[tf.Tensor], piece: Mapping[str, tf.Tensor]) -> list[tf.Tensor]:
        good = in_range(spec, parameters.loss, piece["features"], piece["labels"])
        features, labels = piece["features"], piece["labels"]
        # Only so that no op raises: the updates of units that own such an example are zero.
        if (tokens := token_limit(spec)) is not None:
            features = tf.clip_by_value(features, 0, tokens - 1)
        if parameters.loss == SPARSE:
            labels = tf.clip_by_value(labels, 0, spec.output_shape[-1] - 1)

        def add_unit(index: tf.Tensor, total: Sequence[tf.Tensor]) -> tuple[Any, ...]:
            start, end = piece["offsets"][index], piece["offsets"][index + 1]
            order = piece["order"][:, start:end]
            unit = {"features": features, "labels": labels, "order": order, "seed": piece["seeds"][index]}
            update = client_update(spec, parameters, weights, unit)
            clipped = clip(update, tf.reduce_all(good[start:end]), parameters.clipping_norm)
            return index + 1, [t + c for t, c in zip(total, clipped, strict=True)]

        units = tf.shape(piece["seeds"])[0]
        zeros = [tf.zeros(shape, tf.float64) for _, shape in spec.weights()]
        start = (tf.constant(0), zeros)
        total: list[tf.Tensor] = tf.while_loop(lambda i, _: i < units, add_unit, start, parallel_iterations=1)[1]
        return total

    def clipped_sum_of_piece(weights: Any, piece: Any) -> Any:
        # A tf.function, so that its loops are functional: TFF traces into a version 1 graph.
        return tf.function(sum_of_piece)(list(weights), dict(piece))

    on_client = tff.tensorflow.computation(clipped_sum_of_piece, weights_type, piece_type)

    def clipped_sum(weights: Any, pieces: Any) -> Any:
        at_clients = tff.federated_broadcast(weights)
        return tff.federated_sum(tff.federated_map(on_client, (at_clients, pieces)))

    placed = (tff.FederatedType(weights_type, tff.SERVER), tff.FederatedType(piece_type, tff.CLIENTS))
    return tff.federated_computation(clipped_sum, *placed)


class Trainer:
    """One run's training. ``clipped_sum`` is what ``build_clipped_sum`` returned."""

    def __init__(
        self,
        spec: ModelSpec,
        parameters: TrainParameters,
        clipped_sum: Any,
        silos: Silos,
        streams: Streams,
        initial: Weights,
        *,
        slots: int,
    ) -> None:
        self._spec, self._parameters, self._silos, self._streams = spec, parameters, silos, streams
        self._slots = slots
        self._weights = [np.asarray(weight, dtype=np.float64) for weight in initial]
        self._optimizer = server_optimizer(parameters)
        self._clipped_sum = clipped_sum
        self._sampler = Sampler(
            silos.units,
            streams,
            pool_probability=parameters.pool_probability,
            sampling_probability=parameters.sampling_probability,
        )

    @property
    def weights(self) -> Weights:
        """They have seen noised sums only."""
        return [weight.astype(np.float32) for weight in self._weights]

    def run_round(self, round_number: int) -> None:
        """Steps (1) to (7). The round must have been debited, for this process."""
        p = self._parameters
        cohort = self._sampler.cohort(round_number)
        total = self.sum_of_clipped_updates(round_number, cohort)
        shapes = [part.shape for part in total]
        noise = gaussian(self._streams.noise(round_number), shapes, p.noise_multiplier * p.clipping_norm)
        average = [(part + drawn) / p.expected_clients for part, drawn in zip(total, noise, strict=True)]
        self._optimizer.step(self._weights, average)

    def sum_of_clipped_updates(self, round_number: int, cohort: npt.NDArray[np.int64]) -> list[Float64Array]:
        """Private: not noised yet."""
        local = self._streams.local(round_number)
        total = [np.zeros(weight.shape, dtype=np.float64) for weight in self._weights]
        weights = self.weights
        waiting: list[dict[str, Any]] = []
        share = -(-len(cohort) // self._slots)
        parts = [cohort[first : first + share] for first in range(0, len(cohort), max(share, 1))]
        for part in parts:
            for examples in self._silos.pieces(part, PIECE_BYTES):
                waiting.append(self._piece(examples, local))
                if len(waiting) == self._slots:
                    _add(total, self._clipped_sum(weights, waiting))
                    waiting = []
        if waiting:
            # Always the same number of TFF clients: another one would make TFF prepare everything again.
            empty = self._piece(self._silos.gather(cohort[:0]), local)
            _add(total, self._clipped_sum(weights, waiting + [empty] * (self._slots - len(waiting))))
        return total

    def _piece(self, examples: Examples, local: np.random.Generator) -> dict[str, Any]:
        units, rows = examples.units, len(examples.features)
        owner = np.repeat(np.arange(units, dtype=np.float64), np.diff(examples.offsets))
        # Sorting by owner plus a uniform number shuffles within each unit and nowhere else.
        order = np.argsort(owner + local.random((self._parameters.local_epochs, rows)), axis=1, kind="stable")
        label_dtype = np.int64 if self._parameters.loss == SPARSE else np.float32
        return collections.OrderedDict(
            features=examples.features.astype(self._spec.input_dtype, copy=False),
            labels=examples.labels.astype(label_dtype, copy=False),
            offsets=examples.offsets,
            order=order.astype(np.int64, copy=False),
            seeds=local.integers(-(2**31), 2**31, size=(units, 2), dtype=np.int32),
        )


def _add(total: list[Float64Array], parts: Any) -> None:
    for into, part in zip(total, parts, strict=True):
        into += part
