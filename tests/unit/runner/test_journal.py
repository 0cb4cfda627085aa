"""What was permitted is on the disk before it is acted on, and survives a crash at any byte."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runner.errors import GrantReplayedError, JournalError
from runner.journal import JOURNAL_FILE, Journal, read_reports
from runner.port import GrantReport, JoinedData
from tests.integration.runner.made_data import HANDLE, grant

FIRST = GrantReport("gra_1", "run_1", 7, (HANDLE,), 0.5, 1.0, rounds_permitted=0, ended=False)


def written(directory: Path) -> list[GrantReport]:
    """Two grants, of which the first ran and ended, and the second was permitted three of its rounds."""
    journal = Journal(directory)
    journal.claimed(grant())
    journal.permitted("gra_1", 0, 2)
    journal.permitted("gra_1", 2, 2)
    journal.ended("gra_1")
    journal.claimed(grant(grant_id="gra_2"))
    journal.permitted("gra_2", 0, 2)
    journal.permitted("gra_2", 2, 1)
    reports = journal.reports()
    journal.close()
    return reports


def test_it_reports_what_was_claimed_permitted_and_ended(tmp_path: Path) -> None:
    expected = [
        replace(FIRST, rounds_permitted=4, ended=True),
        replace(FIRST, grant_id="gra_2", rounds_permitted=3),
    ]
    assert expected == written(tmp_path / "journal")
    assert expected == read_reports(tmp_path / "journal")


def test_it_names_every_version_of_a_joined_grant(tmp_path: Path) -> None:
    other = JoinedData("ver_" + "2" * 24, "x", "y", 9)
    journal = Journal(tmp_path)
    journal.claimed(grant(data=replace(grant().data, joined=(other,))))
    assert ((HANDLE, other.version_handle),) == tuple(one.version_handles for one in journal.reports())


def test_after_a_restart_nothing_is_forgotten_and_what_was_open_has_ended(tmp_path: Path) -> None:
    before = written(tmp_path)
    assert [replace(one, ended=True) for one in before] == Journal(tmp_path).reports()
    assert [replace(one, ended=True) for one in before] == read_reports(tmp_path)


def test_a_crash_at_any_byte_of_the_last_line_loses_that_line_only(tmp_path: Path) -> None:
    written(tmp_path / "whole")
    content = (tmp_path / "whole" / JOURNAL_FILE).read_bytes()
    last = content.rfind(b"\n", 0, -1) + 1
    for cut in range(last, len(content)):
        directory = tmp_path / str(cut)
        directory.mkdir()
        (directory / JOURNAL_FILE).write_bytes(content[:cut])
        assert [4, 2] == [one.rounds_permitted for one in read_reports(directory)]
        journal = Journal(directory)
        journal.claimed(grant(grant_id="gra_3"))  # goes on behind a whole line
        journal.close()
        assert [4, 2, 0] == [one.rounds_permitted for one in Journal(directory).reports()]


@pytest.mark.parametrize(
    "line",
    [
        b"\x00\x00\x00",
        b"{",
        b"[]",
        b"7",
        b"{}",
        b'{"v": 2, "kind": "ended", "grant": "gra_1"}',
        b'{"v": 1, "kind": "forgotten", "grant": "gra_1"}',
        b'{"v": 1, "kind": "ended", "grant": "gra_9"}',
        b'{"v": 1, "kind": "permitted", "grant": "gra_2", "first_round": 0, "rounds": 2}',
        b'{"v": 1, "kind": "permitted", "grant": "gra_2", "first_round": 3, "rounds": 2}',
        b'{"v": 1, "kind": "permitted", "grant": "gra_2", "first_round": 3, "rounds": true}',
        b'{"v": 1, "kind": "permitted", "grant": "gra_1", "first_round": 4, "rounds": 1}',
        b'{"v": 1, "kind": "claimed", "grant": "gra_3"}',
    ],
)
def test_a_damaged_line_in_the_middle_refuses_and_is_named(tmp_path: Path, line: bytes) -> None:
    written(tmp_path)
    path = tmp_path / JOURNAL_FILE
    path.write_bytes(path.read_bytes() + line + b'\n{"v": 1, "kind": "ended", "grant": "gra_2"}\n')
    content = path.read_bytes()
    for opening in (Journal, read_reports):
        with pytest.raises(JournalError, match="line 8 is damaged"):
            opening(tmp_path)
    assert content == path.read_bytes()  # nobody's evidence is touched


def test_a_grant_is_claimed_once_also_across_restarts(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(GrantReplayedError):
        Journal(tmp_path).claimed(grant())


@pytest.mark.parametrize(("first", "rounds"), [(0, 2), (1, 1), (3, 1), (2, 3), (2, 0), (2, -1)])
def test_a_permission_that_does_not_follow_is_refused_and_not_written(tmp_path: Path, first: int, rounds: int) -> None:
    journal = Journal(tmp_path)
    journal.claimed(grant())
    journal.permitted("gra_1", 0, 2)
    before = (tmp_path / JOURNAL_FILE).read_bytes()
    with pytest.raises((JournalError, TypeError)):
        journal.permitted("gra_1", first, rounds)
    assert before == (tmp_path / JOURNAL_FILE).read_bytes()
    journal.permitted("gra_1", 2, 2)
    assert [replace(FIRST, rounds_permitted=4)] == journal.reports()


def test_a_failed_write_stops_it_until_it_is_healed_and_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    journal.claimed(grant())
    real = os.pwrite

    def half(fd: int, content: bytes, at: int) -> int:
        if len(content) < 40:
            raise OSError(28, "No space left on device")
        return real(fd, content[:40], at)

    monkeypatch.setattr(os, "pwrite", half)
    for _ in range(2):
        with pytest.raises(JournalError):
            journal.permitted("gra_1", 0, 2)
    assert 0 == journal.reports()[0].rounds_permitted
    monkeypatch.undo()
    assert journal.heal()
    journal.permitted("gra_1", 0, 2)
    assert [replace(FIRST, rounds_permitted=2)] == journal.reports() == read_reports(tmp_path)


def test_another_process_cannot_write_it_and_a_reader_can_read_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.claimed(grant())
    opening = "import sys; from pathlib import Path; from runner.journal import Journal; Journal(Path(sys.argv[1]))"
    second = subprocess.run([sys.executable, "-c", opening, str(tmp_path)], capture_output=True, text=True, check=False)
    assert 1 == second.returncode
    assert "another worker has it" in second.stderr
    assert [FIRST] == read_reports(tmp_path)
    journal.close()
    assert 0 == subprocess.run([sys.executable, "-c", opening, str(tmp_path)], check=False).returncode


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    Journal(tmp_path / "journal")
    assert 0o700 == os.stat(tmp_path / "journal").st_mode & 0o777
    assert 0o600 == os.stat(tmp_path / "journal" / JOURNAL_FILE).st_mode & 0o777


def test_a_journal_that_is_not_there_is_no_empty_report(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be read"):
        read_reports(tmp_path)
