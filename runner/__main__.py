"""``python -m runner``: the worker, configured by its environment. Ends cleanly on SIGTERM and SIGINT.

PYSYTFF_API_URL                 where the service is, such as http://127.0.0.1:8081
PYSYTFF_RUNNER_CREDENTIAL_FILE  a file with the runner's credential, readable by its owner only
PYSYTFF_DATA_ROOT               where dataset versions are
PYSYTFF_SCRATCH_DIR             where jobs write; made if missing
PYSYTFF_JOB_SECONDS             the longest that one job may take (default: a day)
PYSYTFF_RUNNER_PLAIN_HTTP       "1": the service is reached over plain HTTP on a network that is the operator's alone
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, cast

import structlog

from runner.errors import GovernorRefusedError
from runner.http import HttpGovernor
from runner.worker import Worker, WorkerSettings


class SettingsError(Exception):
    """The environment does not say what the worker needs."""


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    api_url: str
    credential: str
    plain_http: bool
    worker: WorkerSettings

    def __repr__(self) -> str:
        return f"RunnerSettings(api_url={self.api_url!r}, credential=<secret>, worker={self.worker!r})"


def read_settings(environment: Mapping[str, str]) -> RunnerSettings:
    """Raises ``SettingsError``, which names the variable and what it should hold."""
    data_root = Path(_needed(environment, "PYSYTFF_DATA_ROOT")).absolute()
    if not data_root.is_dir():
        raise SettingsError(f"PYSYTFF_DATA_ROOT: {data_root} is not a directory")
    scratch = Path(_needed(environment, "PYSYTFF_SCRATCH_DIR")).absolute()
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        seconds = float(environment.get("PYSYTFF_JOB_SECONDS", "86400"))
    except ValueError as error:
        raise SettingsError("PYSYTFF_JOB_SECONDS is not a number") from error
    if not 0.0 < seconds < float("inf"):
        raise SettingsError("PYSYTFF_JOB_SECONDS must be a positive number")
    return RunnerSettings(
        api_url=_needed(environment, "PYSYTFF_API_URL"),
        credential=_read_credential(Path(_needed(environment, "PYSYTFF_RUNNER_CREDENTIAL_FILE"))),
        plain_http=environment.get("PYSYTFF_RUNNER_PLAIN_HTTP") == "1",
        worker=WorkerSettings(data_root=data_root, scratch=scratch, job_seconds=seconds),
    )


class _Forgiving:
    """What structlog needs of a stream. On a full disk a line of the log is lost, not the worker and its run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def main() -> int:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Forgiving(sys.stderr))),
    )
    log = structlog.get_logger("runner")
    try:
        settings = read_settings(os.environ)
        governor = HttpGovernor(settings.api_url, settings.credential, allow_plain_http=settings.plain_http)
    except (SettingsError, ValueError) as error:
        log.error("settings", why=str(error))
        return 2
    with governor:
        worker = Worker(governor, settings.worker)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
        log.info("runner_started", api_url=settings.api_url)
        try:
            worker.run()
        except GovernorRefusedError as error:
            log.error("credential_refused", status=error.status, code=error.code)
            return 3
    log.info("runner_stopped")
    return 0


def _needed(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise SettingsError(f"{name} is not set")
    return value


def _read_credential(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        credential = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"PYSYTFF_RUNNER_CREDENTIAL_FILE: cannot read {path}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError(f"PYSYTFF_RUNNER_CREDENTIAL_FILE: {path} is open to others: chmod 600")
    if not credential:
        raise SettingsError(f"PYSYTFF_RUNNER_CREDENTIAL_FILE: {path} is empty")
    return credential


if __name__ == "__main__":
    sys.exit(main())
