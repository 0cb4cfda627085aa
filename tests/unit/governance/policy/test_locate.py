"""Finding OPA. The binaries here are scripts that only know their version."""

from __future__ import annotations

from pathlib import Path

import pytest

from governance.errors import PolicyUnreachableError
from governance.policy import locate
from governance.policy.locate import acceptable, find_opa, version_of
from scripts import get_opa


def made(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    binary = folder / "opa"
    binary.write_text(f"#!/bin/sh\necho 'Version: {version}'\n")
    binary.chmod(0o755)
    return binary


def test_the_setting_comes_first(tmp_path: Path) -> None:
    named, on_path = made(tmp_path / "named", "1.22.2"), made(tmp_path / "bin", "1.23.0")
    assert named == find_opa({"PYSYTFF_OPA_PATH": str(named), "PATH": f"{on_path.parent}:/bin"})


@pytest.mark.parametrize("version", ["1.21.9", "0.70.0", "2.0.0", "nonsense"])
def test_a_setting_that_names_an_unusable_one_is_an_error(tmp_path: Path, version: str) -> None:
    named, on_path = made(tmp_path / "named", version), made(tmp_path / "bin", "1.22.2")
    with pytest.raises(PolicyUnreachableError, match="PYSYTFF_OPA_PATH"):
        find_opa({"PYSYTFF_OPA_PATH": str(named), "PATH": str(on_path.parent)})


def test_path_comes_before_the_cache(tmp_path: Path) -> None:
    on_path = made(tmp_path / "bin", "1.30.1")
    made(tmp_path / "pysytff/opa/1.22.2", "1.22.2")
    assert on_path == find_opa({"PATH": str(on_path.parent), "XDG_CACHE_HOME": str(tmp_path)})


def test_an_old_one_on_path_is_passed_over_for_the_cache(tmp_path: Path) -> None:
    on_path, in_cache = made(tmp_path / "bin", "0.60.0"), made(tmp_path / "pysytff/opa/1.22.2", "1.22.2")
    assert in_cache == find_opa({"PATH": str(on_path.parent), "XDG_CACHE_HOME": str(tmp_path)})


def test_where_there_is_none_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PolicyUnreachableError, match="make setup"):
        find_opa({"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)})


def test_a_file_that_does_not_start_is_no_opa(tmp_path: Path) -> None:
    assert version_of(tmp_path / "missing") is None
    (tmp_path / "text").write_text("not a program")
    assert version_of(tmp_path / "text") is None


def test_the_pinned_minor_and_later_ones_are_acceptable() -> None:
    versions = [(1, 21, 9), (1, 22, 0), (1, 22, 2), (1, 40, 0), (2, 0, 0)]
    assert [False, True, True, True, False] == [acceptable(version) for version in versions]


def test_set_up_and_service_look_for_the_same_opa() -> None:
    assert get_opa.PINNED == locate.PINNED
    assert get_opa.cached() == locate.cached({"XDG_CACHE_HOME": str(get_opa.cached().parents[3])})
