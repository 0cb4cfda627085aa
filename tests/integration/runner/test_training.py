"""What training does, against independent computations of DP-FedAvg: one in numpy, one by tff.learning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_federated as tff

import runner.training
from runner.errors import IncompatibleError
from runner.model_build import initial_weights
from runner.model_spec import ModelSpec
from runner.noise import Streams
from runner.port import TrainParameters
from runner.silos import Silos, read_declared
from runner.training import Trainer, build_clipped_sum
from tests.integration.runner.made_data import HANDLE, classified_units, parameters, spec_of, write_version

SEED = bytes(range(32))
DENSE = {"type": "dense", "name": "dense", "units": 3, "activation": "softmax"}

pytestmark = pytest.mark.usefixtures("tff_runtime")

Unit = tuple[npt.NDArray[Any], npt.NDArray[Any]]


class FileOrder(Streams):
    """Every unit's examples in the order of the file, so that another implementation sees the same batches."""

    def local(self, round_number: int) -> Any:
        class Still:
            def random(self, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
                return np.zeros(shape)  # the sort is stable

            def integers(self, *_: Any, size: tuple[int, ...], **__: Any) -> npt.NDArray[np.int32]:
                return np.zeros(size, np.int32)

        return Still()


def trainer_of(
    path: Path,
    units: Sequence[Unit],
    spec: ModelSpec,
    settings: TrainParameters,
    streams: Streams | None = None,
    slots: int = 2,
) -> Trainer:
    directory = write_version(path, HANDLE, units)
    computation = build_clipped_sum(spec, settings, read_declared(directory, "x", "y"))
    initial = initial_weights(spec, "run_1")
    silos = Silos(directory, "x", "y")
    return Trainer(spec, settings, computation, silos, streams or FileOrder(SEED), initial, slots=slots)


def clipped(update: Sequence[npt.NDArray[Any]], norm: float) -> list[npt.NDArray[np.float64]]:
    length = np.sqrt(sum(np.sum(np.square(part, dtype=np.float64)) for part in update))
    return [part.astype(np.float64) * min(1.0, norm / max(length, 1e-30)) for part in update]


def softmax_regression_update(
    unit: Unit, weights: Sequence[npt.NDArray[Any]], settings: TrainParameters
) -> list[npt.NDArray[np.float64]]:
    """Softmax regression by its closed-form gradient, in numpy."""
    kernel, bias = (weight.astype(np.float64) for weight in weights)
    velocity = [np.zeros_like(kernel), np.zeros_like(bias)]
    for _ in range(settings.local_epochs):
        for first in range(0, len(unit[0]), settings.batch_size):
            x, y = unit[0][first : first + settings.batch_size], unit[1][first : first + settings.batch_size]
            logits = x @ kernel + bias
            probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
            probabilities /= probabilities.sum(axis=1, keepdims=True)
            wrong = (probabilities - np.eye(3)[y]) / len(x)
            for i, gradient in enumerate((x.T @ wrong, wrong.sum(axis=0))):
                velocity[i] = settings.client_momentum * velocity[i] + gradient
            kernel -= settings.client_learning_rate * velocity[0]
            bias -= settings.client_learning_rate * velocity[1]
    return [kernel - weights[0], bias - weights[1]]


def test_the_sum_of_clipped_updates_is_that_of_an_independent_numpy_computation(tmp_path: Path) -> None:
    units = classified_units(7)
    settings = parameters(local_epochs=2, batch_size=4, client_momentum=0.5, clipping_norm=1.4)
    trainer = trainer_of(tmp_path, units, spec_of(DENSE), settings)
    cohort = np.array([0, 2, 3, 6])
    updates = [softmax_regression_update(units[u], trainer.weights, settings) for u in cohort]
    norms = [np.sqrt(sum((part**2).sum() for part in update)) for update in updates]
    assert min(norms) < settings.clipping_norm < max(norms)  # so that both kinds of unit are tested
    expected = [sum(parts) for parts in zip(*(clipped(update, 1.4) for update in updates), strict=True)]
    for want, got in zip(expected, trainer.sum_of_clipped_updates(0, cohort), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (spec_of({"type": "dense", "units": 8, "activation": "relu"}, DENSE), (6,)),
        (
            spec_of(
                {"type": "conv2d", "filters": 2, "kernel_size": 2, "activation": "relu"},
                {"type": "max_pooling2d", "pool_size": 2},
                {"type": "group_normalization", "groups": 1},
                {"type": "flatten"},
                DENSE,
                shape=(5, 5, 1),
            ),
            (5, 5, 1),
        ),
    ],
    ids=["dense", "convolutional"],
)
def test_a_round_without_noise_is_the_one_of_tff_learning(
    tmp_path: Path, spec: ModelSpec, shape: tuple[int, ...]
) -> None:
    random = np.random.default_rng(3)
    units = []
    for size in (1, 4, 6, 9):  # under, at, and over a batch
        labels = random.integers(0, 3, size)
        units.append((random.normal(size=(size, *shape)).astype(np.float32), labels))
    settings = parameters(local_epochs=2, batch_size=4, clipping_norm=0.3)
    trainer = trainer_of(tmp_path, units, spec, settings)

    initial = trainer.weights
    ours = trainer.sum_of_clipped_updates(0, np.arange(4))
    theirs = [4 * part for part in _tff_learning_mean(spec, settings, units, initial)]
    for want, got in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def _tff_learning_mean(
    spec: ModelSpec, settings: TrainParameters, units: Sequence[Unit], initial: Sequence[npt.NDArray[Any]]
) -> list[npt.NDArray[Any]]:
    """One round of TFF's own federated averaging with TFF's own clipping: the mean of the clients' clipped updates."""
    from runner.model_build import build

    datasets = [
        tf.data.Dataset.from_tensor_slices((x, y)).batch(settings.batch_size).repeat(settings.local_epochs)
        for x, y in units
    ]

    def model() -> Any:
        return tff.learning.models.from_keras_model(
            build(spec, seed=0),
            loss=tf.keras.losses.SparseCategoricalCrossentropy(),
            input_spec=datasets[0].element_spec,
        )

    process = tff.learning.algorithms.build_unweighted_fed_avg(
        model,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(settings.client_learning_rate),
        server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0),
        model_aggregator=tff.aggregators.clipping_factory(
            settings.clipping_norm, tff.aggregators.UnweightedMeanFactory()
        ),
    )
    start = tff.learning.models.ModelWeights(trainable=list(initial), non_trainable=[])
    state = process.set_model_weights(process.initialize(), start)
    after = process.get_model_weights(process.next(state, datasets).state).trainable
    return [b - a for a, b in zip(initial, after, strict=True)]


