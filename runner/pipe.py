"""Messages between worker and job: one JSON object a line, over two pipes that only they hold. Standard library only.

worker → job   {"type": "start", "grant", "training", "joined", "holdout", "scratch"}, then
               {"type": "debit_answer", "permitted"}
job → worker   {"type": "ready", "private_network"}, {"type": "debit", "first_round", "rounds"},
               {"type": "progress", "rounds_done"}, {"type": "finished", "rounds", "weights", "public_metrics",
               "generator"}, {"type": "failed"}

Invariants
- A line is bounded, so that neither side can fill the other's memory.
- Anything unexpected is a ``PortError``; nothing is guessed.

This module does not: know what a message means.
"""

from __future__ import annotations

import json
import os
import select
import time
from typing import Any, Final

from runner.errors import PortError

MAX_LINE: Final = 2**20
_CHUNK: Final = 2**16


class Pipe:
    """One side's two ends. Not for use by several threads at once."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._buffer = bytearray()
        self._closed = False

    def send(self, kind: str, **fields: Any) -> None:
        """Raises ``PortError`` if the other side is gone."""
        line = json.dumps({"type": kind, **fields}, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        if len(line) > MAX_LINE:
            raise PortError(f"a {kind!r} message of {len(line)} bytes is too long")
        while line:
            try:
                line = line[os.write(self._write_fd, line) :]
            except OSError as error:
                raise PortError(f"the other side is gone: {error.strerror}") from error

    def receive(self, seconds: float | None = None) -> dict[str, Any] | None:
        """The next message, or None after ``seconds`` without one. Raises ``EOFError`` when the other side has
        closed.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > MAX_LINE:
                raise PortError("a message is too long")
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._read_fd], [], [], left)[0]:
                return None
            if not (chunk := os.read(self._read_fd, _CHUNK)):
                raise EOFError
            self._buffer += chunk
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return _parse(line)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self._read_fd)
            os.close(self._write_fd)


def expect(message: dict[str, Any] | None, kind: str) -> dict[str, Any]:
    """Raises ``PortError`` if the message is of another kind."""
    if message is None or message["type"] != kind:
        raise PortError(f"expected a {kind!r} message")
    return message


def field(message: dict[str, Any], name: str, kind: type) -> Any:
    """Raises ``PortError`` if the field is missing or of another type. Booleans are no integers."""
    value = message.get(name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise PortError(f"a {message['type']!r} message needs {name!r}")
    return value


def _parse(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError as error:
        raise PortError("a message is not JSON") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise PortError("a message has no type")
    return message
