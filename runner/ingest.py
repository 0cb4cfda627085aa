"""NPZ, CSV or Parquet → one immutable dataset version, laid out so that each privacy unit's examples are contiguous.

``python -m runner.ingest --npz FILE --unit-column writer --assets assets.json --data-root DIR`` prints the version's
handle.

Invariants
- Everything about the data is declared, nothing inferred: an asset has a dtype, a shape and, if its owner says so, a
  range, and rows that break the declaration refuse the whole source.
- Rows without a unit are refused. A unit keeps its first ``max_examples_per_unit`` rows, in the source's order.
  Who is one unit, and its key across versions, is ``unit_keys.py``'s.
- Units are put in an order that says nothing: shuffled by a secret key, so that no position tells who somebody is.
- A version appears whole or not at all: written beside its place, synced, renamed. Its handle is random, no digest
  of content.
- Errors name columns and count rows; they never quote a value.

Two passes over the source, in batches: the first reads units, the second puts each row where it belongs, so that
only the units' index is held in memory. This module does not: register a dataset with governance. It never imports
TensorFlow.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import secrets
import shutil
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from runner.errors import IngestError
from runner.silos import ASSET_NAME, DTYPES, SCHEMA
from runner.unit_keys import KEYS_FILE, Keys, UnitKeys, plain_values, write_keys

BATCH_ROWS: Final = 2**16
MAX_RANK: Final = 4
RESERVED: Final = ("offsets", KEYS_FILE.removesuffix(".npy"))  # files of the layout itself
_NO_UNIT: Final = -1

AnyArray = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class AssetSpec:
    """One asset and where it comes from. ``columns``: one column for each number of an example, or one that holds
    them all.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    columns: tuple[str, ...] = ()  # empty: the column of the asset's own name
    minimum: float | None = None
    maximum: float | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        return self.columns or (self.name,)

    @staticmethod
    def from_document(document: object) -> AssetSpec:
        """From {"name", "dtype", "shape"?, "columns"?, "minimum"?, "maximum"?}. Raises ``IngestError``."""
        if not isinstance(document, Mapping):
            raise IngestError("an asset must be a JSON object")
        if unknown := document.keys() - {"name", "dtype", "shape", "columns", "minimum", "maximum", "description"}:
            raise IngestError(f"unknown keys in an asset: {', '.join(sorted(map(str, unknown)))}")
        name, dtype = document.get("name"), document.get("dtype")
        shape, columns = document.get("shape", []), document.get("columns", [])
        if not isinstance(name, str) or not ASSET_NAME.fullmatch(name) or name in RESERVED:
            raise IngestError(f"an asset's name must match {ASSET_NAME.pattern} and not be {' or '.join(RESERVED)}")
        if dtype not in DTYPES:
            raise IngestError(f"asset {name!r}: dtype must be one of {', '.join(DTYPES)}")
        if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(type(n) is int and n > 0 for n in shape):
            raise IngestError(f"asset {name!r}: shape must list at most {MAX_RANK} positive integers")
        if not isinstance(columns, list) or not all(isinstance(column, str) for column in columns):
            raise IngestError(f"asset {name!r}: columns must list the names of columns")
        if len(columns) > 1 and len(columns) != math.prod(shape):
            raise IngestError(f"asset {name!r}: {len(columns)} columns do not fill shape {shape}")
        limits = [document.get("minimum"), document.get("maximum")]
        if any(limit is not None and type(limit) not in (int, float) for limit in limits):
            raise IngestError(f"asset {name!r}: minimum and maximum must be numbers")
        return AssetSpec(name, dtype, tuple(shape), tuple(columns), limits[0], limits[1])


class Source(Protocol):
    """Rows in a fixed order. ``columns`` yields the same batches of rows at every call."""

    def columns(self, names: Sequence[str]) -> Iterator[dict[str, AnyArray]]:
        """Batches of these columns. Raises ``IngestError`` for a column that is missing or has empty cells."""


