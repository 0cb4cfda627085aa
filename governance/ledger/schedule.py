"""How a schedule unlocks a quota's epsilon: the one formula, for admission and for whoever replays it. Pure.

A schedule only holds back a part of a budget that was fixed for life; what is not used in one period stays for the
next (privacy rule 16).

This module does not: know entries, tables or the clock.
"""

from __future__ import annotations

from datetime import datetime, timedelta


def unlocked_epsilon(
    epsilon: float, *, starts_at: datetime, initial_epsilon: float, step_epsilon: float, period_days: int, at: datetime
) -> float:
    """What counts at the time ``at``: ``initial_epsilon`` before the first whole period has gone by, ``step_epsilon``
    more after each, never above ``epsilon``."""
    periods = max((at - starts_at) // timedelta(days=period_days), 0)
    return min(epsilon, initial_epsilon + step_epsilon * periods)
