"""How guessing of passwords is slowed without letting anyone lock out another. Pure: counters in, counters out.

Three counters, kept in the database so that every API process shares them:

- the *door*: one account from one address (IPv6: one /64), or one account from one device that carries a proof of an
  earlier login. Only the door ever delays anyone: five free attempts, then 1 s, 2 s, 4 s … up to 15 minutes.
- the *account*: failures in the last hour from doors that never succeeded (a botnet guesses one account).
- the *address*: failures in the last hour over all accounts (one host sprays many accounts).

A busy account or address never delays by itself. It makes untrusted doors stricter: one free attempt, then 30 s, 60 s …
up to an hour. So each new address still gets its first attempt at once, whatever others did before, and a guesser pays
one address per guess.

Invariants
- An attempt is counted before the password is looked at, so a burst of parallel guesses cannot all be "the first".
- An attempt that was refused for coming too early is not counted: hammering does not move the time it is waiting for.
- Failures at one door never delay another door. Whoever is at another address cannot lock you out; whoever shares your
  address cannot lock out a device of yours that logged in before, nor any session (refreshing is not guessing).
- A trusted door (it succeeded in the last 90 days) is exempt from what others did to the account or the address.

What remains: somebody behind the same address can delay your *first* login on a new device there, by at most 15 minutes
(an hour while the address is busy) at a time, for as long as they keep guessing at your account.

This module does not: store, hash, or know the time.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

FREE_ATTEMPTS = 5
FREE_ATTEMPTS_STRICT = 1
FIRST_DELAY = timedelta(seconds=1)
FIRST_DELAY_STRICT = timedelta(seconds=30)
LONGEST_DELAY = timedelta(minutes=15)
LONGEST_DELAY_STRICT = timedelta(hours=1)
WINDOW = timedelta(hours=1)  # of the account's and the address's counters
BUSY_ACCOUNT = 20  # failures in a window that make untrusted doors strict
BUSY_ADDRESS = 30
DOOR_MEMORY = timedelta(days=1)  # a door's failures are forgotten so long after the last one
TRUST = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Counter:
    failures: int
    since: datetime  # start of the window
    last_at: datetime
    not_before: datetime  # of a door: when the next attempt may come
    succeeded_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """Either ``wait`` is positive and nothing changes, or the three counters are what to store first."""

    wait: timedelta
    door: Counter
    account: Counter
    address: Counter
    trusted: bool


def begin(
    door: Counter | None, account: Counter | None, address: Counter | None, now: datetime, *, device: bool
) -> Attempt:
    """Counts an attempt as if it failed (``succeed`` takes it back). ``device``: the door is a proven device."""
    door = _door(door, now)
    account, address = _windowed(account, now), _windowed(address, now)
    trusted = device or (door.succeeded_at is not None and now - door.succeeded_at < TRUST)
    if door.not_before > now:
        return Attempt(door.not_before - now, door, account, address, trusted)
    strict = not trusted and (account.failures >= BUSY_ACCOUNT or address.failures >= BUSY_ADDRESS)
    failures = door.failures + 1
    counted = replace(door, failures=failures, last_at=now, not_before=now + delay(failures, strict=strict))
    if not trusted:
        account, address = _add(account, now, 1), _add(address, now, 1)
    return Attempt(timedelta(0), counted, account, address, trusted)


def succeed(account: Counter, address: Counter, now: datetime, *, trusted: bool) -> Attempt:
    """The password was right: the door is clear and trusted, and the attempt no longer counts as a failure."""
    if not trusted:
        account, address = _add(account, now, -1), _add(address, now, -1)
    cleared = Counter(failures=0, since=now, last_at=now, not_before=now, succeeded_at=now)
    return Attempt(timedelta(0), cleared, account, address, True)


def delay(failures: int, *, strict: bool) -> timedelta:
    """How long a door stays shut after its n-th failure in a row."""
    free, first, longest = (
        (FREE_ATTEMPTS_STRICT, FIRST_DELAY_STRICT, LONGEST_DELAY_STRICT)
        if strict
        else (FREE_ATTEMPTS, FIRST_DELAY, LONGEST_DELAY)
    )
    if failures < free:
        return timedelta(0)
    doublings = min(failures - free, 30)
    return min(first * (1 << doublings), longest)


def address_group(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 that an IPv6 subscriber gets as a whole."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _door(counter: Counter | None, now: datetime) -> Counter:
    if counter is None:
        return Counter(0, now, now, now)
    if now - counter.last_at > DOOR_MEMORY:
        return replace(counter, failures=0, since=now, not_before=now)
    return counter


def _windowed(counter: Counter | None, now: datetime) -> Counter:
    if counter is None or now - counter.since > WINDOW:
        return Counter(0, now, now, now)
    return counter


def _add(counter: Counter, now: datetime, amount: int) -> Counter:
    return replace(counter, failures=max(0, counter.failures + amount), last_at=now)
