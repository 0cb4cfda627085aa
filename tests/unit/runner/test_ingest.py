"""A file becomes a dataset version whose examples are grouped by unit, or is refused with the column and a count."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from runner.errors import IngestError
from runner.ingest import AssetSpec, ingest, main, open_source
from runner.silos import Silos

WRITERS = ["w", "v", "w", "u", "v", "w"]
IMAGES = [[0.0, 0.1], [0.2, 0.3], [0.4, 0.5], [0.6, 0.7], [0.8, 0.9], [1.0, 0.5]]
DIGITS = [0, 1, 2, 3, 4, 5]
BY_WRITER = {"w": [0, 2, 5], "v": [1, 4], "u": [3]}
ASSETS = [
    AssetSpec("images", "float32", (2,), ("a", "b"), minimum=0.0, maximum=1.0),
    AssetSpec("labels", "int64", (), ("digit",), minimum=0, maximum=9),
]


def table(**changes: Any) -> dict[str, Any]:
    columns = {"writer": WRITERS, "a": [i[0] for i in IMAGES], "b": [i[1] for i in IMAGES], "digit": DIGITS}
    return columns | changes


def write(directory: Path, kind: str, columns: Mapping[str, Sequence[Any]]) -> Path:
    path = directory / f"source.{kind}"
    if kind == "npz":
        np.savez(path, **{name: np.array(values) for name, values in columns.items()})
    elif kind == "parquet":
        pyarrow.parquet.write_table(pa.table(dict(columns)), path, row_group_size=4)
    else:
        pyarrow.csv.write_csv(pa.table(dict(columns)), path)
    return path


def version(directory: Path, kind: str, columns: Mapping[str, Sequence[Any]], **options: Any) -> Path:
    unit_column = options.pop("unit_column", "writer")
    assets = options.pop("assets", ASSETS)
    source = open_source(write(directory, kind, columns), kind, unit_column)
    handle = ingest(source, assets, directory / "data", unit_column=unit_column, **options)
    return directory / "data" / "datasets" / handle


def refusal(directory: Path, kind: str, columns: Mapping[str, Sequence[Any]], **options: Any) -> IngestError:
    with pytest.raises(IngestError) as refused:
        version(directory, kind, columns, **options)
    versions = directory / "data" / "datasets"
    assert not versions.exists() or not list(versions.iterdir())  # nothing is left behind
    return refused.value


def units_of(silos: Silos) -> set[tuple[int, ...]]:
    return {tuple(silos.gather(np.array([u])).labels.tolist()) for u in range(silos.units)}


@pytest.mark.parametrize("kind", ["npz", "csv", "parquet"])
def test_examples_are_grouped_by_unit_in_the_files_order(tmp_path: Path, kind: str) -> None:
    silos = Silos(version(tmp_path, kind, table()), "images", "labels")
    assert {tuple(rows) for rows in BY_WRITER.values()} == units_of(silos)
    everyone = silos.gather(np.arange(3))
    for image, label in zip(everyone.features, everyone.labels, strict=True):
        np.testing.assert_array_equal(np.array(IMAGES[label], np.float32), image)


@pytest.mark.parametrize("kind", ["npz", "csv", "parquet"])
def test_a_unit_keeps_its_first_rows_only(tmp_path: Path, kind: str) -> None:
    silos = Silos(version(tmp_path, kind, table(), max_examples_per_unit=2), "images", "labels")
    assert {(0, 2), (1, 4), (3,)} == units_of(silos)


def test_an_asset_may_be_one_column_of_lists(tmp_path: Path) -> None:
    assets = [AssetSpec("images", "float32", (2,), ("image",)), AssetSpec("labels", "int64", (), ("digit",))]
    columns: dict[str, list[Any]] = {"writer": WRITERS, "image": IMAGES, "digit": DIGITS}
    for kind in ("npz", "parquet"):
        (tmp_path / kind).mkdir()
        silos = Silos(version(tmp_path / kind, kind, columns, assets=assets), "images", "labels")
        assert 6 == len(silos.gather(np.arange(3)).features)


def test_lists_of_different_lengths_are_refused_also_when_their_total_would_fit(tmp_path: Path) -> None:
    assets = [AssetSpec("images", "float32", (2,), ("image",))]
    columns: dict[str, list[Any]] = {"writer": ["a", "b"], "image": [[1.0], [1.0, 2.0, 3.0]]}
    assert "different lengths" in str(refusal(tmp_path, "parquet", columns, assets=assets))


def test_batches_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.ingest.BATCH_ROWS", 2)
    for kind in ("npz", "parquet"):
        (tmp_path / kind).mkdir()
        assert {tuple(rows) for rows in BY_WRITER.values()} == units_of(
            Silos(version(tmp_path / kind, kind, table()), "images", "labels")
        )


def test_units_are_not_in_the_order_of_their_names(tmp_path: Path) -> None:
    columns = table(writer=[f"{i:03}" for i in range(6)])
    orders = set()
    for name in range(6):
        (tmp_path / str(name)).mkdir()
        silos = Silos(version(tmp_path / str(name), "csv", columns), "images", "labels")
        orders.add(tuple(silos.gather(np.arange(6)).labels.tolist()))
    assert len(orders) > 1  # the same order six times has probability 720^-5


def test_a_public_holdout_needs_no_units(tmp_path: Path) -> None:
    silos = Silos(version(tmp_path, "npz", table(), unit_column=None), "images", "labels")
    assert {(digit,) for digit in DIGITS} == units_of(silos)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("missing", [None, "  "])
def test_rows_without_a_unit_are_refused(tmp_path: Path, kind: str, missing: str | None) -> None:
    error = refusal(tmp_path, kind, table(writer=["w", missing, "w", "u", missing, "w"]))
    assert ("writer", 2) == (error.column, error.rows)


def test_a_unit_that_is_nan_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, "npz", table(writer=[1.0, float("nan"), 2.0, 2.0, 1.0, 1.0]))
    assert ("writer", 1) == (error.column, error.rows)


@pytest.mark.parametrize(
    ("changes", "column", "rows", "why"),
    [
        ({"digit": [0, 1, 2, 3, 4, 11]}, "digit", 1, "above"),
        ({"digit": [-1, 1, 2, -3, 4, 5]}, "digit", 2, "below"),
        ({"digit": [0.5, 1, 2, 3, 4, 5]}, "digit", 1, "no int64"),
        ({"a": [float("nan"), 1, 0, 0, 0, float("inf")]}, "images", 2, "finite"),
    ],
)
@pytest.mark.parametrize("kind", ["npz", "csv", "parquet"])
def test_values_that_break_the_declaration_are_refused_with_column_and_count(
    tmp_path: Path, kind: str, changes: dict[str, Any], column: str, rows: int, why: str
) -> None:
    error = refusal(tmp_path, kind, table(**changes))
    assert (column, rows) == (error.column, error.rows)
    assert why in error.why


def test_a_value_too_large_for_the_declared_dtype_is_refused(tmp_path: Path) -> None:
    assets = [AssetSpec("images", "float32", (), ("a",))]
    assert "too large" in str(refusal(tmp_path, "npz", table(a=[1e300, 0, 0, 0, 0, 0]), assets=assets))
    assets = [AssetSpec("labels", "uint8", (), ("digit",))]
    assert "no uint8" in str(refusal(tmp_path, "npz", table(digit=[256, 1, 2, 3, 4, 5]), assets=assets))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_an_empty_cell_is_refused(tmp_path: Path, kind: str) -> None:
    error = refusal(tmp_path, kind, table(digit=[0, 1, None, 3, 4, 5]))
    assert ("digit", 1) == (error.column, error.rows)


@pytest.mark.parametrize("kind", ["npz", "csv", "parquet"])
def test_a_column_that_is_missing_is_named(tmp_path: Path, kind: str) -> None:
    columns = table()
    del columns["digit"]
    assert "digit" == refusal(tmp_path, kind, columns).column


@pytest.mark.parametrize("kind", ["npz", "csv", "parquet"])
def test_text_where_numbers_are_declared_is_refused_and_not_quoted(tmp_path: Path, kind: str) -> None:
    error = refusal(tmp_path, kind, table(digit=["secret diagnosis", "1", "2", "3", "4", "5"]))
    assert "secret" not in str(error)


@pytest.mark.parametrize("kind", ["npz", "csv", "parquet"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff\x00garbage"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, kind: str, content: bytes) -> None:
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(IngestError):
        ingest(open_source(path, kind, "writer"), ASSETS, tmp_path / "data", unit_column="writer")


def test_python_objects_in_an_npz_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "source.npz", writer=np.array([object()], dtype=object))
    with pytest.raises(IngestError, match="never loaded"):
        ingest(open_source(tmp_path / "source.npz", "npz", "writer"), ASSETS, tmp_path, unit_column="writer")


def test_columns_of_different_lengths_are_refused(tmp_path: Path) -> None:
    assert "rows" in str(refusal(tmp_path, "npz", table(digit=[1, 2, 3])))


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space"):
        version(tmp_path, "npz", table())
    assert [] == list((tmp_path / "data" / "datasets").iterdir())


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"name": "x"},
        {"name": "../x", "dtype": "float32"},
        {"name": "offsets", "dtype": "float32"},
        {"name": "x", "dtype": "object"},
        {"name": "x", "dtype": "float32", "shape": [0]},
        {"name": "x", "dtype": "float32", "shape": [True]},
        {"name": "x", "dtype": "float32", "shape": [2], "columns": ["a", "b", "c"]},
        {"name": "x", "dtype": "float32", "minimum": "0"},
        {"name": "x", "dtype": "float32", "scale": 16},
    ],
)
def test_a_declaration_that_says_nothing_sensible_is_refused(document: object) -> None:
    with pytest.raises(IngestError):
        AssetSpec.from_document(document)


def test_the_command_prints_a_handle_that_names_the_version(tmp_path: Path) -> None:
    (tmp_path / "assets.json").write_text(
        json.dumps(
            [
                {"name": "images", "dtype": "float32", "shape": [2], "columns": ["a", "b"]},
                {"name": "labels", "dtype": "int64", "columns": ["digit"]},
            ]
        )
    )
    source = write(tmp_path, "csv", table())
    command = ["--csv", str(source), "--unit-column", "writer", "--assets", str(tmp_path / "assets.json")]
    done = subprocess.run(
        [sys.executable, "-m", "runner.ingest", *command, "--data-root", str(tmp_path / "data")],
        capture_output=True,
        text=True,
        check=True,
    )
    handle = json.loads(done.stdout)["version_handle"]
    assert 3 == Silos(tmp_path / "data" / "datasets" / handle, "images", "labels").units


def test_the_command_explains_a_refusal_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "assets.json").write_text('[{"name": "labels", "dtype": "int64", "columns": ["nowhere"]}]')
    source = write(tmp_path, "csv", table())
    command = ["--csv", str(source), "--unit-column", "writer", "--assets", str(tmp_path / "assets.json")]
    assert 1 == main([*command, "--data-root", str(tmp_path / "data")])
    assert "error: column 'nowhere': is not in the file" in capsys.readouterr().err


def test_ingesting_loads_no_tensorflow() -> None:
    check = "import sys, runner.ingest; sys.exit('tensorflow' in sys.modules)"
    assert 0 == subprocess.run([sys.executable, "-c", check], check=False).returncode
