"""Structured logs: one JSON line for each event.

Invariants
- Only the fields that a call names are written; nobody logs an object, a body, a header or an error's text.
- A line that cannot be written is dropped: a full disk ends neither the answer nor the work that a line is about.
- No e-mail address, password, token, purpose or private statistic: principals appear by their opaque ids.

This module does not: configure the logs of other libraries, except that uvicorn's access log (it holds query strings)
is off.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from typing import TextIO, cast

import structlog


def configure(stream: TextIO | None = None, *, level: str = "info") -> None:
    """Once for each process, by whoever starts it. Events below ``level`` are not written."""
    logging.getLogger("uvicorn.access").disabled = True
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Forgiving(stream or sys.stderr))),
        cache_logger_on_first_use=False,
    )


class _Forgiving:
    """What structlog needs of a stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def logger() -> structlog.typing.FilteringBoundLogger:
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return log


def failure(error: BaseException) -> dict[str, object]:
    """What may be logged of an unexpected error: its class and where it happened. Its text may quote anything."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    cause = error.__cause__ or error.__context__
    return {
        "error": type(error).__qualname__,
        "cause": None if cause is None else type(cause).__qualname__,
        "at": [f"{'/'.join(frame.filename.split('/')[-2:])}:{frame.lineno} {frame.name}" for frame in frames],
    }
