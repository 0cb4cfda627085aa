"""Training on versions that are joined is training on the whole: real files, real TFF, and a real job."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load

from runner.joined import FEATURES, LABELS, check_joinable, join
from runner.model_build import initial_weights
from runner.noise import Streams
from runner.port import DataGrant, DebitAnswer, JoinedData
from runner.silos import Silos, read_declared
from runner.training import Trainer, build_clipped_sum
from runner.worker import Worker, WorkerSettings
from tests.integration.runner.made_data import classified_units, grant, ingested, parameters, spec_of
from tests.integration.runner.test_job_and_worker import RecordingGovernor

DENSE = {"type": "dense", "name": "dense", "units": 3, "activation": "softmax"}
SETTINGS = parameters(
    rounds=3, sampling_probability=1.0, expected_clients=15, local_epochs=2, client_momentum=0.5, clipping_norm=0.4
)
Weights = Sequence[npt.NDArray[Any]]


class Noiseless(Streams):
    """No noise, and every unit's examples in the order of the file: so that two runs can be compared."""

    def noise(self, round_number: int) -> Any:
        class Silent:
            def standard_normal(self, shape: tuple[int, ...], dtype: type) -> npt.NDArray[Any]:
                return np.zeros(shape, dtype)

        return Silent()

    def local(self, round_number: int) -> Any:
        class Still:
            def random(self, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
                return np.zeros(shape)  # the sort is stable

            def integers(self, *_: Any, size: tuple[int, ...], **__: Any) -> npt.NDArray[np.int32]:
                return np.zeros(size, np.int32)

        return Still()


class People:
    """Fifteen people of one to nine rows, as columns whose rows are mixed."""

    def __init__(self) -> None:
        units = classified_units(15)
        who = np.concatenate([np.full(len(x), person) for person, (x, _) in enumerate(units)])
        mixed = np.random.default_rng(2).permutation(len(who))
        self.who = who[mixed]
        self.x = np.concatenate([x for x, _ in units])[mixed]
        self.y = np.concatenate([y for _, y in units])[mixed]

    def version(self, root: Path, rows: npt.NDArray[np.bool_] | None = None) -> str:
        chosen = np.ones(len(self.who), bool) if rows is None else rows
        return ingested(root, self.who[chosen].tolist(), self.x[chosen], self.y[chosen])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def granted(handles: Sequence[str], caps: Sequence[int] = (100, 100)) -> DataGrant:
    joined = tuple(JoinedData(handle, "x", "y", cap) for handle, cap in zip(handles[1:], caps[1:], strict=False))
    return replace(grant().data, version_handle=handles[0], max_examples_per_unit=caps[0], joined=joined)


def trained(root: Path, into: Path, data: DataGrant) -> Weights:
    directories = [root / "datasets" / handle for handle in data.version_handles]
    spec = spec_of(DENSE)
    if data.joined:
        declared = check_joinable(directories, data)
        join(directories, data, into)
        silos = Silos(into, FEATURES, LABELS)
    else:
        declared = read_declared(directories[0], "x", "y")
        silos = Silos(directories[0], "x", "y", data.max_examples_per_unit)
    computation = build_clipped_sum(spec, SETTINGS, declared)
    streams = Noiseless(bytes(32))
    trainer = Trainer(spec, SETTINGS, computation, silos, streams, initial_weights(spec, "run_1"), slots=2)
    for round_number in range(SETTINGS.rounds):
        trainer.run_round(round_number)
    return trainer.weights


def assert_same(expected: Weights, found: Weights) -> None:
    for want, got in zip(expected, found, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def assert_different(one: Weights, other: Weights) -> None:
    assert max(np.abs(a - b).max() for a, b in zip(one, other, strict=True)) > 1e-3


@pytest.mark.usefixtures("tff_runtime")
def test_versions_that_split_the_people_train_the_model_of_the_whole(root: Path, tmp_path: Path) -> None:
    people = People()
    whole = trained(root, tmp_path / "none", granted([people.version(root)]))
    some = people.who < 6
    split = [people.version(root, some), people.version(root, ~some)]
    assert_same(whole, trained(root, tmp_path / "joined", granted(split)))
    assert_different(whole, trained(root, tmp_path / "none", granted(split[:1])))


@pytest.mark.usefixtures("tff_runtime")
def test_versions_that_split_everybodys_rows_train_the_model_of_the_whole_and_not_of_twice_as_many(
    root: Path, tmp_path: Path
) -> None:
    people = People()
    whole = trained(root, tmp_path / "none", granted([people.version(root)]))
    first = np.arange(len(people.who)) < len(people.who) // 2  # of a person: rows of both, of either, in this order
    split = [people.version(root, first), people.version(root, ~first)]
    assert_same(whole, trained(root, tmp_path / "joined", granted(split)))

    # What would happen if a person of both versions counted as two: two clipped updates instead of one.
    strangers = People()
    strangers.who = np.where(first, people.who, people.who + 1000)
    twice = trained(root, tmp_path / "none", granted([strangers.version(root)]))
    assert_different(whole, twice)


@pytest.mark.usefixtures("tff_runtime")
def test_every_versions_own_cap_holds_in_training(root: Path, tmp_path: Path) -> None:
    people = People()
    first = np.arange(len(people.who)) < len(people.who) // 2
    split = [people.version(root, first), people.version(root, ~first)]
    kept = np.zeros(len(people.who), bool)
    for half, cap in ((first, 2), (~first, 1)):
        for person in range(15):
            kept[np.flatnonzero(half & (people.who == person))[:cap]] = True
    expected = trained(root, tmp_path / "none", granted([people.version(root, kept)]))
    assert_same(expected, trained(root, tmp_path / "joined", granted(split, caps=(2, 1))))


@pytest.mark.usefixtures("tff_runtime")
def test_one_person_of_several_versions_moves_the_sum_by_at_most_the_clipping_norm(root: Path, tmp_path: Path) -> None:
    people = People()
    first = np.arange(len(people.who)) < len(people.who) // 2
    data = granted([people.version(root, first), people.version(root, ~first)])
    directories = [root / "datasets" / handle for handle in data.version_handles]
    join(directories, data, tmp_path / "joined")
    spec, silos = spec_of(DENSE), Silos(tmp_path / "joined", FEATURES, LABELS)
    settings = replace(SETTINGS, clipping_norm=0.01)  # below anybody's update
    computation = build_clipped_sum(spec, settings, check_joinable(directories, data))
    trainer = Trainer(spec, settings, computation, silos, Noiseless(bytes(32)), initial_weights(spec, "run_1"), slots=2)
    assert 15 == silos.units
    for unit in range(silos.units):
        alone = trainer.sum_of_clipped_updates(0, np.array([unit]))
        assert np.isclose(0.01, np.sqrt(sum((part**2).sum() for part in alone)), rtol=1e-6)


# --- a whole job ---


@pytest.fixture
def settings(root: Path, tmp_path: Path) -> WorkerSettings:
    (tmp_path / "scratch").mkdir()
    return WorkerSettings(data_root=root, scratch=tmp_path / "scratch", job_seconds=300.0)


def run(settings: WorkerSettings, data: DataGrant, governor: RecordingGovernor) -> RecordingGovernor:
    with Worker(governor, settings) as worker:
        worker.run_grant(grant(data=data))
    assert ["logs"] == [path.name for path in settings.scratch.iterdir()]
    return governor


def test_a_grant_of_two_versions_is_debited_trained_and_published(root: Path, settings: WorkerSettings) -> None:
    people = People()
    data = granted([people.version(root, people.who < 9), people.version(root, people.who > 3)])
    governor, seen = RecordingGovernor(), []

    def look(first: int, rounds: int) -> DebitAnswer:
        seen.append([path.name for path in settings.scratch.glob("job_*/*")])
        return DebitAnswer(True, first + rounds)

    governor.on_debit = look
    run(settings, data, governor)
    assert ("publish",) == governor.outcome
    assert governor.result is not None
    assert {"dense/kernel", "dense/bias"} == set(load(governor.result.weights))
    assert [[], []] == seen  # nothing is joined before the first debit, and nothing of it has a name at the second


def broken() -> Iterator[tuple[str, Any]]:
    yield "other dtype", lambda root, people: ingested(root, [1], np.zeros((1, 6)), np.zeros(1, np.int64))
    yield "a version that is not there", lambda root, people: "ver_" + "9" * 24


@pytest.mark.parametrize("second", [made for _, made in broken()], ids=[name for name, _ in broken()])
def test_versions_that_do_not_fit_end_the_run_with_nothing_debited_or_touched(
    root: Path, settings: WorkerSettings, second: Any
) -> None:
    people = People()
    governor = run(settings, granted([people.version(root), second(root, people)]), RecordingGovernor())
    assert [("fail", False)] == governor.calls


def test_a_job_that_is_killed_in_the_middle_leaves_nothing_of_what_it_joined(
    root: Path, settings: WorkerSettings
) -> None:
    people, governor = People(), RecordingGovernor()
    data = granted([people.version(root, people.who < 9), people.version(root, people.who > 3)])

    def kill_at_the_second(first: int, rounds: int) -> DebitAnswer:
        if first:
            for task in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
                for pid in map(int, task.read_text().split()):
                    if b"runner.job" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        os.kill(pid, signal.SIGKILL)
        return DebitAnswer(True, first + rounds)

    governor.on_debit = kill_at_the_second
    run(settings, data, governor)
    assert ("fail", True) == governor.outcome
