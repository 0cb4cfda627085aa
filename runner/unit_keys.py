"""Who a unit is, across dataset versions of one data root: a keyed digest instead of a name.

``unit_keys.npy`` of a version (uint8 [units, 16], in the order of its units) holds for each unit the first 16 bytes of
HMAC-SHA-256 over its canonical form, under the secret ``<data root>/unit-key``. The manifest's ``unit_key_id`` says
under which secret, because keys of two secrets never meet, and the same people would seem to be strangers.

The canonical form is text, because CSV knows nothing else:
- an integer is its decimal digits, so 7, 7.0 and the text "7" are one unit; "07" and "7.0" as text are others;
- text is taken in Unicode's NFC, and without white space around it: two spellings that look alike are one person;
- text keeps its case. Fractions, and floats too large to tell neighbours apart, are refused: they identify nobody.

Invariants
- Two units of one version never have the same key: what is one canonical form is one unit.
- Keys stay on the hosts that mount the data root; without the secret they tell nothing about who is in the data.
- An answer about overlap is yes or no; no count leaves (privacy rule 7).

``python -m runner.unit_keys overlap`` answers whether two groups of versions share a unit. This module does not: lay
out or join data (``ingest.py`` and ``joined.py`` do). It never imports TensorFlow.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import os
import secrets
import sys
import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from runner.errors import DataLayoutError, IngestError, RunnerError
from runner.silos import read_manifest, require_private, version_directory

KEY_BYTES: Final = 16
KEYS_FILE: Final = "unit_keys.npy"
SECRET_FILE: Final = "unit-key"
_SECRET_BYTES: Final = 32
_UNIT: Final = b"pysytff.unit/1\0"
_KEY_ID: Final = b"pysytff.unit-key-id/1\0"

Keys = npt.NDArray[np.bytes_]  # dtype S16: compared and sorted as what they are, sixteen bytes


class UnitKeys:
    """The data root's secret. ``repr`` does not show it."""

    __slots__ = ("__secret", "key_id")

    def __init__(self, secret: bytes) -> None:
        self.__secret = secret
        self.key_id = hmac.digest(secret, _KEY_ID, "sha256")[:8].hex()

    @classmethod
    def of(cls, data_root: Path) -> UnitKeys:
        """Makes the secret at first use; of several processes, one wins. Raises ``IngestError``."""
        path = data_root / SECRET_FILE
        if not path.exists():
            _make_secret(path)
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise IngestError(f"{path} is open to others: chmod 600")
            secret = file.read(_SECRET_BYTES + 1)
        if len(secret) != _SECRET_BYTES:
            raise IngestError(f"{path} does not hold {_SECRET_BYTES} bytes; restore it, or lay all data out again")
        return cls(secret)

    def __repr__(self) -> str:
        return "UnitKeys(<secret>)"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("the secret of a data root is not copied or stored elsewhere")

    def keys(self, values: npt.NDArray[Any]) -> Keys:
        """One key for each of ``values``, as ``plain_values`` returned them."""
        found = np.empty(len(values), dtype=f"S{KEY_BYTES}")
        secret = self.__secret
        for index, value in enumerate(values.tolist()):
            form = unicodedata.normalize("NFC", str(value)).strip().encode("utf-8", "surrogatepass")
            found[index] = hmac.digest(secret, _UNIT + form, hashlib.sha256)[:KEY_BYTES]
        return found


