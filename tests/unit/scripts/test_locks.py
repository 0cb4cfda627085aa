"""The committed lock: one resolution in three views, every package with its hash, and no host's name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).resolve().parents[3]
LOCKS = CHECKOUT / "locks"
VIEWS = ("server", "runner", "dev")
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
SDK = tomllib.loads((CHECKOUT / "pysytff" / "pyproject.toml").read_text())


def locked(name: str) -> dict[str, tuple[str, int]]:
    """Package → (version, number of hashes)."""
    found: dict[str, tuple[str, int]] = {}
    package = ""
    for line in (LOCKS / f"{name}.txt").read_text().splitlines():
        pinned = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", line)
        if pinned:
            package = canonicalize_name(pinned[1])
            found[package] = (pinned[2], 0)
        elif "--hash=sha256:" in line:
            version, hashes = found[package]
            found[package] = (version, hashes + 1)
        else:
            raise AssertionError(f"locks/{name}.txt holds something else: {line!r}")
    return found


def asked_for(*groups: str) -> list[Requirement]:
    texts = [*PROJECT["project"]["dependencies"]]
    for group in groups:
        texts += PROJECT["dependency-groups"][group]
    if "dev" in groups:
        texts += SDK["project"]["dependencies"]
    return [Requirement(text) for text in texts if text != "pysytff"]


@pytest.mark.parametrize("view", [*VIEWS, "tools", "build", "go"])
def test_every_locked_package_has_a_hash(view: str) -> None:
    assert [] == [package for package, (_, hashes) in locked(view).items() if hashes == 0]


@pytest.mark.parametrize("path", sorted(LOCKS.iterdir()), ids=lambda path: path.name)
def test_no_file_of_the_lock_names_a_host(path: Path) -> None:
    assert [] == re.findall(r"https?:|--index|--find-links|//", path.read_text())


@pytest.mark.parametrize(
    ("view", "groups"), [("server", ("server",)), ("runner", ("runner",)), ("dev", ("server", "runner", "dev"))]
)
def test_the_lock_satisfies_what_pyproject_asks_for(view: str, groups: tuple[str, ...]) -> None:
    versions = locked(view)
    unsatisfied = [
        str(wanted)
        for wanted in asked_for(*groups)
        if canonicalize_name(wanted.name) not in versions
        or not wanted.specifier.contains(versions[canonicalize_name(wanted.name)][0])
    ]

    assert [] == unsatisfied


@pytest.mark.parametrize("view", ["server", "runner"])
def test_the_views_are_of_one_resolution(view: str) -> None:
    everything = locked("dev")

    assert {} == {package: pin for package, pin in locked(view).items() if everything.get(package) != pin}


def test_an_api_host_installs_no_tensorflow() -> None:
    assert [] == [package for package in locked("server") if "tensorflow" in package or package.startswith("jax")]
