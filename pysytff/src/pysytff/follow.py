"""Following a run to its end: server-sent events, resumed where they broke off, with polling to fall back on.

Invariants
- Nothing is missed: after every break the run itself is read once, and the stream resumes by Last-Event-ID.
- A deadline is kept: near it the run is polled, because an open stream could be silent beyond it.
- A node that restarts does not end the wait; one that stays away for ``PATIENCE_S`` does.

This module does not: show anything.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pysytff.errors import ProblemError, RunTimeoutError, UnavailableError, UnexpectedAnswerError, UnreachableError
from pysytff.models import RunEvent, RunInfo, is_final
from pysytff.transport import Transport

POLL_S = 1.0
PATIENCE_S = 300.0
_SILENCE_S = 25.0  # the node sends a comment every 15 s
_NEAR_S = 30.0  # more than the silence that a stream may have
_BREAKS = 3  # streams in a row that brought nothing: something on the way does not let them through


@dataclass
class Follower:
    transport: Transport
    run_id: str
    timeout_s: float | None = None
    poll_s: float = POLL_S
    patience_s: float = PATIENCE_S

    def events(self) -> Iterator[RunEvent]:
        """What is new, up to and including the final state. Raises ``RunTimeoutError``, ``UnreachableError``."""
        self._deadline = math.inf if self.timeout_s is None else time.monotonic() + self.timeout_s
        self._last_id: str | None = None
        self._breaks = 0
        self._state = "reserved"
        while True:
            event = self._read_run()
            yield event
            if event.final:
                return
            if self._breaks < _BREAKS and self._remaining() > _NEAR_S:
                yield from self._stream()
                if is_final(self._state):
                    return
            if self._remaining() <= 0:
                raise RunTimeoutError(self.run_id, self.timeout_s or 0.0, self._state)
            time.sleep(max(0.0, min(self.poll_s, self._remaining())))

    def _remaining(self) -> float:
        return self._deadline - time.monotonic()

    def _read_run(self) -> RunEvent:
        give_up = time.monotonic() + self.patience_s
        while True:
            try:
                run = RunInfo.of(self.transport.get(f"/v1/runs/{self.run_id}"))
            except (UnreachableError, UnavailableError):
                if time.monotonic() > give_up:
                    raise
                if self._remaining() <= 0:
                    raise RunTimeoutError(self.run_id, self.timeout_s or 0.0, self._state) from None
                time.sleep(max(0.0, min(self.poll_s, self._remaining())))
            else:
                self._state = run.state
                return RunEvent(run_id=run.id, state=run.state, rounds=run.rounds, rounds_done=run.rounds_done)

    def _stream(self) -> Iterator[RunEvent]:
        """Events until the final state, a break, or the deadline's neighbourhood. Counts breaks, raises none."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self._last_id} if self._last_id else {})
        self._breaks += 1
        try:
            with self.transport.stream(f"/v1/runs/{self.run_id}/events", headers, _SILENCE_S) as lines:
                for identifier, data in parse_events(lines):
                    if data:
                        event = RunEvent.of(json.loads(data))
                        self._last_id = identifier or self._last_id
                        self._state = event.state
                        self._breaks = 0
                        yield event
                        if event.final:
                            return
                    if self._remaining() < _NEAR_S:
                        return
        except UnreachableError:
            return
        except (ProblemError, UnexpectedAnswerError, json.JSONDecodeError):
            # Too many streams, or something that is no event stream: polling tells the same. A run that has gone, or
            # a session that has ended, is told by the next read.
            self._breaks = _BREAKS


def parse_events(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(id, data) of each server-sent event; ("", "") for a comment, so that the caller can look at the clock."""
    identifier = ""
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield identifier, "\n".join(data)
            data = []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            yield "", ""
        elif name == "data":
            data.append(value)
        elif name == "id" and "\0" not in value:
            identifier = value
