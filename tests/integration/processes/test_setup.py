from __future__ import annotations

from pathlib import Path

import pytest

from scripts import get_opa


def test_where_nothing_can_be_built_the_error_says_where_to_put_an_opa(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho 'no route to the module proxy' >&2\nexit 1\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PYSYTFF_OPA_PATH", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # nor is there a toolchain to be had
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)

    with pytest.raises(get_opa.OpaError) as caught:
        get_opa.ensure()

    assert "no route to the module proxy" in str(caught.value)
    assert f"or at {get_opa.cached()}" in str(caught.value)
    assert [] == list(get_opa.cached().parent.iterdir())
