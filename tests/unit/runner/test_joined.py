"""The union of several versions' units: everybody once, with exactly their rows."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from runner.errors import DataLayoutError, IncompatibleError
from runner.joined import FEATURES, LABELS, check_joinable, join
from runner.port import DataGrant, JoinedData
from runner.silos import Silos, require_private
from tests.integration.runner.made_data import HANDLE, grant, ingested, write_version

Rows = dict[int, list[int]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def version(root: Path, units: Rows) -> str:
    """Unit u with these rows, each a number that the features show twice and the labels once; rows interleaved."""
    rows = [(who, row) for who, owned in units.items() for row in owned]
    rows = [rows[i] for i in np.random.default_rng(5).permutation(len(rows))]
    rows.sort(key=lambda one: one[1])  # a unit's rows in ascending order, units mixed
    x = np.array([[row, row] for _, row in rows], np.float32)
    return ingested(root, [who for who, _ in rows], x, np.array([row for _, row in rows], np.int64))


def granted(*handles: str, caps: tuple[int, ...] = (100, 100, 100)) -> DataGrant:
    first, *others = handles
    joined = tuple(JoinedData(handle, "x", "y", cap) for handle, cap in zip(others, caps[1:], strict=False))
    return replace(grant().data, version_handle=first, max_examples_per_unit=caps[0], joined=joined)


def directories(root: Path, data: DataGrant) -> list[Path]:
    return [root / "datasets" / handle for handle in data.version_handles]


def union(root: Path, tmp_path: Path, data: DataGrant) -> set[tuple[int, ...]]:
    into = tmp_path / "joined"
    join(directories(root, data), data, into)
    require_private(into)
    silos = Silos(into, FEATURES, LABELS)
    found = [silos.gather(np.array([unit])) for unit in range(silos.units)]
    for one in found:
        np.testing.assert_array_equal(one.features, np.stack([one.labels] * 2, axis=1))
    rows = [tuple(one.labels.tolist()) for one in found]
    assert len(rows) == len(set(rows))
    return set(rows)


def test_a_unit_owns_its_rows_of_every_version_in_the_grants_order(root: Path, tmp_path: Path) -> None:
    a = version(root, {1: [10, 11], 2: [20], 3: [30, 31, 32]})
    b = version(root, {3: [33], 4: [40], 1: [12, 13]})
    c = version(root, {5: [50], 1: [9]})
    expected = {(10, 11, 12, 13, 9), (20,), (30, 31, 32, 33), (40,), (50,)}
    assert expected == union(root, tmp_path, granted(a, b, c))


def test_the_order_of_the_grant_is_the_order_of_a_units_rows(root: Path, tmp_path: Path) -> None:
    a, b = version(root, {1: [10, 11]}), version(root, {1: [12]})
    assert {(12, 10, 11)} == union(root, tmp_path, granted(b, a))


def test_every_version_is_capped_by_its_own_number(root: Path, tmp_path: Path) -> None:
    a = version(root, {1: [10, 11, 12], 2: [20, 21]})
    b = version(root, {1: [13, 14], 3: [30, 31]})
    assert {(10, 11, 13), (20, 21), (30,)} == union(root, tmp_path, granted(a, b, caps=(2, 1)))


@pytest.mark.parametrize("piece_bytes", [1, 60, 10**9])
def test_many_units_in_any_number_of_pieces_all_arrive(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    monkeypatch.setattr("runner.joined.PIECE_BYTES", piece_bytes)
    random = np.random.default_rng(8)
    parts: list[Rows] = []
    for part in range(3):
        members = random.choice(60, size=35, replace=False).tolist()
        parts.append({who: sorted(random.choice(99, size=3, replace=False) + 100 * part) for who in members})
    expected = {
        tuple(int(row) for part in parts for row in part.get(who, []))
        for who in range(60)
        if any(who in p for p in parts)
    }
    tagged = [{who: [1000 * who + int(row) for row in rows] for who, rows in part.items()} for part in parts]
    found = union(root, tmp_path, granted(*(version(root, part) for part in tagged)))
    assert len(found) == len({row[0] // 1000 for row in found}) == len({w for part in parts for w in part})
    assert expected == {tuple(row % 1000 for row in rows) for rows in found}


def test_what_was_copied_is_mapped_from_files_that_only_this_user_can_reach(root: Path, tmp_path: Path) -> None:
    data = granted(version(root, {1: [10]}), version(root, {1: [11]}))
    union(root, tmp_path, data)
    assert 0o700 == os.stat(tmp_path / "joined").st_mode & 0o777


def test_a_full_disk_is_an_error_before_anything_is_copied(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    data = granted(version(root, {1: [10]}), version(root, {1: [11]}))
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        join(directories(root, data), data, tmp_path / "joined")


# --- what does not fit together is refused, from what is declared ---


def declared_only(root: Path, data: DataGrant) -> list[Path]:
    """The versions, without their data: so a check that passes or refuses has read manifests alone."""
    found = directories(root, data)
    for directory in found:
        for file in directory.glob("*.npy"):
            file.unlink()
    return found


def test_versions_that_fit_together_are_told_by_their_manifests_alone(root: Path) -> None:
    data = granted(version(root, {1: [10]}), version(root, {2: [20]}))
    declared = check_joinable(declared_only(root, data), data)
    assert ((2,), np.dtype(np.float32), ()) == (declared.feature_shape, declared.feature_dtype, declared.label_shape)


def typed(root: Path, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> str:
    return ingested(root, [1, 2], x, y)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.zeros((2, 3), np.float32), np.zeros(2, np.int64)),
        (np.zeros((2, 2), np.float64), np.zeros(2, np.int64)),
        (np.zeros((2, 2), np.float32), np.zeros(2, np.int32)),
        (np.zeros((2, 2), np.float32), np.zeros((2, 1), np.int64)),
    ],
)
def test_other_shapes_or_dtypes_are_refused(root: Path, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
    data = granted(version(root, {1: [10]}), typed(root, x, y))
    with pytest.raises(IncompatibleError, match="other shapes or dtypes"):
        check_joinable(declared_only(root, data), data)


def test_a_version_of_an_earlier_release_can_be_used_alone_but_not_joined(root: Path) -> None:
    older = write_version(root, HANDLE, [(np.zeros((1, 2), np.float32), np.zeros(1, np.int64))])
    assert 1 == Silos(older, "x", "y").units
    data = granted(version(root, {1: [10]}), HANDLE)
    with pytest.raises(DataLayoutError, match="lay it out again"):
        check_joinable(declared_only(root, data), data)


def test_a_version_under_another_secret_is_refused(root: Path) -> None:
    data = granted(version(root, {1: [10]}), version(root, {1: [11]}))
    manifest = directories(root, data)[1] / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"unit_key_id": "0" * 16}))
    with pytest.raises(DataLayoutError, match="different secrets"):
        check_joinable(declared_only(root, data), data)


def test_a_version_joined_with_itself_and_public_data_are_refused(root: Path) -> None:
    one = version(root, {1: [10]})
    with pytest.raises(IncompatibleError, match="itself"):
        check_joinable(directories(root, granted(one, one)), granted(one, one))
    write_version(root, HANDLE, [(np.zeros((1, 2), np.float32), np.zeros(1, np.int64))], public=True)
    with pytest.raises(DataLayoutError, match="public"):
        check_joinable(directories(root, granted(one, HANDLE)), granted(one, HANDLE))
