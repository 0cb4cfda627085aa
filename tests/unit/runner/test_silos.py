"""Who takes part is drawn as accounted; what is read is what belongs to them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats

from runner.errors import DataLayoutError
from runner.noise import Streams
from runner.silos import (
    Sampler,
    Silos,
    _at_most,
    read_declared,
    require_private,
    require_public,
    version_directory,
)
from tests.integration.runner.made_data import HANDLE, write_version

SEED = bytes(range(32))


def sampler(units: int = 200, pool: float = 1.0, sampling: float = 0.1) -> Sampler:
    return Sampler(units, Streams(SEED), pool_probability=pool, sampling_probability=sampling)


def membership(of: Sampler, units: int, rounds: int) -> npt.NDArray[np.bool_]:
    taken = np.zeros((rounds, units), dtype=bool)
    for round_number in range(rounds):
        taken[round_number, of.cohort(round_number)] = True
    return taken


def test_every_unit_enters_a_round_independently_with_the_sampling_probability() -> None:
    taken = membership(sampler(), 200, 500)
    assert scipy.stats.binomtest(int(taken.sum()), taken.size, 0.1).pvalue > 1e-3
    # Cohort sizes and each unit's participations are binomial: their variances give away any dependence.
    assert 0.8 < taken.sum(axis=1).var() / (200 * 0.09) < 1.25
    assert 0.8 < taken.sum(axis=0).var() / (500 * 0.09) < 1.25


def test_a_round_may_be_empty_and_another_may_hold_everyone() -> None:
    assert 0 == len(sampler(units=3, sampling=1e-9).cohort(0))
    assert [0, 1, 2] == sampler(units=3, sampling=1.0).cohort(0).tolist()


def test_the_pool_is_drawn_once_and_every_cohort_lies_within_it() -> None:
    taken = membership(sampler(units=2000, pool=0.25, sampling=0.5), 2000, 60)
    ever = taken.any(axis=0)
    assert scipy.stats.binomtest(int(ever.sum()), 2000, 0.25).pvalue > 1e-3
    assert scipy.stats.binomtest(int(taken[:, ever].sum()), int(ever.sum()) * 60, 0.5).pvalue > 1e-3


def test_the_same_seed_draws_the_same_cohorts_and_rounds_differ() -> None:
    assert sampler().cohort(4).tolist() == sampler().cohort(4).tolist()
    assert sampler().cohort(4).tolist() != sampler().cohort(5).tolist()


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.1, float("nan")])
def test_a_probability_outside_zero_to_one_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        sampler(sampling=bad)
    with pytest.raises(ValueError, match="probability"):
        sampler(pool=bad)


def numbered(
    sizes: list[int],
) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
    """Unit u's j-th example is (u, j)."""
    return [
        (np.array([[u, j] for j in range(n)], np.float32).reshape(n, 2), np.full(n, u, np.int64))
        for u, n in enumerate(sizes)
    ]


def test_gather_reads_exactly_the_units_asked_for_one_after_another(tmp_path: Path) -> None:
    silos = Silos(write_version(tmp_path, HANDLE, numbered([2, 0, 3, 1])), "x", "y")
    examples = silos.gather(np.array([2, 1, 0]))
    assert [0, 3, 3, 5] == examples.offsets.tolist()
    assert [[2, 0], [2, 1], [2, 2], [0, 0], [0, 1]] == examples.features.tolist()
    assert [2, 2, 2, 0, 0] == examples.labels.tolist()


def test_a_unit_contributes_at_most_its_first_examples(tmp_path: Path) -> None:
    silos = Silos(write_version(tmp_path, HANDLE, numbered([5, 1])), "x", "y", max_examples_per_unit=2)
    examples = silos.gather(np.array([0, 1]))
    assert [[0, 0], [0, 1], [1, 0]] == examples.features.tolist()


@pytest.mark.parametrize("max_bytes", [1, 40, 41, 10**9])
def test_pieces_hold_every_unit_exactly_once(tmp_path: Path, max_bytes: int) -> None:
    silos = Silos(write_version(tmp_path, HANDLE, numbered([4, 0, 9, 1, 2, 2])), "x", "y")
    units = np.array([0, 1, 2, 3, 5])
    pieces = list(silos.pieces(units, max_bytes))
    assert 5 == sum(piece.units for piece in pieces)
    whole = silos.gather(units)
    assert whole.features.tolist() == [row for piece in pieces for row in piece.features.tolist()]
    one_unit_or_fits = [piece.units == 1 or len(piece.features) * 16 <= max_bytes for piece in pieces]
    assert all(one_unit_or_fits)


