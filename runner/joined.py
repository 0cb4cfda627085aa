"""Several dataset versions as one: the union of their units, joined by key, laid out for one run in its scratch space.

The result is a version as ``silos.py`` reads it, with assets ``features`` and ``labels``. From there on, joined data is
trained on like any other: a person is sampled once, and gives one clipped update over all rows (privacy rules 6, 8).

Invariants
- A unit's examples are those of every version, in the grant's order, each capped by that version's own
  ``max_examples_per_unit``. A unit of only some of the versions is still one unit.
- Versions fit together or the run ends before data is opened: ``check_joinable`` reads manifests only.
- Rows are copied in pieces. Held in memory are the units' index, and one piece or one unit.
- Room on the disk is taken first, so that a full disk is an error and no signal.
- Who is in which version is used here and told to nobody.

This module does not: train, or remove what it wrote (the job and its worker do). It never imports TensorFlow.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from runner.errors import DataLayoutError, IncompatibleError
from runner.port import DataGrant, JoinedData
from runner.silos import SCHEMA, Declared, Silos, UnitArray, read_declared
from runner.unit_keys import read_keys, require_comparable

FEATURES: Final = "features"
LABELS: Final = "labels"
PIECE_BYTES: Final = 2**26

AnyArray = npt.NDArray[Any]


def check_joinable(directories: Sequence[Path], data: DataGrant) -> Declared:
    """What is declared of all versions alike. Raises ``DataLayoutError`` or ``IncompatibleError``."""
    parts = _parts(data)
    if len(set(directories)) != len(directories):
        raise IncompatibleError("a version is joined with itself")
    require_comparable(directories)
    declared = [read_declared(at, x, y) for at, (x, y, _) in zip(directories, parts, strict=True)]
    for directory, one in zip(directories, declared, strict=True):
        if one != declared[0]:
            raise IncompatibleError(
                f"{directory.name} declares other shapes or dtypes than {directories[0].name}; versions are joined "
                "only where both assets are alike"
            )
    return declared[0]


def join(directories: Sequence[Path], data: DataGrant, into: Path) -> None:
    """Writes the union under ``into``, which must not exist. Raises ``DataLayoutError`` or ``OSError``."""
    declared = check_joinable(directories, data)
    parts = [Silos(at, x, y, most) for at, (x, y, most) in zip(directories, _parts(data), strict=True)]
    owners = _owners([read_keys(directory) for directory in directories])
    sizes = [part.counts for part in parts]
    for directory, owner, size in zip(directories, owners, sizes, strict=True):
        if len(owner) != len(size):  # read_keys and Silos both read how many units there are
            raise DataLayoutError(directory.name, "it changed while it was read")
    units = 1 + max(int(owner.max(initial=-1)) for owner in owners)
    total = np.zeros(units, dtype=np.int64)
    for owner, size in zip(owners, sizes, strict=True):
        total[owner] += size  # a version has each unit at most once
    offsets = np.concatenate([[0], np.cumsum(total)]).astype(np.int64)
    into.mkdir(mode=0o700)
    features = _room(into / f"{FEATURES}.npy", declared.feature_dtype, (int(offsets[-1]), *declared.feature_shape))
    labels = _room(into / f"{LABELS}.npy", declared.label_dtype, (int(offsets[-1]), *declared.label_shape))
    filled = offsets[:-1].copy()  # where each unit's next example goes
    for part, owner in zip(parts, owners, strict=True):
        _copy(part, owner, filled, features, labels)
    np.save(into / "offsets.npy", offsets)
    _write_manifest(into, declared, units, int(offsets[-1]))


def _parts(data: DataGrant) -> list[tuple[str, str, int]]:
    parts: list[DataGrant | JoinedData] = [data, *data.joined]
    return [(one.features, one.labels, one.max_examples_per_unit) for one in parts]


def _owners(keys: Sequence[npt.NDArray[np.bytes_]]) -> list[UnitArray]:
    """For each version, which unit of the union each of its units is."""
    index = np.unique(np.concatenate(keys), return_inverse=True)[1].astype(np.int64)
    return np.split(index, np.cumsum([len(part) for part in keys])[:-1])


def _copy(part: Silos, owner: UnitArray, filled: UnitArray, features: AnyArray, labels: AnyArray) -> None:
    first = 0
    for examples in part.pieces(np.arange(part.units, dtype=np.int64), PIECE_BYTES):
        mine = owner[first : first + examples.units]
        sizes = np.diff(examples.offsets)
        rows = np.repeat(filled[mine] - examples.offsets[:-1], sizes) + np.arange(examples.offsets[-1])
        features[rows], labels[rows] = examples.features, examples.labels
        filled[mine] += sizes
        first += examples.units


def _room(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> AnyArray:
    """A new array on the disk. A hole that cannot be filled would end the process by a signal, in mid-copy."""
    array: AnyArray = np.lib.format.open_memmap(path, "w+", dtype, shape)  # type: ignore[no-untyped-call]
    fd = os.open(path, os.O_RDWR)
    try:
        os.posix_fallocate(fd, 0, os.fstat(fd).st_size)
    finally:
        os.close(fd)
    return array


def _write_manifest(into: Path, declared: Declared, units: int, examples: int) -> None:
    assets = [
        {"name": FEATURES, "dtype": declared.feature_dtype.name, "shape": list(declared.feature_shape)},
        {"name": LABELS, "dtype": declared.label_dtype.name, "shape": list(declared.label_shape)},
    ]
    manifest = {"schema": SCHEMA, "assets": assets, "units": units, "examples": examples, "public": False}
    (into / "manifest.json").write_text(json.dumps(manifest))
