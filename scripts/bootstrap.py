"""Makes the environment: ``.venv`` with exactly the packages of the lock, and OPA. Started by ``make setup``.

Invariants
- Standard library only: it runs before anything is installed. It needs no root, and writes to this checkout, uv's cache
  and OPA's cache.
- Whatever is installed is in ``locks/`` with its hash, the build backend and uv itself included.
- A second run with nothing changed starts no installer: one stamp inside each environment names what it was made from,
  so a deleted, replaced or moved environment, another Python or a changed lock is made good, and nothing else is.

This module does not: resolve versions (``make lock`` does), or choose a package index (pip's and uv's own settings do).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from scripts import get_opa

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
TOOLS = ROOT / ".tools"
LOCKS = ROOT / "locks"
STAMP = "made-from.sha256"


class SetupError(Exception):
    """Set-up cannot go on; the text says why and what to do."""


def main() -> int:
    started = time.monotonic()
    try:
        with _OneAtATime():
            return _set_up(started)
    except SetupError as error:
        print(f"\nset-up failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up interrupted; run it again to go on", file=sys.stderr)
        return 130


def _set_up(started: float) -> int:
    environment_stamp = fingerprint(
        [LOCKS / "dev.txt", LOCKS / "build.txt", ROOT / "pyproject.toml", ROOT / "pysytff" / "pyproject.toml"], VENV
    )
    if is_current(VENV, environment_stamp) and (opa := get_opa.find()):
        print(f"set-up: nothing to do ({opa})")
        return 0

    with _OpaInParallel() as opa_search:
        if not is_current(VENV, environment_stamp):
            _install_packages(environment_stamp)
        _say(f"Python packages as in locks/dev.txt ({time.monotonic() - started:.0f} s)")
        _say(opa_search.result())
    _say(f"set-up done in {time.monotonic() - started:.0f} s")
    return 0


class _OpaInParallel:
    """Building OPA takes minutes on its own processor, so it runs beside the installers, and ends with them."""

    def __enter__(self) -> _OpaInParallel:
        command = [sys.executable, "-m", "scripts.get_opa"]
        self._process = subprocess.Popen(
            command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
        )
        return self

    def result(self) -> str:
        try:
            said, failed = self._process.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            _say("waiting for OPA; building it from source takes two to four minutes, once")
            said, failed = self._process.communicate()
        if self._process.returncode != 0:
            raise SetupError(failed.strip())
        return said.strip()

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)  # not SIGTERM: it then removes its scratch folder
            self._process.communicate()


def fingerprint(inputs: Iterable[Path], environment: Path) -> str:
    """SHA-256 over the inputs' bytes, the interpreter, and where the environment lies (scripts hold absolute paths)."""
    digest = hashlib.sha256()
    for item in (sys.version, os.path.realpath(sys.executable), str(environment)):
        digest.update(item.encode() + b"\0")
    for path in inputs:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def is_current(environment: Path, expected: str) -> bool:
    stamp = environment / STAMP
    return python_of(environment).exists() and stamp.exists() and stamp.read_text() == expected


def python_of(environment: Path) -> Path:
    return environment / "bin" / "python"


def _install_packages(stamp: str) -> None:
    _make_tools()
    if not _is_usable(VENV):
        _make_venv(VENV, with_pip=False)
    (VENV / STAMP).unlink(missing_ok=True)
    installer = [str(TOOLS / "bin" / "uv"), "pip"]
    target = ["--python", str(python_of(VENV))]
    locked = ["--require-hashes", str(LOCKS / "dev.txt")]
    _run([*installer, "sync", *target, *locked], "installing the Python packages")
    checkout = ["--no-deps", "--build-constraints", str(LOCKS / "build.txt"), "-e", ".", "-e", "./pysytff"]
    _run([*installer, "install", *target, *checkout], "installing this checkout")
    (VENV / STAMP).write_text(stamp)


def _make_tools() -> None:
    """uv, at one version and hash, in an environment of its own: the project's is then exactly the lock."""
    stamp = fingerprint([LOCKS / "tools.txt"], TOOLS)
    if is_current(TOOLS, stamp):
        return
    _say(f"getting uv with pip (Python {sys.version.split()[0]} at {sys.executable})")
    _make_venv(TOOLS, with_pip=True)
    pip = [str(python_of(TOOLS)), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    _run([*pip, "install", "--require-hashes", "-r", str(LOCKS / "tools.txt")], "getting uv from the package index")
    (TOOLS / STAMP).write_text(stamp)


def _make_venv(environment: Path, *, with_pip: bool) -> None:
    shutil.rmtree(environment, ignore_errors=True)
    options = [] if with_pip else ["--without-pip"]
    hint = "where the module venv or ensurepip is missing, install it (Debian, Ubuntu: the package python3.11-venv)"
    _run([sys.executable, "-m", "venv", *options, str(environment)], f"making {environment.name}", hint)


def _is_usable(environment: Path) -> bool:
    """It starts, is Python 3.11 and was made here: a moved one still starts, but its scripts name the old place."""
    code = "import sys; print(sys.version_info[:2] == (3, 11))"
    try:
        answer = subprocess.run([str(python_of(environment)), "-c", code], capture_output=True, text=True, timeout=60)
    except OSError:
        return False
    activate = environment / "bin" / "activate"
    return answer.stdout.strip() == "True" and activate.exists() and str(environment) in activate.read_text()


def _run(command: list[str], doing: str, hint: str = "") -> None:
    """Runs an installer. On a terminal its progress shows; elsewhere it is quiet unless it fails."""
    shown = sys.stderr.isatty()
    result = subprocess.run(command, cwd=ROOT, env=_installer_environment(), text=True, capture_output=not shown)
    if result.returncode != 0:
        said = "" if shown else (result.stdout + result.stderr).strip()[-4000:]
        advice = hint or "is the package index reachable? PIP_INDEX_URL and UV_DEFAULT_INDEX choose another one"
        raise SetupError(f"{doing} ended with status {result.returncode}.\n{said}\n({advice})")


def _installer_environment() -> dict[str, str]:
    """uv reads none of pip's settings, so those that a site sets for pip are passed on where uv has none of its own."""
    environment = dict(os.environ)
    for of_pip, of_uv in (("PIP_INDEX_URL", "UV_DEFAULT_INDEX"), ("PIP_CERT", "SSL_CERT_FILE")):
        if environment.get(of_pip):
            environment.setdefault(of_uv, environment[of_pip])
    environment.setdefault("UV_HTTP_TIMEOUT", "180")
    environment["UV_PYTHON_DOWNLOADS"] = "never"
    environment.pop("VIRTUAL_ENV", None)
    return environment


class _OneAtATime:
    """Two set-ups of one checkout at once would tear each other's environment apart; the second waits."""

    def __enter__(self) -> None:
        self._file = (ROOT / ".setup.lock").open("w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another set-up of this checkout is running; waiting for it", flush=True)
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _say(text: str) -> None:
    print(f"  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