def test_data_is_mapped_and_not_loaded(tmp_path: Path) -> None:
    silos = Silos(write_version(tmp_path, HANDLE, numbered([2])), "x", "y")
    assert isinstance(silos._features, np.memmap)
    assert not silos._features.flags.writeable


def test_what_is_declared_is_read_without_opening_the_data(tmp_path: Path) -> None:
    directory = write_version(tmp_path, HANDLE, numbered([2]))
    for file in directory.glob("*.npy"):
        file.unlink()
    declared = read_declared(directory, "x", "y")
    assert ((2,), (), np.dtype(np.int64)) == (declared.feature_shape, declared.label_shape, declared.label_dtype)


def test_only_a_version_laid_out_as_public_passes_as_public(tmp_path: Path) -> None:
    require_public(write_version(tmp_path, "ver_" + "1" * 24, numbered([2]), public=True))
    with pytest.raises(DataLayoutError, match="not public"):
        require_public(write_version(tmp_path, HANDLE, numbered([2])))


def test_public_data_has_no_units_to_train_on(tmp_path: Path) -> None:
    require_private(write_version(tmp_path, HANDLE, numbered([2])))
    with pytest.raises(DataLayoutError, match="without privacy units"):
        require_private(write_version(tmp_path, "ver_" + "1" * 24, numbered([2]), public=True))


@pytest.mark.parametrize("probability", [3e-9, 7e-8, 0.1, 1 / 3, 1.0])
def test_nobody_enters_with_more_than_the_accounted_probability(probability: float) -> None:
    drawn = _at_most(probability)
    assert 0 <= probability - drawn < 2**-53
    assert float(drawn * 2**53).is_integer()


def test_a_version_that_is_not_what_its_manifest_says_is_refused(tmp_path: Path) -> None:
    directory = write_version(tmp_path, HANDLE, numbered([2, 3]))
    manifest = json.loads((directory / "manifest.json").read_text())

    def refused(**changes: object) -> str:
        (directory / "manifest.json").write_text(json.dumps(manifest | changes))
        with pytest.raises(DataLayoutError) as refusal:
            Silos(directory, "x", "y")
        return refusal.value.why

    assert "schema" in refused(schema="pysytff.data/9")
    assert "offsets" in refused(units=3)
    assert "divide" in refused(examples=6)
    assert "no asset" in refused(assets=[])
    wrong = [{"name": "x", "dtype": "float64", "shape": [2]}, {"name": "y", "dtype": "int64", "shape": []}]
    assert "dtype and shape" in refused(assets=wrong)
    assert "how many" in refused(units="2")
    (directory / "manifest.json").write_text("{")
    with pytest.raises(DataLayoutError, match="no readable manifest"):
        Silos(directory, "x", "y")


def test_offsets_that_go_back_are_refused(tmp_path: Path) -> None:
    directory = write_version(tmp_path, HANDLE, numbered([2, 3]))
    np.save(directory / "offsets.npy", np.array([0, 6, 5], dtype=np.int64))
    with pytest.raises(DataLayoutError, match="divide"):
        Silos(directory, "x", "y")


def test_a_damaged_or_pickled_array_is_refused_and_never_unpickled(tmp_path: Path) -> None:
    directory = write_version(tmp_path, HANDLE, numbered([2]))
    np.save(directory / "x.npy", np.array([{"a": 1}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(DataLayoutError, match=r"x\.npy"):
        Silos(directory, "x", "y")
    (directory / "x.npy").write_bytes(b"")
    with pytest.raises(DataLayoutError, match=r"x\.npy"):
        Silos(directory, "x", "y")


@pytest.mark.parametrize("handle", ["", "..", "ver_../../etc", "ver_" + "0" * 23, "ver_" + "G" * 24, HANDLE + "\n"])
def test_only_a_handle_names_a_version(tmp_path: Path, handle: str) -> None:
    with pytest.raises(DataLayoutError):
        version_directory(tmp_path, handle)
