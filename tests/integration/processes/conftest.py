from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.integration.processes.nodes import pysytff_server


@pytest.fixture(scope="session")
def made_node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "node"
    made = pysytff_server(folder, "init", "--email", "admin@example.org")
    assert (0, "") == (made.returncode, made.stderr)
    return folder


@pytest.fixture
def node(made_node: Path, tmp_path: Path) -> Path:
    """A node of the test's own, as ``init`` made it."""
    folder = tmp_path / "node"
    shutil.copytree(made_node, folder)
    os.chmod(folder, 0o700)
    return folder
