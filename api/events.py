"""Watching runs: one reader of the event log for all watchers, who wait without holding a thread.

Invariants
- A watcher misses nothing: it is registered before its run's past is read, and drops what it has sent already. Ids of
  events are dense and in commit order, so "after this id" is a complete answer.
- A watcher that does not keep up is ended rather than buffered without bound; it resumes by ``Last-Event-ID``.
- Streams are capped, per principal and in all, and end when their caller's session does.

This module does not: know HTTP requests (``routes/runs.py`` does), or add to what an event says (privacy rule 10).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.to_thread
from sse_starlette import ServerSentEvent

from api import logging
from api.problems import ApiError
from api.services import Services
from governance.errors import GovernanceError
from governance.identity import Caller
from governance.model import RunEvent, RunState, timestamp

_PAGE = 500
_BACKLOG = 256


class Watcher:
    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.queue: asyncio.Queue[RunEvent | None] = asyncio.Queue(_BACKLOG)

    def offer(self, event: RunEvent | None) -> None:
        """None ends the stream; so does a backlog that is full."""
        if self.queue.full():
            while not self.queue.empty():
                self.queue.get_nowait()
            event = None
        self.queue.put_nowait(event)


class RunView:
    """A run as its watchers see it: what the events so far add up to."""

    def __init__(self, run_id: str, rounds: int) -> None:
        self._document: dict[str, Any] = {"run_id": run_id, "state": "reserved", "rounds": rounds, "rounds_done": 0}

    def see(self, event: RunEvent) -> None:
        if event.type == "progress":
            self._document["state"] = RunState.RUNNING.value
        known = {name: event.data[name] for name in ("state", "rounds", "rounds_done") if name in event.data}
        self._document |= known | {"at": timestamp(event.at)}

    @property
    def final(self) -> bool:
        return RunState(self._document["state"]).final

    def as_sse(self, event: RunEvent) -> ServerSentEvent:
        return ServerSentEvent(data=json.dumps(self._document), event=event.type, id=str(event.id))


class Broadcaster:
    """Reads new events once for all watchers. ``run`` is a task of the application's lifespan."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._limits = services.options.limits
        self._watchers: dict[str, set[Watcher]] = {}
        self._streams: Counter[str] = Counter()
        self._position = 0
        self._starting = asyncio.Lock()
        self._watched = asyncio.Event()
        self._threads = anyio.CapacityLimiter(2)  # apart from the endpoints' threads: they must not wait for each other

    async def run(self) -> None:
        while True:
            await self._watched.wait()
            try:
                full = await self._poll()
            except GovernanceError as error:
                logging.logger().warning("events_unreadable", code=error.code)
                full = False
            if not full:
                await asyncio.sleep(self._services.options.event_poll_s)

    def check_capacity(self, principal_id: str) -> None:
        """Raises ``ApiError`` (429) where this principal, or the process, watches enough already."""
        if self._streams[principal_id] >= self._limits.streams_per_principal or (
            self._streams.total() >= self._limits.streams
        ):
            raise ApiError(429, "too_many_streams", "close another event stream first", retry_after_s=5)

    @property
    def watching(self) -> int:
        """Open streams, of everybody."""
        return self._streams.total()

    async def stream(self, caller: Caller, run_id: str, after_id: int) -> AsyncIterator[ServerSentEvent]:
        """The run's events after ``after_id``, until its final state, the end of the session, or a full backlog."""
        async with self._watching(caller.principal.id, run_id) as watcher:
            run = await self._in_thread(self._services.queries.run, caller.principal, run_id)
            view = RunView(run_id, run.rounds)
            async for event in self._events(watcher, caller, run_id):
                view.see(event)
                if event.id > after_id:
                    yield view.as_sse(event)
                if view.final:
                    return

    async def _events(self, watcher: Watcher, caller: Caller, run_id: str) -> AsyncIterator[RunEvent]:
        """Each event of the run once, from its first: the past, page by page, then what comes."""
        seen = 0
        while True:
            past = await self._in_thread(self._services.queries.events_of, caller.principal, run_id, seen, _PAGE)
            for event in past:
                seen = event.id
                yield event
            if len(past) < _PAGE:
                break
        while (next_event := await self._next(watcher, caller)) is not None:
            if next_event.id > seen:
                seen = next_event.id
                yield next_event

    def close(self) -> None:
        for watcher in [one for group in self._watchers.values() for one in group]:
            watcher.offer(None)

    async def _next(self, watcher: Watcher, caller: Caller) -> RunEvent | None:
        while True:
            try:
                async with asyncio.timeout(self._services.options.stream_recheck_s):
                    return await watcher.queue.get()
            except TimeoutError:
                try:
                    await self._in_thread(self._services.identity.recheck, caller)
                except GovernanceError:
                    return None

    @contextlib.asynccontextmanager
    async def _watching(self, principal_id: str, run_id: str) -> AsyncIterator[Watcher]:
        watcher = Watcher(run_id)
        async with self._starting:
            if not self._watchers:  # nobody was listening: skip what nobody waits for
                self._position = max(self._position, await self._in_thread(self._services.queries.last_event_id))
            self._watchers.setdefault(run_id, set()).add(watcher)
            self._streams[principal_id] += 1
            self._watched.set()
        try:
            yield watcher
        finally:
            self._watchers[run_id].discard(watcher)
            if not self._watchers[run_id]:
                del self._watchers[run_id]
            if not self._watchers:
                self._watched.clear()
            self._streams[principal_id] -= 1
            if not self._streams[principal_id]:
                del self._streams[principal_id]

    async def _poll(self) -> bool:
        """True if there may be more at once."""
        events = await self._in_thread(self._services.queries.run_events, self._position, _PAGE)
        for event in events:
            for watcher in self._watchers.get(event.run_id, ()):
                watcher.offer(event)
            self._position = max(self._position, event.id)
        return len(events) == _PAGE

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self._threads)
