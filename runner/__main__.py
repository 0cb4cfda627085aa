"""``python -m runner``: the worker, configured by its environment. Ends cleanly on SIGTERM and SIGINT.

``python -m runner report --out FILE`` writes what the worker's journal holds, for a reconciliation by hand: the same
JSON list that the worker posts when it finds the ledger closed. It may run while the worker does.

PYSYTFF_API_URL                 where the service is, such as http://127.0.0.1:8081
PYSYTFF_RUNNER_CREDENTIAL_FILE  a file with the runner's credential, readable by its owner only
PYSYTFF_DATA_ROOT               where dataset versions are
PYSYTFF_SCRATCH_DIR             where jobs write; made if missing
PYSYTFF_JOURNAL_DIR             where the worker keeps what it was permitted to run, for ever; made if missing (default:
                                "journal" beside the scratch directory). Back it up apart from the database.
PYSYTFF_JOB_SECONDS             the longest that one job may take (default: a day)
PYSYTFF_RUNNER_PLAIN_HTTP       "1": the service is reached over plain HTTP on a network that is the operator's alone
"""

from __future__ import annotations

import argparse
import contextlib
import json
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

from runner.errors import GovernorRefusedError, JournalError
from runner.http import HttpGovernor
from runner.journal import read_reports
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
        worker=WorkerSettings(data_root=data_root, scratch=scratch, job_seconds=seconds, journal=_journal(environment)),
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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m runner", description="The worker; settings are its environment.")
    commands = parser.add_subparsers(dest="command")
    report = commands.add_parser("report", help="write what the journal holds, for a reconciliation by hand")
    report.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to; it is never overwritten")
    options = parser.parse_args(arguments)
    return _report(options.out) if options.command == "report" else _work()


def _report(out: Path) -> int:
    try:
        settings = WorkerSettings(
            data_root=Path(),
            scratch=Path(_needed(os.environ, "PYSYTFF_SCRATCH_DIR")).absolute(),
            journal=_journal(os.environ),
        )
        reports = [one.to_json() for one in read_reports(settings.journal_directory)]
        with out.open("x", encoding="utf-8") as file:
            json.dump(reports, file, indent=1, allow_nan=False)
            file.write("\n")
    except (SettingsError, JournalError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(reports)} grants: {out}")
    return 0


def _work() -> int:
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
    with contextlib.ExitStack() as stack:
        stack.enter_context(governor)
        try:
            worker = stack.enter_context(Worker(governor, settings.worker))
        except (JournalError, OSError) as error:
            log.error("journal", why=str(error))
            return 4
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


def _journal(environment: Mapping[str, str]) -> Path | None:
    directory = environment.get("PYSYTFF_JOURNAL_DIR", "")
    return Path(directory).absolute() if directory else None


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
