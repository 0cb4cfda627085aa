from __future__ import annotations

from pathlib import Path

import pytest

from governance.policy import locate
from scripts import get_opa


def make_opa(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho 'Version: {version}'\necho 'Go Version: go1.0.0'\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def _bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PYSYTFF_OPA_PATH", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_an_opa_on_the_path_of_a_later_minor_version_is_used(tmp_path: Path) -> None:
    opa = make_opa(tmp_path / "bin" / "opa", "1.30.0")

    assert get_opa.Found(opa, "1.30.0", "found on PATH") == get_opa.find()


@pytest.mark.parametrize("version", ["1.21.9", "2.0.0", "0.70.0"])
def test_an_opa_on_the_path_that_is_too_old_or_of_another_major_version_is_passed_over(
    tmp_path: Path, version: str
) -> None:
    make_opa(tmp_path / "bin" / "opa", version)
    cached = make_opa(get_opa.cached(), "1.22.2")

    assert get_opa.Found(cached, "1.22.2", "from the cache") == get_opa.find()


def test_a_named_opa_that_is_unusable_is_an_error_even_where_another_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_opa(tmp_path / "bin" / "opa", "1.22.2")
    monkeypatch.setenv("PYSYTFF_OPA_PATH", str(tmp_path / "missing"))

    with pytest.raises(get_opa.OpaError, match="it does not start"):
        get_opa.find()


def test_a_file_that_is_no_opa_is_passed_over(tmp_path: Path) -> None:
    other = tmp_path / "bin" / "opa"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\nexit 3\n")
    other.chmod(0o755)

    assert get_opa.find() is None


def test_the_service_looks_where_set_up_puts_it() -> None:
    cached = make_opa(get_opa.cached(), "1.22.2")

    assert get_opa.PINNED == locate.PINNED
    assert cached == locate.find_opa()