def plain_values(column: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A unit column as integers or text, one for each row. Raises ``IngestError``: rows without a unit, too, are
    refused.
    """
    if values.ndim != 1:
        raise IngestError("must hold one unit for each row", column=column)
    if values.dtype.kind in "iu":
        return values
    if values.dtype.kind == "f":
        _refuse(column, np.isnan(values), "has rows without a unit, which nobody could protect")
        exact = 2.0 ** (np.finfo(values.dtype).nmant + 1)
        _refuse(column, ~(np.abs(values) <= exact), "has numbers too large to tell people apart: use integers or text")
        _refuse(column, values != np.floor(values), "has units that are fractions: use integers or text")
        return values.astype(np.int64)
    if values.dtype.kind not in "OUS":
        raise IngestError("must hold integers or text", column=column)
    text = _text(column, values)
    _refuse(column, np.char.strip(text) == "", "has rows without a unit, which nobody could protect")
    return text


def key_id(directory: Path) -> str:
    """Under which secret a version was laid out, from its manifest. Raises ``DataLayoutError`` if it has no keys."""
    found = read_manifest(directory).get("unit_key_id")
    if not isinstance(found, str):
        raise DataLayoutError(
            directory.name, "it has no unit keys (an earlier release laid it out); lay it out again to join or compare"
        )
    return found


def require_comparable(directories: Sequence[Path]) -> None:
    """Raises ``DataLayoutError`` unless all are private, with keys under one secret. Reads manifests only."""
    for directory in directories:
        require_private(directory)
        if key_id(directory) != key_id(directories[0]):
            raise DataLayoutError(
                directory.name,
                f"its unit keys and those of {directories[0].name} are of different secrets; lay one of them out again",
            )


def read_keys(directory: Path) -> Keys:
    """The keys of a version's units, in its order. Raises ``DataLayoutError``."""
    try:
        array: npt.NDArray[Any] = np.load(directory / KEYS_FILE, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataLayoutError(directory.name, f"{KEYS_FILE} is not readable: {error}") from error
    if array.dtype != np.uint8 or array.shape != (read_manifest(directory)["units"], KEY_BYTES):
        raise DataLayoutError(directory.name, f"{KEYS_FILE} does not have {KEY_BYTES} bytes for each unit")
    keys: Keys = np.ascontiguousarray(array).view(f"S{KEY_BYTES}").ravel()
    if len(np.unique(keys)) != len(keys):
        raise DataLayoutError(directory.name, f"{KEYS_FILE} has a key twice")
    return keys


def write_keys(directory: Path, keys: Keys) -> None:
    np.save(directory / KEYS_FILE, np.ascontiguousarray(keys).view(np.uint8).reshape(len(keys), KEY_BYTES))


def disjoint(left: Sequence[Path], right: Sequence[Path]) -> bool:
    """Whether no unit is in both groups of versions. Raises ``DataLayoutError``."""
    require_comparable([*left, *right])
    ours = np.unique(np.concatenate([read_keys(directory) for directory in left]))
    return not any(np.isin(read_keys(directory), ours).any() for directory in right)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m runner.unit_keys", description="What dataset versions say about who is in them."
    )
    overlap = parser.add_subparsers(required=True).add_parser(
        "overlap",
        help="whether two groups of versions share a unit",
        description='Prints {"disjoint": true} and ends with 0, or {"disjoint": false} and ends with 1; errors: 2.',
    )
    overlap.add_argument("--data-root", type=Path, required=True, metavar="DIR", help="where dataset versions live")
    for side in ("left", "right"):
        overlap.add_argument(f"--{side}", nargs="+", required=True, metavar="VERSION", help="version handles")
    options = parser.parse_args(arguments)
    try:
        left, right = (
            [version_directory(options.data_root, handle) for handle in handles]
            for handles in (options.left, options.right)
        )
        answer = disjoint(left, right)
    except (RunnerError, OSError, ValueError, MemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps({"disjoint": answer}))
    return 0 if answer else 1


def _text(column: str, values: npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    """Arrow's columns are of one type, so the first value tells for all."""
    try:
        if values.dtype.kind == "S":
            return np.char.decode(values, "utf-8")
        first = values[0] if len(values) else ""
        if isinstance(first, bytes):
            return np.array([value.decode("utf-8") for value in values], dtype=str)
    except UnicodeDecodeError:
        raise IngestError("has bytes that are no text in UTF-8", column=column) from None
    if isinstance(first, Decimal):
        return np.array([str(int(value)) if value == int(value) else str(value) for value in values], dtype=str)
    return values.astype(str)


def _refuse(column: str, bad: npt.NDArray[np.bool_], why: str) -> None:
    if bad.any():
        raise IngestError(why, column=column, rows=int(bad.sum()))


def _make_secret(path: Path) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(secrets.token_bytes(_SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(beside, path)  # whole or not at all, and never over another's
        except FileExistsError:
            return
    finally:
        beside.unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


if __name__ == "__main__":
    sys.exit(main())