class NpzSource:
    """Named arrays whose first dimension is rows, from ``numpy.savez``."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise IngestError(f"{path} is not a readable NPZ file") from error
        if not isinstance(self._file, np.lib.npyio.NpzFile):
            raise IngestError(f"{path} is not an NPZ file")

    def columns(self, names: Sequence[str]) -> Iterator[dict[str, AnyArray]]:
        arrays = {name: self._array(name) for name in names}
        rows = len(arrays[names[0]])
        for name, array in arrays.items():
            if len(array) != rows:
                raise IngestError(f"has {len(array)} rows where {names[0]!r} has {rows}", column=name)
        for first in range(0, rows, BATCH_ROWS):
            yield {name: array[first : first + BATCH_ROWS] for name, array in arrays.items()}

    def _array(self, name: str) -> AnyArray:
        if name not in self._file.files:
            raise IngestError("is not in the file", column=name)
        try:
            array: AnyArray = self._file[name]
        except ValueError as error:
            raise IngestError("holds Python objects, which are never loaded", column=name) from error
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise IngestError("is damaged", column=name) from error
        if array.ndim == 0:
            raise IngestError("has no rows", column=name)
        return array


class ArrowSource:
    """CSV or Parquet, read in batches by Arrow."""

    def __init__(self, path: Path, kind: str, text_columns: Sequence[str]) -> None:
        self._path = path
        self._kind = kind
        self._text_columns = tuple(text_columns)

    def columns(self, names: Sequence[str]) -> Iterator[dict[str, AnyArray]]:
        import pyarrow as pa

        try:
            for batch in self._batches(names):
                yield {name: _arrow_to_numpy(name, batch.column(name)) for name in names}
        except pa.ArrowInvalid as error:
            # Arrow quotes the offending cell: say only what kind of fault it is.
            raise IngestError(f"{self._path} has a cell or row that is not of its column's type") from error
        except (OSError, KeyError, pa.ArrowException) as error:
            raise IngestError(f"{self._path} is not readable as {self._kind}: {type(error).__name__}") from error

    def _batches(self, names: Sequence[str]) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.csv
        import pyarrow.parquet

        if self._kind == "Parquet":
            file = pyarrow.parquet.ParquetFile(self._path)
            self._check_names(file.schema_arrow.names, names)
            yield from file.iter_batches(batch_size=BATCH_ROWS, columns=list(dict.fromkeys(names)))
            return
        types = {name: pa.string() if name in self._text_columns else pa.float64() for name in names}
        with pyarrow.csv.open_csv(self._path) as header:
            self._check_names(header.schema.names, names)
        options = pyarrow.csv.ConvertOptions(
            column_types=types,
            include_columns=list(dict.fromkeys(names)),
            strings_can_be_null=True,
            null_values=[""],  # Arrow would also take "NA" or "null" for nobody, and they may be somebody's id
        )
        with pyarrow.csv.open_csv(self._path, convert_options=options) as reader:
            yield from reader

    def _check_names(self, present: Sequence[str], names: Sequence[str]) -> None:
        for name in names:
            if present.count(name) != 1:
                raise IngestError("is not in the file" if name not in present else "is there twice", column=name)


def _arrow_to_numpy(name: str, column: Any) -> AnyArray:
    import pyarrow as pa
    import pyarrow.compute

    if column.null_count:
        raise IngestError("has empty cells", column=name, rows=column.null_count)
    rows = len(column)
    while pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or _is_fixed_list(column.type):
        if len(pyarrow.compute.list_value_length(column).unique()) > 1:
            raise IngestError("has lists of different lengths", column=name)
        column = column.flatten()
        if column.null_count:
            raise IngestError("has empty elements", column=name, rows=column.null_count)
    values: AnyArray = column.to_numpy(zero_copy_only=False)
    if len(values) == rows:
        return values
    return values.reshape(rows, -1)


def _is_fixed_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_fixed_size_list(kind))


def open_source(path: Path, kind: str, unit_column: str | None) -> Source:
    """``kind``: "npz", "csv" or "parquet"."""
    if not path.is_file():
        raise IngestError(f"{path} is not a file")
    if kind == "npz":
        return NpzSource(path)
    return ArrowSource(path, {"csv": "CSV", "parquet": "Parquet"}[kind], [unit_column] if unit_column else [])


def ingest(
    source: Source,
    assets: Sequence[AssetSpec],
    data_root: Path,
    *,
    unit_column: str | None,
    max_examples_per_unit: int | None = None,
) -> str:
    """Writes one version and returns its handle. ``unit_column`` None: a public hold-out, where every row is its own
    unit.

    Raises ``IngestError``; then nothing is left behind.
    """
    names = [asset.name for asset in assets]
    if not names or len(set(names)) != len(names):
        raise IngestError("declare at least one asset, each with a name of its own")
    if max_examples_per_unit is not None and max_examples_per_unit < 1:
        raise IngestError("a unit must be allowed at least one example")
    units = _units(source, unit_column or assets[0].sources[0], public=unit_column is None)
    handle = f"ver_{secrets.token_hex(12)}"
    versions = data_root / "datasets"
    versions.mkdir(mode=0o750, parents=True, exist_ok=True)
    if unit_column is None:
        layout = _Layout(np.arange(len(units) + 1, dtype=np.int64), np.arange(len(units), dtype=np.int64))
    else:
        layout = _grouped(units, UnitKeys.of(data_root), max_examples_per_unit)
    del units
    unfinished = versions / f".{handle}"
    unfinished.mkdir(mode=0o750)
    try:
        _write(unfinished, source, assets, layout)
        _sync(unfinished)
        unfinished.rename(versions / handle)
        _sync_directory(versions)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return handle


@dataclass(frozen=True, slots=True)
class _Layout:
    """offsets [units + 1]; places [rows]: where each row goes, or -1 where the cap drops it. ``keys``: None for
    public data.
    """

    offsets: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]
    keys: Keys | None = None
    key_id: str | None = None


def _units(source: Source, column: str, *, public: bool) -> AnyArray:
    """First pass: one value for each row."""
    parts = [batch[column] for batch in source.columns([column])]
    if not sum(map(len, parts)):
        raise IngestError("the source has no rows")
    # Of public data, only how many rows there are is read here.
    return np.concatenate([np.zeros(len(part), np.bool_) if public else plain_values(column, part) for part in parts])


def _grouped(units: AnyArray, secret: UnitKeys, cap: int | None) -> _Layout:
    values, codes = np.unique(units, return_inverse=True)
    keys, of_value = np.unique(secret.keys(values), return_inverse=True)  # two spellings may be one unit
    count, rows = len(keys), len(units)
    # np.unique sorts; a secret shuffle makes positions meaningless.
    places = np.random.Generator(np.random.PCG64(secrets.randbits(128))).permutation(count)
    codes = places[of_value[codes]]
    shuffled = np.empty_like(keys)
    shuffled[places] = keys
    by_unit = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes, minlength=count)
    rank = np.empty(rows, dtype=np.int64)  # of a row among its unit's
    rank[by_unit] = np.arange(rows) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = sizes if cap is None else np.minimum(sizes, cap)
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    return _Layout(offsets, np.where(rank < kept[codes], offsets[codes] + rank, _NO_UNIT), shuffled, secret.key_id)


def _write(
    directory: Path,
    source: Source,
    assets: Sequence[AssetSpec],
    layout: _Layout,
) -> None:
    """Second pass."""
    offsets, places = layout.offsets, layout.places
    examples = int(offsets[-1])
    np.save(directory / "offsets.npy", offsets)
    if layout.keys is not None:
        write_keys(directory, layout.keys)
    for asset in assets:
        shape = (examples, *asset.shape)
        path = directory / f"{asset.name}.npy"
        into: AnyArray = np.lib.format.open_memmap(path, "w+", asset.dtype, shape)  # type: ignore[no-untyped-call]
        row = 0
        for batch in source.columns(asset.sources):
            values = _values(asset, batch)
            place = places[row : row + len(values)]
            if len(place) != len(values):
                raise IngestError("the source changed while it was read")
            into[place[place != _NO_UNIT]] = values[place != _NO_UNIT]
            row += len(values)
        if row != len(places):
            raise IngestError(f"has {row} rows where the unit column has {len(places)}", column=asset.sources[0])
        del into  # writes what is left; _sync makes it durable
    manifest = {
        "schema": SCHEMA,
        "assets": [{"name": asset.name, "dtype": asset.dtype, "shape": list(asset.shape)} for asset in assets],
        "units": len(offsets) - 1,
        "examples": examples,
        "public": layout.keys is None,
    }
    if layout.key_id is not None:
        manifest["unit_key_id"] = layout.key_id
    (directory / "manifest.json").write_text(json.dumps(manifest, indent=1))


def _values(asset: AssetSpec, batch: Mapping[str, AnyArray]) -> AnyArray:
    """A batch of one asset, checked against its declaration: [rows, *shape] of the declared dtype."""
    columns = [batch[name] for name in asset.sources]
    for name, column in zip(asset.sources, columns, strict=True):
        if column.dtype.kind not in "fiub":
            raise IngestError("does not hold numbers", column=name)
    values = columns[0] if len(columns) == 1 else np.stack(columns, axis=1)
    rows = len(values)
    if values.size != rows * math.prod(asset.shape):
        raise IngestError(f"does not have {list(asset.shape)} numbers a row", column=asset.sources[0])
    values = values.reshape(rows, *asset.shape)
    flat = values.reshape(rows, -1)
    _refuse(asset, ~np.isfinite(flat).all(axis=1), "has values that are not finite numbers")
    if asset.minimum is not None:
        _refuse(asset, (flat < asset.minimum).any(axis=1), f"has values below its declared minimum {asset.minimum}")
    if asset.maximum is not None:
        _refuse(asset, (flat > asset.maximum).any(axis=1), f"has values above its declared maximum {asset.maximum}")
    target = np.dtype(asset.dtype)
    if target.kind in "iub" and values.dtype.kind != "b":
        limits = (0, 1) if target.kind == "b" else (np.iinfo(target).min, np.iinfo(target).max)
        fits = (flat >= limits[0]) & (flat <= limits[1]) & (flat == np.floor(flat))
        # int64's maximum is no float: a float beyond 2^53 is no exact integer anyway.
        fits &= (np.abs(flat) <= 2**53) if flat.dtype.kind == "f" else True
        _refuse(asset, ~fits.all(axis=1), f"has values that are no {asset.dtype}")
    converted = values.astype(target)
    _refuse(asset, ~np.isfinite(converted.reshape(rows, -1)).all(axis=1), f"has values too large for {asset.dtype}")
    return converted


def _refuse(asset: AssetSpec, bad_rows: npt.NDArray[np.bool_], why: str) -> None:
    if bad_rows.any():
        column = asset.sources[0] if len(asset.sources) == 1 else asset.name
        raise IngestError(why, column=column, rows=int(bad_rows.sum()))


def _sync(directory: Path) -> None:
    for path in directory.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    _sync_directory(directory)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_asset_specs(path: Path) -> list[AssetSpec]:
    """A JSON list of assets, or an object with that list under "assets"."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise IngestError(f"{path} is not a readable JSON file") from error
    listed = document.get("assets") if isinstance(document, dict) else document
    if not isinstance(listed, list):
        raise IngestError(f"{path} must hold a list of assets")
    return [AssetSpec.from_document(asset) for asset in listed]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m runner.ingest",
        description="Turns a file into an immutable dataset version whose examples are grouped by privacy unit, and "
        "prints its handle as JSON. Register that handle with the service.",
        epilog='The assets file: [{"name": "images", "dtype": "float32", "shape": [64], "minimum": 0, "maximum": 1}, '
        '{"name": "labels", "dtype": "int64", "columns": ["digit"]}]. Without "columns", an asset is read from the '
        "column of its own name.",
    )
    file = parser.add_mutually_exclusive_group(required=True)
    file.add_argument("--npz", type=Path, metavar="FILE", help="named arrays, one row each along the first dimension")
    file.add_argument("--csv", type=Path, metavar="FILE", help="comma-separated, with a header line")
    file.add_argument("--parquet", type=Path, metavar="FILE", help="columns of numbers, or of lists of one length")
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--unit-column", metavar="NAME", help="the column that says whose row it is: who is protected")
    who.add_argument("--public-holdout", action="store_true", help="public data for evaluation: nobody to protect")
    parser.add_argument("--assets", type=Path, required=True, metavar="JSON", help="what each asset is; see below")
    parser.add_argument("--data-root", type=Path, required=True, metavar="DIR", help="where dataset versions live")
    parser.add_argument(
        "--max-examples-per-unit", type=int, metavar="N", help="keep each unit's first N rows (default: all)"
    )
    options = parser.parse_args(arguments)
    kind = next(name for name in ("npz", "csv", "parquet") if getattr(options, name) is not None)
    try:
        handle = ingest(
            open_source(getattr(options, kind), kind, options.unit_column),
            read_asset_specs(options.assets),
            options.data_root,
            unit_column=options.unit_column,
            max_examples_per_unit=options.max_examples_per_unit,
        )
    except (IngestError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"version_handle": handle}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
