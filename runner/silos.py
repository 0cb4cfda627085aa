"""Privacy units as virtual silos: reads a dataset version, draws the pool and the Poisson cohorts.

Layout of a version, ``<data root>/datasets/<version handle>/``: ``manifest.json``; ``offsets.npy`` (int64, one more
than there are units, so that unit u owns the examples [offsets[u], offsets[u + 1])); one ``<asset>.npy`` for each
asset; and, since units can be joined over versions, ``unit_keys.npy`` (``unit_keys.py``).

Invariants
- Every unit enters the pool independently with ``pool_probability``, once; every unit of the pool enters a round
  independently with ``sampling_probability``. A round may be empty. No cap on a cohort ever drops a unit (privacy
  rule 6).
- A unit contributes at most its first ``max_examples_per_unit`` examples.
- Arrays are memory-mapped read-only and a gather copies only the units asked for, so a dataset need not fit in
  memory.
- The true number of units is used here and nowhere else.

This module does not: train, or write data (``runner.ingest`` does). It never imports TensorFlow.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from runner.errors import DataLayoutError
from runner.noise import Streams

SCHEMA: Final = "pysytff.data/1"
HANDLE: Final = re.compile(r"ver_[0-9a-f]{24}")
ASSET_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
DTYPES: Final = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "bool")

UnitArray = npt.NDArray[np.int64]


def version_directory(data_root: Path, version_handle: str) -> Path:
    """Raises ``DataLayoutError`` for what is no handle, so that no handle can name a path."""
    if not HANDLE.fullmatch(version_handle):
        raise DataLayoutError("?", "not a version handle")
    return data_root / "datasets" / version_handle


@dataclass(frozen=True, slots=True)
class Declared:
    """What a version's owner declared about the two assets of a run: nothing that depends on anybody's data."""

    feature_shape: tuple[int, ...]
    feature_dtype: np.dtype[Any]
    label_shape: tuple[int, ...]
    label_dtype: np.dtype[Any]


def read_declared(directory: Path, features: str, labels: str) -> Declared:
    """Reads the manifest's declarations and opens nothing else."""
    manifest = read_manifest(directory)
    about, target = _declaration(directory, manifest, features), _declaration(directory, manifest, labels)
    return Declared(tuple(about["shape"]), np.dtype(about["dtype"]), tuple(target["shape"]), np.dtype(target["dtype"]))


def require_public(directory: Path) -> None:
    """Raises ``DataLayoutError`` unless the version was laid out as public data, with nobody in it to protect.

    What is computed on a hold-out is published without noise, so a private version named as one must never be read.
    """
    if read_manifest(directory).get("public") is not True:
        raise DataLayoutError(directory.name, "it is not public data, so nothing is evaluated on it")


def require_private(directory: Path) -> None:
    """Raises ``DataLayoutError`` for a version laid out as public: there each row is a unit, not each person."""
    if read_manifest(directory).get("public") is not False:
        raise DataLayoutError(directory.name, "it was laid out as public data, without privacy units")


@dataclass(frozen=True, slots=True)
class Examples:
    """Some units' examples, one unit after another. Unit i owns the rows [offsets[i], offsets[i + 1]) of both
    arrays.
    """

    features: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    offsets: UnitArray

    @property
    def units(self) -> int:
        return len(self.offsets) - 1


