from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from api import logging, serving
from api.settings import load


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_the_level_of_the_settings_is_the_level_of_the_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Configured(Exception):
        pass

    def configure(*, level: str) -> None:
        raise Configured(level)

    monkeypatch.setattr(logging, "configure", configure)
    with socket.socket() as listener, pytest.raises(Configured, match="warning"):
        serving.serve(load(data_dir=tmp_path, log_level="warning"), listener)
