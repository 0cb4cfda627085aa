"""The same person has the same key in every version of a data root, and keys say nothing without its secret."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from runner.errors import DataLayoutError, IngestError
from runner.ingest import AssetSpec, ingest, open_source
from runner.silos import Silos
from runner.unit_keys import SECRET_FILE, UnitKeys, disjoint, main, read_keys
from tests.integration.runner.made_data import HANDLE, write_version

ASSETS = [AssetSpec("x", "int64")]


def laid_out(root: Path, kind: str, who: Sequence[Any], **options: Any) -> Path:
    """A version whose rows are 0, 1, 2, … of these units."""
    columns: Mapping[str, Any] = {"who": who, "x": list(range(len(who)))}
    path = root.parent / f"source.{kind}"
    if kind == "npz":
        np.savez(path, **{name: np.array(values) for name, values in columns.items()})
    elif kind == "parquet":
        pyarrow.parquet.write_table(pa.table(dict(columns)), path)
    else:
        pyarrow.csv.write_csv(pa.table(dict(columns)), path)
    handle = ingest(open_source(path, kind, "who"), ASSETS, root, unit_column="who", **options)
    return root / "datasets" / handle


def by_rows(version: Path) -> dict[tuple[int, ...], bytes]:
    """Each unit's key, by the rows that it owns."""
    silos, keys = Silos(version, "x", "x"), read_keys(version)
    return {tuple(silos.gather(np.array([u])).features.tolist()): keys[u] for u in range(silos.units)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_a_person_has_the_same_key_whatever_the_format_and_type(root: Path) -> None:
    as_text, as_float = ["7", "8", "7", "-9"], [7.0, 8.0, 7.0, -9.0]
    expected = by_rows(laid_out(root, "npz", [7, 8, 7, -9]))
    assert {(0, 2), (1,), (3,)} == set(expected)
    assert 3 == len(set(expected.values()))
    for kind, who in [
        ("npz", np.array([7, 8, 7, -9], np.int8)),
        ("npz", as_float),
        ("npz", np.array(as_float, np.float32)),
        ("npz", as_text),
        ("npz", np.array(as_text, "S3")),
        ("csv", [7, 8, 7, -9]),
        ("csv", as_text),
        ("parquet", [7, 8, 7, -9]),
        ("parquet", as_float),
        ("parquet", as_text),
        ("parquet", [one.encode() for one in as_text]),
        ("parquet", [Decimal(one).quantize(Decimal("0.01")) for one in as_text]),
        ("parquet", pa.array(as_text).dictionary_encode()),
    ]:
        assert expected == by_rows(laid_out(root, kind, who)), (kind, who)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Amélie", "Ame\u0301lie"), ("\u212bngstr\u00f6m", "A\u030angstro\u0308m"), ("ada", " ada\u00a0"), ("7", "7 ")],
)
def test_two_spellings_that_look_alike_are_one_unit(root: Path, one: str, other: str) -> None:
    both = by_rows(laid_out(root, "parquet", [one, other, "eve"]))
    assert {(0, 1), (2,)} == set(both)  # also within one version, and so under one cap
    assert both[0, 1] == by_rows(laid_out(root, "csv", [other]))[0,]
    assert {(0,), (2,)} == set(by_rows(laid_out(root, "npz", [one, other, "eve"], max_examples_per_unit=1)))


@pytest.mark.parametrize(("one", "other"), [("ada", "Ada"), ("7", "07"), ("7", "7.0"), ("7", "+7"), ("a b", "a  b")])
def test_what_differs_otherwise_is_two_units(root: Path, one: str, other: str) -> None:
    assert 2 == len(set(by_rows(laid_out(root, "parquet", [one, other])).values()))


@pytest.mark.parametrize(
    ("who", "why"),
    [
        ([1.5, 2.0], "fractions"),
        ([2.0**53 + 2, 1.0], "too large"),
        ([float("inf"), 1.0], "too large"),
        (np.array([2**24 + 2, 1], np.float32), "too large"),
        ([b"\xff", b"a"], "no text in UTF-8"),
    ],
)
def test_what_identifies_nobody_is_refused_with_column_and_count(root: Path, who: Any, why: str) -> None:
    with pytest.raises(IngestError, match=why) as refused:
        laid_out(root, "npz", who)
    assert "who" == refused.value.column
    assert [] == list((root / "datasets").glob("*"))


def test_a_key_is_the_truncated_hmac_of_the_canonical_form(root: Path) -> None:
    found = by_rows(laid_out(root, "npz", ["Ame\u0301lie"]))
    message = b"pysytff.unit/1\0" + "Amélie".encode()
    secret = (root / SECRET_FILE).read_bytes()
    assert hmac.new(secret, message, hashlib.sha256).digest()[:16] == found[0,].ljust(16, b"\0")