class Silos:
    """One dataset version, opened for reading."""

    def __init__(self, directory: Path, features: str, labels: str, max_examples_per_unit: int | None = None) -> None:
        self._handle = directory.name
        manifest = read_manifest(directory)
        self._offsets = self._load(directory, "offsets")
        self._check_offsets(manifest)
        self._features = self._asset(directory, manifest, features)
        self._labels = self._asset(directory, manifest, labels)
        counts = np.diff(self._offsets)
        self._counts = counts if max_examples_per_unit is None else np.minimum(counts, max_examples_per_unit)

    @property
    def units(self) -> int:
        """A true count: it stays on the runner's host."""
        return len(self._counts)

    @property
    def counts(self) -> UnitArray:
        """How many examples each unit has, capped. True counts, as above."""
        return self._counts

    def gather(self, units: UnitArray) -> Examples:
        """Copies these units' examples, one unit after another."""
        counts = self._counts[units]
        offsets = np.zeros(len(units) + 1, dtype=np.int64)
        np.cumsum(counts, out=offsets[1:])
        starts = np.repeat(self._offsets[units] - offsets[:-1], counts)
        rows = starts + np.arange(offsets[-1])
        return Examples(np.asarray(self._features[rows]), np.asarray(self._labels[rows]), offsets)

    def pieces(self, units: UnitArray, max_bytes: int) -> Iterator[Examples]:
        """``gather`` in pieces of about ``max_bytes``, at least one unit each: every unit comes exactly once."""
        width = self._features.itemsize * math.prod(self._features.shape[1:])
        width += self._labels.itemsize * math.prod(self._labels.shape[1:])
        # Searching the running total for each piece's end keeps this linear, also where one unit exceeds a piece.
        ends = np.cumsum(self._counts[units]) * max(width, 1)
        first = 0
        while first < len(units):
            spent = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(ends, spent + max_bytes, side="right")))
            yield self.gather(units[first:last])
            first = last

    def _load(self, directory: Path, name: str) -> npt.NDArray[Any]:
        path = directory / f"{name}.npy"
        try:
            # An array of no rows cannot be mapped; it needs no memory either.
            array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError:
            try:
                array = np.load(path, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise DataLayoutError(self._handle, f"{name}.npy is not readable: {error}") from error
        except (OSError, EOFError) as error:
            raise DataLayoutError(self._handle, f"{name}.npy is not readable: {error}") from error
        return array

    def _check_offsets(self, manifest: dict[str, Any]) -> None:
        offsets = self._offsets
        if offsets.dtype != np.int64 or offsets.shape != (manifest["units"] + 1,):
            raise DataLayoutError(self._handle, "offsets.npy does not have one number for each unit, and one more")
        if offsets[0] != 0 or offsets[-1] != manifest["examples"] or bool((np.diff(offsets) < 0).any()):
            raise DataLayoutError(self._handle, "offsets.npy does not divide the examples into units")

    def _asset(self, directory: Path, manifest: dict[str, Any], name: str) -> npt.NDArray[Any]:
        declared = _declaration(directory, manifest, name)
        array = self._load(directory, name)
        if array.dtype.name != declared["dtype"] or list(array.shape) != [manifest["examples"], *declared["shape"]]:
            raise DataLayoutError(self._handle, f"{name}.npy is not of the dtype and shape that the manifest declares")
        return array


def read_manifest(directory: Path) -> dict[str, Any]:
    """Raises ``DataLayoutError`` unless it is one of this layout."""
    try:
        manifest = json.loads((directory / "manifest.json").read_bytes())
    except (OSError, ValueError) as error:
        raise DataLayoutError(directory.name, f"no readable manifest: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise DataLayoutError(directory.name, f"the manifest's schema is not {SCHEMA!r}")
    if not all(isinstance(manifest.get(key), int) for key in ("units", "examples")):
        raise DataLayoutError(directory.name, "the manifest does not say how many units and examples there are")
    return manifest


def _declaration(directory: Path, manifest: dict[str, Any], name: str) -> dict[str, Any]:
    for asset in manifest.get("assets", ()):
        if isinstance(asset, dict) and asset.get("name") == name and ASSET_NAME.fullmatch(name):
            shape = asset.get("shape")
            if asset.get("dtype") in DTYPES and isinstance(shape, list) and all(isinstance(n, int) for n in shape):
                return asset
            raise DataLayoutError(directory.name, f"the manifest does not declare dtype and shape of {name!r}")
    raise DataLayoutError(directory.name, f"has no asset {name!r}")


def _at_most(probability: float) -> float:
    """The largest multiple of 2^-53 up to ``probability``.

    random() is a multiple of 2^-53 in [0, 1), so "below k · 2^-53" has probability k · 2^-53 exactly. Without rounding
    down, a unit would enter with a little more than what was accounted. A probability of 1 takes everyone.
    """
    return math.floor(probability * 2**53) / 2**53


class Sampler:
    """Draws the pool once and each round's cohort from it. Everyone's coin is tossed, in the pool or not."""

    def __init__(self, units: int, streams: Streams, *, pool_probability: float, sampling_probability: float) -> None:
        for name, probability in (("pool", pool_probability), ("sampling", sampling_probability)):
            if not 0.0 < probability <= 1.0:
                raise ValueError(f"the {name} probability must be in (0, 1]")
        self._units = units
        self._streams = streams
        self._sampling_probability = _at_most(sampling_probability)
        self._pool = streams.pool().random(units) < _at_most(pool_probability)

    def cohort(self, round_number: int) -> UnitArray:
        """The units of this round, in ascending order. May be empty."""
        chosen = self._streams.cohort(round_number).random(self._units) < self._sampling_probability
        return np.flatnonzero(chosen & self._pool).astype(np.int64)
