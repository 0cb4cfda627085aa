from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from governance import throttle
from governance.throttle import Counter

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def counter(failures: int, **changes: datetime) -> Counter:
    return Counter(**({"since": NOW, "last_at": NOW, "not_before": NOW} | changes), failures=failures)


@pytest.mark.parametrize(
    ("failures", "strict", "seconds"),
    [
        (1, False, 0),
        (4, False, 0),
        (5, False, 1),
        (6, False, 2),
        (9, False, 16),
        (10**9, False, 900),
        (1, True, 30),
        (2, True, 60),
        (3, True, 120),
        (50, True, 3600),
    ],
)
def test_the_delay_doubles_up_to_a_bound(failures: int, strict: bool, seconds: int) -> None:
    assert timedelta(seconds=seconds) == throttle.delay(failures, strict=strict)


def test_an_attempt_before_its_time_changes_nothing() -> None:
    door = counter(7, not_before=NOW + timedelta(seconds=3))
    attempt = throttle.begin(door, counter(1), counter(1), NOW, device=False)
    assert (timedelta(seconds=3), door, 1, 1) == (
        attempt.wait,
        attempt.door,
        attempt.account.failures,
        attempt.address.failures,
    )


def test_a_first_attempt_is_never_delayed_however_busy_account_and_address_are() -> None:
    attempt = throttle.begin(None, counter(10**6), counter(10**6), NOW, device=False)
    assert timedelta(0) == attempt.wait


@pytest.mark.parametrize(("account", "address"), [(throttle.BUSY_ACCOUNT, 0), (0, throttle.BUSY_ADDRESS)])
def test_a_busy_account_or_address_makes_new_doors_strict(account: int, address: int) -> None:
    attempt = throttle.begin(None, counter(account), counter(address), NOW, device=False)
    assert NOW + throttle.FIRST_DELAY_STRICT == attempt.door.not_before


@pytest.mark.parametrize("device", [True, False])
def test_a_trusted_door_is_exempt_and_does_not_count_against_others(device: bool) -> None:
    door = None if device else counter(0, succeeded_at=NOW - timedelta(days=1))
    attempt = throttle.begin(door, counter(100), counter(100), NOW, device=device)
    assert (NOW, 100, 100) == (attempt.door.not_before, attempt.account.failures, attempt.address.failures)


def test_trust_ends() -> None:
    door = counter(0, succeeded_at=NOW - throttle.TRUST)
    assert not throttle.begin(door, None, None, NOW, device=False).trusted


def test_a_success_takes_back_what_the_attempt_counted() -> None:
    began = throttle.begin(counter(3), counter(5), counter(6), NOW, device=False)
    ended = throttle.succeed(began.account, began.address, NOW, trusted=began.trusted)
    assert (0, NOW, 5, 6) == (
        ended.door.failures,
        ended.door.succeeded_at,
        ended.account.failures,
        ended.address.failures,
    )


def test_a_door_forgets_after_a_day() -> None:
    door = counter(30, last_at=NOW - timedelta(days=1, seconds=1), not_before=NOW)
    assert 1 == throttle.begin(door, None, None, NOW, device=False).door.failures


def test_a_window_forgets_after_an_hour() -> None:
    old = counter(100, since=NOW - timedelta(hours=1, seconds=1))
    assert 1 == throttle.begin(None, old, old, NOW, device=False).account.failures


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_one_subscriber_is_one_address(address: str, group: str) -> None:
    assert group == throttle.address_group(address)