def test_no_unit_moves_the_sum_by_more_than_the_clipping_norm(tmp_path: Path) -> None:
    settings = parameters(client_learning_rate=50.0, local_epochs=3, clipping_norm=0.25)
    trainer = trainer_of(tmp_path, classified_units(6), spec_of(DENSE), settings)
    norms = []
    for unit in range(6):
        alone = trainer.sum_of_clipped_updates(0, np.array([unit]))
        norms.append(float(np.sqrt(sum(np.sum(part**2) for part in alone))))
    assert max(norms) <= 0.25
    assert min(norms) > 0.25 * (1 - 1e-6)  # at that learning rate, all of them were clipped


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_unit_whose_update_is_not_finite_counts_as_zero_and_changes_nobody_else(
    tmp_path: Path, poison: float
) -> None:
    units = classified_units(5)
    units[2][0][0] = poison
    trainer = trainer_of(tmp_path, units, spec_of(DENSE), parameters())
    with_it = trainer.sum_of_clipped_updates(0, np.arange(5))
    without = trainer.sum_of_clipped_updates(0, np.array([0, 1, 3, 4]))
    for want, got in zip(without, with_it, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("token_or_label", ["token", "label"])
@pytest.mark.parametrize("bad", [-1, 7, 2**31 - 1])
def test_a_token_or_class_that_does_not_exist_makes_its_units_update_zero_and_raises_nothing(
    tmp_path: Path, token_or_label: str, bad: int
) -> None:
    random = np.random.default_rng(0)
    units = [(random.integers(0, 7, (3, 4)).astype(np.int32), random.integers(0, 3, 3)) for _ in range(3)]
    units[1][0 if token_or_label == "token" else 1][0] = bad
    spec = spec_of(
        {"type": "embedding", "input_dim": 7, "output_dim": 2}, {"type": "flatten"}, DENSE, shape=(4,), dtype="int32"
    )
    trainer = trainer_of(tmp_path, units, spec, parameters())
    assert all(not part.any() for part in trainer.sum_of_clipped_updates(0, np.array([1])))
    with_it = trainer.sum_of_clipped_updates(0, np.arange(3))
    without = trainer.sum_of_clipped_updates(0, np.array([0, 2]))
    for want, got in zip(without, with_it, strict=True):
        assert want.any()
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


def test_a_units_update_does_not_depend_on_who_else_takes_part_or_on_how_the_work_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = classified_units(9)
    together = trainer_of(tmp_path / "a", units, spec_of(DENSE), parameters(), slots=1)
    apart = trainer_of(tmp_path / "b", units, spec_of(DENSE), parameters(), slots=3)
    whole = together.sum_of_clipped_updates(0, np.arange(9))
    one_by_one = [together.sum_of_clipped_updates(0, np.array([unit])) for unit in range(9)]
    monkeypatch.setattr(runner.training, "PIECE_BYTES", 1)  # a piece for each unit
    cut = apart.sum_of_clipped_updates(0, np.arange(9))
    for index, part in enumerate(whole):
        np.testing.assert_allclose(sum(alone[index] for alone in one_by_one), part, rtol=0, atol=1e-12)
        np.testing.assert_allclose(cut[index], part, rtol=0, atol=1e-12)


def test_an_enormous_but_finite_update_is_clipped_like_any_other(tmp_path: Path) -> None:
    units = classified_units(2)
    units[1][0][0] = 1e38  # its square overflows float32
    trainer = trainer_of(tmp_path, units, spec_of(DENSE), parameters(clipping_norm=0.25))
    alone = trainer.sum_of_clipped_updates(0, np.array([1]))
    assert 0.25 == pytest.approx(np.sqrt(sum(np.sum(part**2) for part in alone)), rel=1e-6)


def test_a_unit_without_examples_adds_nothing(tmp_path: Path) -> None:
    nothing = (np.zeros((0, 6), np.float32), np.zeros(0, np.int64))
    trainer = trainer_of(tmp_path, [*classified_units(2), nothing], spec_of(DENSE), parameters())
    assert all(not part.any() for part in trainer.sum_of_clipped_updates(0, np.array([2])))


class RecordingStreams(Streams):
    """Shows a test what the sampler tossed."""

    def __init__(self) -> None:
        super().__init__(SEED)
        self.noised_rounds: list[int] = []

    def noise(self, round_number: int) -> np.random.Generator:
        self.noised_rounds.append(round_number)
        return super().noise(round_number)


def test_what_was_sampled_and_noised_is_what_was_accounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads cohorts and noise off the real training, and tests them against the accounted probability and deviation."""
    settings = parameters(
        rounds=40, sampling_probability=0.3, expected_clients=12, noise_multiplier=1.7, clipping_norm=0.2
    )
    spec = spec_of({"type": "dense", "units": 20, "activation": "relu"}, DENSE)
    streams = RecordingStreams()
    trainer = trainer_of(tmp_path, classified_units(40), spec, settings, streams)
    cohorts, sums = [], []
    original = Trainer.sum_of_clipped_updates

    def recording(self: Trainer, round_number: int, cohort: npt.NDArray[np.int64]) -> Any:
        cohorts.append(cohort)
        total = original(self, round_number, cohort)
        sums.append([part.copy() for part in total])
        return total

    monkeypatch.setattr(Trainer, "sum_of_clipped_updates", recording)
    drawn = []
    for round_number in range(settings.rounds):
        before = [weight.copy() for weight in trainer._weights]
        trainer.run_round(round_number)
        for old, new, total in zip(before, trainer._weights, sums[-1], strict=True):
            drawn.append(((new - old) * settings.expected_clients - total).ravel())
    noise = np.concatenate(drawn)
    accounted = settings.noise_multiplier * settings.clipping_norm
    assert scipy.stats.kstest(noise, "norm", args=(0.0, accounted)).pvalue > 1e-4
    took_part = sum(len(cohort) for cohort in cohorts)
    assert scipy.stats.binomtest(took_part, 40 * settings.rounds, 0.3).pvalue > 1e-4
    sizes = {len(cohort) for cohort in cohorts}
    assert len(sizes) > 3  # a fixed size would be another mechanism
    assert list(range(settings.rounds)) == streams.noised_rounds


def test_a_round_that_samples_nobody_still_adds_noise(tmp_path: Path) -> None:
    settings = parameters(sampling_probability=1e-9, noise_multiplier=2.0)
    trainer = trainer_of(tmp_path, classified_units(3), spec_of(DENSE), settings)
    before = trainer.weights
    trainer.run_round(0)
    moved = np.concatenate([(b - a).ravel() for a, b in zip(before, trainer.weights, strict=True)])
    assert (moved != 0).all()


def test_rounds_are_reproducible_from_the_sealed_seed_and_differ_under_another(tmp_path: Path) -> None:
    spec = spec_of({"type": "dense", "units": 5}, {"type": "dropout", "rate": 0.5}, DENSE)
    ends = []
    for name, seed in (("a", SEED), ("b", SEED), ("c", SEED[::-1])):
        trainer = trainer_of(tmp_path / name, classified_units(8), spec, parameters(), Streams(seed))
        for round_number in range(2):
            trainer.run_round(round_number)
        ends.append(np.concatenate([weight.ravel() for weight in trainer.weights]))
    np.testing.assert_array_equal(ends[0], ends[1])
    assert not np.array_equal(ends[0], ends[2])


def test_dropout_drops_and_is_a_function_of_the_units_own_seed(tmp_path: Path) -> None:
    spec = spec_of({"type": "dropout", "rate": 0.5}, DENSE)
    trainer = trainer_of(tmp_path, classified_units(4), spec, parameters(), Streams(SEED))
    once = trainer.sum_of_clipped_updates(0, np.array([1]))
    again = trainer.sum_of_clipped_updates(0, np.array([1]))
    other = trainer.sum_of_clipped_updates(1, np.array([1]))
    np.testing.assert_array_equal(once[0], again[0])
    assert not np.array_equal(once[0], other[0])


@pytest.mark.parametrize(
    ("changes", "layers"),
    [
        ({"loss": "hinge"}, [DENSE]),
        ({"mechanism": "laplace"}, [DENSE]),
        ({"client_optimizer": "adam"}, [DENSE]),
        ({"loss": "categorical_crossentropy"}, [DENSE]),
        ({}, [{"type": "reshape", "target_shape": [2, 3]}, DENSE]),
    ],
)
def test_what_does_not_fit_the_declared_data_is_refused_before_any_data_is_opened(
    tmp_path: Path, changes: dict[str, Any], layers: list[dict[str, Any]]
) -> None:
    directory = write_version(tmp_path, HANDLE, classified_units(2))
    for name in ("x", "y", "offsets"):
        (directory / f"{name}.npy").unlink()
    with pytest.raises(IncompatibleError):
        build_clipped_sum(spec_of(*layers), parameters(**changes), read_declared(directory, "x", "y"))


@pytest.mark.parametrize(
    ("loss", "last", "label"),
    [
        ("binary_crossentropy", {"type": "dense", "units": 1, "activation": "sigmoid"}, np.float32(1)),
        ("mean_squared_error", {"type": "dense", "units": 1}, np.float32(0.3)),
        ("mean_absolute_error", {"type": "dense", "units": 1}, np.float32(0.3)),
    ],
)
def test_every_other_loss_trains_towards_its_labels(
    tmp_path: Path, loss: str, last: dict[str, Any], label: np.float32
) -> None:
    random = np.random.default_rng(0)
    units = [(random.normal(size=(8, 6)).astype(np.float32), np.full(8, label)) for _ in range(20)]
    settings = parameters(
        loss=loss, rounds=30, sampling_probability=1.0, expected_clients=20, noise_multiplier=0.1, clipping_norm=0.1
    )
    trainer = trainer_of(tmp_path, units, spec_of(last), settings)
    from runner.evaluation import evaluate

    holdout = Silos(tmp_path / "datasets" / HANDLE, "x", "y")
    before = evaluate(spec_of(last), loss, trainer.weights, holdout)["holdout_loss"]
    for round_number in range(settings.rounds):
        trainer.run_round(round_number)
    assert evaluate(spec_of(last), loss, trainer.weights, holdout)["holdout_loss"] < 0.7 * before


def test_the_result_type_of_a_piece_is_a_plain_sum_without_weights_or_metrics(tmp_path: Path) -> None:
    directory = write_version(tmp_path, HANDLE, classified_units(2))
    computation = build_clipped_sum(spec_of(DENSE), parameters(), read_declared(directory, "x", "y"))
    result = computation.type_signature.result
    assert tff.SERVER == result.placement
    assert [(np.float64, (6, 3)), (np.float64, (3,))] == [(t.dtype, tuple(t.shape)) for t in result.member]
