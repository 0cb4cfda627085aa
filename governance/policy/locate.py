"""Where OPA is. ``scripts/get_opa.py`` puts it there; this finds it when the service runs.

Invariants
- The order: ``PYSYTFF_OPA_PATH``; ``opa`` on PATH; the cache ``$XDG_CACHE_HOME/pysytff/opa/<pinned>/opa``.
- What is returned starts, and is at least the pinned minor version, of the same major version.
- A setting that names an unusable binary is an error: the search does not go on past what somebody asked for.

This module does not: build or download anything.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from governance.errors import PolicyUnreachableError

PINNED = (1, 22, 2)
SETTING = "PYSYTFF_OPA_PATH"
POLICIES_DIR = Path(__file__).resolve().parents[2] / "policies"
_START_TIMEOUT_S = 30
_VERSION = re.compile(r"^Version:\s*v?(\d+)\.(\d+)\.(\d+)", re.MULTILINE)


def find_opa(environment: Mapping[str, str] | None = None) -> Path:
    """The OPA to use. Raises ``PolicyUnreachableError`` that says what to do."""
    settings = os.environ if environment is None else environment
    configured = settings.get(SETTING)
    if configured:
        version = version_of(Path(configured))
        if version is None or not acceptable(version):
            found = "does not start" if version is None else f"is {_text(version)}"
            raise PolicyUnreachableError(f"{SETTING}={configured} {found}; {_NEEDED}.")
        return Path(configured)
    for candidate in (shutil.which("opa", path=settings.get("PATH")), cached(settings)):
        version = version_of(Path(candidate)) if candidate else None
        if candidate and version and acceptable(version):
            return Path(candidate)
    raise PolicyUnreachableError(
        f"No usable OPA on PATH or at {cached(settings)}; {_NEEDED}. Run `make setup`, which builds it there, "
        f"or name one with {SETTING}."
    )


def cached(settings: Mapping[str, str]) -> Path:
    """A relative XDG_CACHE_HOME is invalid and ignored, as the XDG base directory specification says."""
    configured = settings.get("XDG_CACHE_HOME", "")
    base = Path(configured) if os.path.isabs(configured) else Path.home() / ".cache"
    return base / "pysytff" / "opa" / _text(PINNED) / "opa"


def acceptable(version: tuple[int, ...]) -> bool:
    return PINNED[:2] <= version < (PINNED[0] + 1,)


def version_of(binary: Path) -> tuple[int, ...] | None:
    """None where it does not start or is no OPA."""
    try:
        answer = subprocess.run([str(binary), "version"], capture_output=True, text=True, timeout=_START_TIMEOUT_S)
    except (OSError, UnicodeDecodeError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(answer.stdout)
    return tuple(int(part) for part in match.groups()) if match else None


def _text(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


_NEEDED = f"at least {PINNED[0]}.{PINNED[1]} and below {PINNED[0] + 1} is needed"
