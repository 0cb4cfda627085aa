from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
import structlog

from api import logging


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_an_event_is_one_json_line_with_its_level() -> None:
    stream = io.StringIO()
    logging.configure(stream)
    logging.logger().info("request", status=200)

    (line,) = stream.getvalue().splitlines()
    assert ("request", "info", 200) == tuple(json.loads(line)[name] for name in ("event", "level", "status"))


def test_a_line_for_which_the_disk_has_no_room_is_dropped_and_raises_nothing() -> None:
    full = open("/dev/full", "w", buffering=1)  # noqa: SIM115  # closing would write once more, and raise
    logging.configure(full)
    logging.logger().error("background_work_failed", work="expire_leases")

    with pytest.raises(OSError, match="No space left on device"):
        full.close()


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_events_below_the_level_are_not_written(level: str, expected: list[str]) -> None:
    stream = io.StringIO()
    logging.configure(stream, level=level)
    for one in ("debug", "info", "warning", "error"):
        getattr(logging.logger(), one)("event")

    assert expected == [json.loads(line)["level"] for line in stream.getvalue().splitlines()]