def test_keys_of_another_data_root_are_others(root: Path, tmp_path: Path) -> None:
    one, other = laid_out(root, "npz", [1, 2, 3]), laid_out(tmp_path / "other", "npz", [1, 2, 3])
    assert not set(by_rows(one).values()) & set(by_rows(other).values())


def test_the_secret_is_its_owners_alone_and_not_shown(root: Path) -> None:
    laid_out(root, "npz", [1])
    path = root / SECRET_FILE
    assert 0o600 == os.stat(path).st_mode & 0o777
    assert path.read_bytes().hex() not in repr(UnitKeys.of(root)) + UnitKeys.of(root).key_id
    path.chmod(0o640)
    with pytest.raises(IngestError, match="chmod 600"):
        UnitKeys.of(root)


def test_of_many_that_make_the_secret_at_once_one_wins_and_nothing_else_stays(root: Path) -> None:
    root.mkdir()
    with ThreadPoolExecutor(16) as threads:
        made = {keys.key_id for keys in threads.map(lambda _: UnitKeys.of(root), range(64))}
    assert 1 == len(made)
    assert [SECRET_FILE] == [path.name for path in root.iterdir()]


def test_a_damaged_secret_is_not_replaced(root: Path) -> None:
    root.mkdir()
    (root / SECRET_FILE).write_bytes(b"short")
    (root / SECRET_FILE).chmod(0o600)
    with pytest.raises(IngestError, match="restore it"):
        laid_out(root, "npz", [1])
    assert b"short" == (root / SECRET_FILE).read_bytes()


def test_a_public_holdout_has_no_keys_and_needs_no_secret(root: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "holdout.npz", x=np.arange(3))
    handle = ingest(open_source(tmp_path / "holdout.npz", "npz", None), ASSETS, root, unit_column=None)
    assert not (root / "datasets" / handle / "unit_keys.npy").exists()
    assert not (root / SECRET_FILE).exists()


# --- overlap ---


def test_groups_are_disjoint_only_if_no_unit_is_in_both(root: Path) -> None:
    a, b, c = (laid_out(root, kind, who) for kind, who in (("npz", [1, 2]), ("csv", [3]), ("parquet", ["4", "2"])))
    assert disjoint([a], [b])
    assert not disjoint([a], [c])
    assert disjoint([b], [c, c])
    assert not disjoint([b, a], [c])
    assert not disjoint([a], [a])


def test_what_cannot_be_compared_is_refused_and_never_called_disjoint(root: Path, tmp_path: Path) -> None:
    ours, foreign = laid_out(root, "npz", [1]), laid_out(tmp_path / "other", "npz", [1])
    copied = root / "datasets" / ("ver_" + "a" * 24)
    shutil.copytree(foreign, copied)
    older = write_version(root, HANDLE, [(np.zeros((1, 2), np.float32), np.zeros(1, np.int64))])
    public = write_version(root, "ver_" + "1" * 24, [(np.zeros((1, 2)), np.zeros(1))], public=True)
    for other, why in ((copied, "different secrets"), (older, "lay it out again"), (public, "without privacy units")):
        for pair in (([ours], [other]), ([other], [ours])):
            with pytest.raises(DataLayoutError, match=why):
                disjoint(*pair)


@pytest.mark.parametrize("keys", [np.zeros((2, 16), np.uint8), np.zeros((1, 16), np.uint8), np.zeros((2, 8), np.uint8)])
def test_keys_that_are_not_those_of_the_units_are_refused(root: Path, keys: Any) -> None:
    version = laid_out(root, "npz", [1, 2])
    np.save(version / "unit_keys.npy", keys)
    with pytest.raises(DataLayoutError, match=r"unit_keys\.npy"):
        read_keys(version)


def overlap(root: Path, left: Sequence[str], right: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runner.unit_keys", "overlap", "--data-root", str(root)]
    return subprocess.run([*command, "--left", *left, "--right", *right], capture_output=True, text=True, check=False)


def test_the_command_answers_yes_or_no_and_nothing_else(root: Path) -> None:
    a, b, c = (laid_out(root, "npz", who).name for who in ([1, 2], [3], [2, 4]))
    yes, no = overlap(root, [a], [b]), overlap(root, [a, b], [c])
    assert (0, {"disjoint": True}) == (yes.returncode, json.loads(yes.stdout))
    assert (1, {"disjoint": False}) == (no.returncode, json.loads(no.stdout))
    assert "" == yes.stderr + no.stderr


@pytest.mark.parametrize("handle", ["ver_" + "b" * 24, "../../etc", ""])
def test_the_command_ends_with_two_where_it_cannot_tell(
    root: Path, handle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    known = laid_out(root, "npz", [1, 2]).name
    assert 2 == main(["overlap", "--data-root", str(root), "--left", known, "--right", handle])
    said = capsys.readouterr()
    assert ("", True) == (said.out, said.err.startswith("error: "))
