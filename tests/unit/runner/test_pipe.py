"""Lines in, messages out; anything else is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from runner.errors import PortError
from runner.pipe import MAX_LINE, Pipe, expect, field


@pytest.fixture
def ends() -> Iterator[tuple[Pipe, Pipe, int]]:
    """Two sides, and the first side's write end, for raw bytes."""
    there_read, here_write = os.pipe()
    here_read, there_write = os.pipe()
    here, there = Pipe(here_read, here_write), Pipe(there_read, there_write)
    yield here, there, here_write
    here.close()
    there.close()


def test_messages_arrive_in_order_and_whole(ends: tuple[Pipe, Pipe, int]) -> None:
    here, there, _ = ends
    here.send("debit", first_round=0, rounds=2)
    here.send("progress", text="zwei\nZeilen · ε")
    assert {"type": "debit", "first_round": 0, "rounds": 2} == there.receive()
    assert {"type": "progress", "text": "zwei\nZeilen · ε"} == there.receive()


def test_silence_is_none_and_a_closed_end_is_an_end(ends: tuple[Pipe, Pipe, int]) -> None:
    here, there, _ = ends
    assert there.receive(0.01) is None
    here.close()
    with pytest.raises(EOFError):
        there.receive()
    with pytest.raises(PortError, match="gone"):
        there.send("ready")


@pytest.mark.parametrize("line", [b"{\n", b"[]\n", b"{}\n", b'{"type": 3}\n', b"\xff\n", b"\n"])
def test_what_is_no_message_is_refused(ends: tuple[Pipe, Pipe, int], line: bytes) -> None:
    _, there, raw = ends
    os.write(raw, line)
    with pytest.raises(PortError):
        there.receive()


def test_a_line_without_end_is_refused_before_it_fills_the_memory(ends: tuple[Pipe, Pipe, int]) -> None:
    _, there, raw = ends
    for _ in range(MAX_LINE // 2**15):
        os.write(raw, b"x" * 2**15)
        assert there.receive(0) is None
    os.write(raw, b"x")
    with pytest.raises(PortError, match="too long"):
        there.receive(0)


def test_a_message_that_is_too_long_or_not_a_number_is_not_sent(ends: tuple[Pipe, Pipe, int]) -> None:
    here, _, _ = ends
    with pytest.raises(PortError, match="too long"):
        here.send("start", grant="x" * MAX_LINE)
    with pytest.raises(ValueError, match="JSON"):
        here.send("finished", loss=float("nan"))


def test_kinds_and_fields_are_checked_exactly() -> None:
    assert {"type": "ready"} == expect({"type": "ready"}, "ready")
    for message in (None, {"type": "debit"}):
        with pytest.raises(PortError):
            expect(message, "ready")
    assert 3 == field({"type": "debit", "rounds": 3}, "rounds", int)
    for value in (True, 3.0, "3", None):
        with pytest.raises(PortError):
            field({"type": "debit", "rounds": value}, "rounds", int)
    with pytest.raises(PortError):
        field({"type": "debit_answer", "permitted": "false"}, "permitted", bool)
