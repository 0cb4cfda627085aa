"""How much one caller may send: body sizes, requests per minute, and how many at once.

Invariants
- Rates are counted in memory, for each process: they protect this process. What must hold across processes, guessing of
  passwords, is counted in the database (``governance/throttle.py``).
- Whoever is known is counted by principal, whoever is not by address, so a busy stranger costs a user nothing.
- A refused request says when to come back.

This module does not: read bodies (``gateway.py`` and the upload route do), or hold threads (``lanes.py`` does).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from governance.errors import ThrottledError


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes, counts and rates (``"N/minute"``)."""

    json_bytes: int = 1024 * 1024
    public_bytes: int = 16 * 1024  # whatever needs no credential
    result_bytes: int = 128 * 1024 * 1024  # 20 million float32 parameters, and room
    body_timeout_s: float = 30.0
    streams_per_principal: int = 20
    streams: int = 1_000
    decision_threads: int = 16  # train requests and previews that are decided at a time, of everybody
    decisions_per_principal: int = 4  # in flight; far fewer than the threads, so nobody has them all
    large_bodies_per_principal: int = 2  # being parsed
    anonymous: str = "120/minute"  # by address: public routes, and whatever fails to authenticate
    login: str = "60/minute"  # by address, or by proven device
    principal: str = "1200/minute"
    submissions: str = "600/minute"  # train requests and previews, by principal
    runner: str = "12000/minute"


class RateLimiter:
    """Counts hits by (class of request, who). Thread-safe."""

    def __init__(self, limits: Limits) -> None:
        self._windows = FixedWindowRateLimiter(MemoryStorage())
        self._items: dict[str, RateLimitItem] = {
            name: parse(getattr(limits, name)) for name in ("anonymous", "login", "principal", "submissions", "runner")
        }

    def hit(self, kind: str, who: str) -> None:
        """Raises ``ThrottledError`` where ``who`` has used up this window."""
        item = self._items[kind]
        if self._windows.hit(item, kind, who):
            return
        reset = self._windows.get_window_stats(item, kind, who).reset_time
        seconds = max(1, math.ceil(reset - time.time()))
        raise ThrottledError("too many requests; wait and try again", retry_after_s=seconds)
