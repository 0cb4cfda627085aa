"""Threads by kind of work, so that no kind can take another's.

Invariants
- What keeps people's budgets safe (a runner's calls, ended leases) waits for no reader, no login and no decision.
- Decisions may compute for seconds (a privacy curve that nobody asked for before), so they have threads of their own,
  and one principal has a few in flight at most: who asks for more is told to come back (429).
- All lanes together are no more than the connections that the database hands out (40 on PostgreSQL), so nobody waits
  for a connection that another kind of work holds.

This module does not: count requests over time (``limits.py`` does).
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Annotated, ParamSpec, TypeVar

import anyio
import anyio.to_thread
from fastapi import Depends, Request

from api.limits import Limits
from api.problems import ApiError

P = ParamSpec("P")
T = TypeVar("T")

READERS = 10  # the default threads: every endpoint that is no coroutine
_RUNNERS, _SESSIONS, _LOGINS, _BODIES, _BACKGROUND = 5, 4, 2, 2, 2


class Lane:
    """A few threads for one kind of work."""

    def __init__(self, threads: int) -> None:
        self._limiter = anyio.CapacityLimiter(threads)

    async def run(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """The answer of ``work``, in one of these threads, as soon as one is free."""
        return await anyio.to_thread.run_sync(functools.partial(work, *arguments, **named), limiter=self._limiter)

    @property
    def waiting(self) -> int:
        """How much work waits for a thread."""
        return self._limiter.statistics().tasks_waiting


class InFlight:
    """How many of one kind of request each caller has in flight. For the event loop's thread only."""

    def __init__(self, most: int, code: str) -> None:
        self._most, self._code = most, code
        self._counts: Counter[str] = Counter()

    @contextlib.contextmanager
    def one_of(self, who: str) -> Iterator[None]:
        """Raises ``ApiError`` (429) where ``who`` has enough in flight already."""
        if self._counts[who] >= self._most:
            raise ApiError(429, self._code, "wait for the answers to your earlier requests first", retry_after_s=1)
        self._counts[who] += 1
        try:
            yield
        finally:
            self._counts[who] -= 1
            if not self._counts[who]:
                del self._counts[who]


class Lanes:
    def __init__(self, limits: Limits) -> None:
        self.runners = Lane(_RUNNERS)
        self.sessions = Lane(_SESSIONS)  # whose credential is this
        self.logins = Lane(_LOGINS)  # they hash passwords, two at a time
        self.bodies = Lane(_BODIES)  # the parsing of large ones
        self.background = Lane(_BACKGROUND)
        self.decisions = Lane(limits.decision_threads)
        self.deciding = InFlight(limits.decisions_per_principal, "too_many_decisions")
        self.parsing = InFlight(limits.large_bodies_per_principal, "too_many_large_bodies")


async def _lanes(request: Request) -> Lanes:
    lanes: Lanes = request.app.state.lanes
    return lanes


LanesDep = Annotated[Lanes, Depends(_lanes)]
