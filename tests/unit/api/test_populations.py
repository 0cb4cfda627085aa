"""Which versions are compared before two populations are declared disjoint, and what counts as a yes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from api import cli_groups, owner, populations
from api.errors import OwnerError
from api.owner import Session
from api.populations import Registered, compare
from tests.integration.runner.made_data import ingested


@dataclass
class Ledger:
    """A session that knows the bodies of entries and nothing else."""

    bodies: Sequence[dict[str, Any]]

    def entries(self, population_id: str, kind: str) -> Iterator[dict[str, Any]]:
        assert ("pop_1", "dataset_registered") == (population_id, kind)
        yield from self.bodies


def registered(*bodies: dict[str, Any]) -> Registered:
    return populations._registered(cast(Session, Ledger(bodies)), "pop_1")


def body(dataset: str, version: int, handle: str) -> dict[str, Any]:
    return {"subjects": {"dataset_id": dataset}, "facts": {"version": version, "version_handle": handle}}


def test_every_version_that_was_ever_registered_is_compared_and_the_newest_are_declared() -> None:
    found = registered(body("a", 1, "ver_a1"), body("b", 1, "ver_b1"), body("a", 2, "ver_a2"))
    assert ("ver_a1", "ver_b1", "ver_a2") == found.handles
    assert (("ver_a2", "ver_b1"), ("ver_a1",)) == (found.newest_handles, found.replaced)
    assert {"a": 2, "b": 1} == found.newest


@pytest.mark.parametrize("unknown", [{}, {"subjects": {}, "facts": {}}, {"subjects": {"dataset_id": "a"}, "facts": 7}])
def test_an_entry_of_an_unknown_form_is_an_error_and_no_version_is_left_out(unknown: dict[str, Any]) -> None:
    with pytest.raises(OwnerError, match="this release does not know"):
        registered(body("a", 1, "ver_a1"), unknown)


@pytest.mark.parametrize(
    ("left_out", "expected"),
    [
        ((), "north and south share nobody; declared\n"),
        (
            ("ver_a1",),
            "north and south share nobody among the versions that were compared; declared\n"
            "not compared: ver_a1, which a newer version replaced\n",
        ),
    ],
)
def test_the_command_says_what_was_not_compared(
    left_out: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(populations, "declare_disjoint", lambda *_, **__: left_out)
    monkeypatch.setattr(owner, "Session", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(cli_groups, "ask_password", lambda _: "")
    cli_groups.population_disjoint("north", "south", "owner@example.org", newest_only=bool(left_out))
    assert expected == capsys.readouterr().out


def version(root: Path, who: Sequence[int]) -> str:
    return ingested(root, who, np.zeros(len(who), np.float32), np.zeros(len(who), np.int64))


def test_only_versions_that_share_nobody_compare_as_disjoint(tmp_path: Path) -> None:
    root = tmp_path / "data"
    one, two, three = version(root, [1, 2]), version(root, [3]), version(root, [3, 1])
    assert compare(root, [one], [two])
    assert not compare(root, [one, two], [three])


def test_what_cannot_be_compared_is_an_error(tmp_path: Path) -> None:
    one = version(tmp_path / "data", [1])
    with pytest.raises(OwnerError, match=r"(?s)no readable manifest.*nothing was declared"):
        compare(tmp_path / "data", [one], ["ver_" + "9" * 24])


@pytest.mark.parametrize(
    ("said", "status"), [("", 0), ("", 1), ('{"disjoint": true}', 1), ('{"disjoint": false}', 0), ("true", 0), ("x", 0)]
)
def test_a_comparison_that_contradicts_itself_or_died_is_no_yes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, status: int
) -> None:
    child = tmp_path / "child"
    child.write_text(f"#!{sys.executable}\nprint({said!r})\nraise SystemExit({status})\n")
    child.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(child))
    with pytest.raises(OwnerError, match="nothing was declared"):
        compare(tmp_path, ["ver_a"], ["ver_b"])
