"""The ledger over real HTTP: searches, readings, explanations and exports, in the SDK and on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner, Result

import pysytff as sy
from pysytff import errors
from pysytff.cli import app
from pysytff.display import cell
from pysytff.ledger import written_whole

Invoke = Callable[..., Result]
AT = "2026-01-02T03:04:05Z"
JANUARY = datetime(2026, 1, 1)  # noqa: DTZ001  (as people write it)
FITS = [
    {"limit": "population_budget", "name": "the budget of population pop_1 (ε = 8)", "count": 20},
    {"limit": "population_window", "name": "the population's window (ε = 1 unlocked of 4)", "count": 14},
]
READING = {
    "scope": "window", "scope_id": "pop_1", "guarantee_epsilon": 4.0, "delta": 1e-5, "spent_epsilon": 0.5,
    "committed_epsilon": 0.75, "accountant": "rdp/1", "as_of_entry": 3, "unlocked_epsilon": 1.0,
    "next_unlock_at": AT,
}  # fmt: skip
ANSWERS: dict[str, Any] = {
    "/v1/ledger/keys": {"items": [], "witnesses": []},
    "/v1/ledger/odometer": {
        "population_id": "pop_1", "as_of_entry": 4, "as_of_time": AT, "ledger_size": 7, "delta": 1e-3,
        "guarantee": {"epsilon": 8.0, "delta": 1e-5}, "accountant": "rdp/1", "conversion": "c", "means": {},
        "items": [
            {"scope": "population", "scope_id": "pop_1", "spent_epsilon": 0.5, "committed_epsilon": None,
             "quota_epsilon": 4.0, "unlocked_epsilon": 1.0},
        ],
    },
    "/v1/ledger/remaining": {
        "population_id": "pop_1", "like_run": "run_1", "rounds": 5, "runs": 14, "binding": FITS[1], "caps": FITS,
        "sentence": "about 14 more runs like run_1; then the window admits no other",
    },
    "/v1/decisions/dec_1/explanation": {
        "decision_id": "dec_1", "outcome": "refused", "sentence": "refused: too much", "decided_at": AT,
        "run_id": None, "erased": False,
        "rules": [{"code": "budget_exhausted", "source": "budget", "message": "too much", "field": None,
                   "limit": "population_window"}],
        "parameters": [{"name": "rounds", "requested": 50, "effective": None, "changed_by": [], "why": []}],
        "budget_as_of_entry": 3, "budget_then": [READING],
        "would_have_fitted": {"rounds": 9, "sampling_probability": 0.1, "noise_multiplier": 2.0, "caps": FITS},
        "why_not_derivable": None, "accountant": "rdp/1", "policy_revision": "1-abc",
        "policy_digests": {"organisation": "sha256:0"}, "opa_decision_id": "opa_1", "input_digest": "sha256:1",
        "entries": [{"index": 4, "population_id": "pop_1", "leaf_hash": "00ff"}],
    },
    "statement": {
        "run_id": "run_1", "published_at": AT, "statement": {"schema": "s"}, "statement_sha256": "ab",
        "ledger": [{"entry_index": 6, "population_id": "pop_1", "leaf_hash": "00", "statement_sha256": "ab",
                    "matches": True}],
        "registry": [{"name": "ε of this run", "value": "0.5", "source": "statement"}],
        "checks": [{"name": "utility", "value": "not stated", "source": None}],
    },
}  # fmt: skip


@pytest.fixture
def domain(node: Any) -> Iterator[sy.Domain]:
    node.audit = json.loads(json.dumps(ANSWERS))
    with sy.login(email="sam@stargate.net", password="changethis", port=node.port) as domain:
        yield domain


@pytest.fixture
def invoke(domain: sy.Domain, node: Any, session_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    made: Invoke = lambda *arguments, **more: CliRunner().invoke(app, [str(one) for one in arguments], **more)  # noqa: E731
    logged_in = made("login", "-e", "sam@stargate.net", "--port", node.port, env={"PYSYTFF_PASSWORD": "changethis"})
    assert 0 == logged_in.exit_code
    return made


def asked(node: Any, path: str) -> dict[str, list[str]]:
    """The query of the last request to ``path``."""
    found = [urlsplit(sent) for method, sent, _, _ in node.requests if method == "GET"]
    return parse_qs([one for one in found if one.path == path][-1].query)


def test_entries_are_asked_for_with_every_filter(domain: sy.Domain, node: Any) -> None:
    found = domain.ledger.entries(
        dataset_id="dat_1",
        kind=["debit", "release"],
        outcome="refused",
        since=JANUARY,
        until=datetime(2026, 2, 1, tzinfo=UTC),
        newest_first=True,
        limit=3,
    )
    assert [0, 1, 2] == [entry.index for entry in found]
    query = asked(node, "/v1/ledger/entries")
    del query["cursor"]
    assert {
        "dataset_id": ["dat_1"],
        "kind": ["debit", "release"],
        "outcome": ["refused"],
        "from": ["2026-01-01T00:00:00+00:00"],
        "to": ["2026-02-01T00:00:00+00:00"],
        "order": ["desc"],
        "limit": ["3"],
    } == query


def test_calling_the_ledger_lists_its_entries(domain: sy.Domain) -> None:
    assert 5 == len(list(domain.ledger()))


def test_the_odometer_shows_readings_and_guarantee_apart(domain: sy.Domain, node: Any) -> None:
    found = domain.ledger.odometer("writers", delta=1e-3, as_of_entry=4)

    assert ({"population_id": ["pop_1"], "delta": ["0.001"], "as_of_entry": ["4"]}) == asked(
        node, "/v1/ledger/odometer"
    )
    assert float("inf") == found.items[0].committed_epsilon  # JSON has none
    assert "odometer readings at δ = 0.001, as of entry 4" in str(found)
    assert "guarantee: ε = 8 at δ = 1e-05" in str(found)


def test_what_remains_is_a_sentence_and_every_cap(domain: sy.Domain) -> None:
    found = domain.ledger.remaining("pop_1", like_run="run_1")

    assert (14, "population_window") == (found.runs, found.binding.limit)
    assert "about 14 more runs like run_1" in str(found)


def test_an_explanation_names_rule_limit_budget_and_what_would_have_fitted(domain: sy.Domain) -> None:
    shown = str(domain.ledger.explain("dec_1"))

    for part in ("refused: too much", "limit: population_window", "of which 1 unlocked", "9 rounds would have fitted",
                 "OPA decision opa_1", "ledger entry 4 of pop_1"):  # fmt: skip
        assert part in shown


def test_an_erased_decisions_explanation_says_so(domain: sy.Domain, node: Any) -> None:
    answer = node.audit["/v1/decisions/dec_1/explanation"]
    answer |= {"erased": True, "would_have_fitted": None, "why_not_derivable": "charged whole"}
    answer["rules"][0]["message"] = None

    shown = str(domain.ledger.explain("dec_1"))

    assert "the answer itself was erased" in shown
    assert "(its text was erased) (budget_exhausted, by budget)" in shown
    assert "what would have fitted cannot be told: charged whole" in shown


def test_an_export_is_written_whole_with_its_checkpoint(domain: sy.Domain, node: Any, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    made = domain.ledger.export(tmp_path / "log.jsonl", progress=lambda done, total: seen.append((done, total)))

    assert node.export == made.file.read_bytes()
    assert node.checkpoint == (tmp_path / "log.jsonl.checkpoint").read_bytes()
    assert (7, len(node.export), (7, 7)) == (made.size, made.bytes, seen[-1])
    paths = [urlsplit(sent).path for _, sent, _, _ in node.requests]
    assert paths.index("/v1/ledger/checkpoint") < paths.index("/v1/ledger/export")


def test_an_export_ends_where_its_checkpoint_does_and_brings_those_of_rotations(
    domain: sy.Domain, node: Any, tmp_path: Path
) -> None:
    node.checkpoint = b"node\n5\nroot\n"
    node.audit["/v1/ledger/keys"] = {
        "items": [
            {"verifier_key": "a", "from_index": 0, "rotation_checkpoint": None},
            {"verifier_key": "b", "from_index": 3, "rotation_checkpoint": "node\n4\nroot\n"},
            {"verifier_key": "c", "from_index": 5, "rotation_checkpoint": "node\n6\nroot\n"},
        ]
    }
    made = domain.ledger.export(tmp_path / "log.jsonl")
    rest = domain.ledger.export(tmp_path / "rest.jsonl", from_index=3)

    assert b"".join(node.export.splitlines(keepends=True)[:5]) == made.file.read_bytes()
    assert (5, 2, made.file.stat().st_size) == (made.size, made.unsigned, made.bytes)
    assert (tmp_path / "log.jsonl.rotation-3",) == made.rotations
    assert b"node\n4\nroot\n" == made.rotations[0].read_bytes()
    assert 2 == rest.file.read_bytes().count(b"\n")


def test_a_checkpoint_without_a_size_is_no_checkpoint(domain: sy.Domain, node: Any, tmp_path: Path) -> None:
    node.checkpoint = b"nothing"
    with pytest.raises(errors.UnexpectedAnswerError, match="names no size"):
        domain.ledger.export(tmp_path / "log.jsonl")
    assert [] == list(tmp_path.iterdir())


def test_a_filtered_export_needs_no_checkpoint(domain: sy.Domain, node: Any, tmp_path: Path) -> None:
    node.checkpoint = None
    made = domain.ledger.export(tmp_path / "log.csv", format="csv", kind="debit", since=JANUARY)

    assert made.checkpoint is None
    assert ["log.csv"] == [file.name for file in tmp_path.iterdir()]
    assert {"format": ["csv"], "kind": ["debit"], "from": ["2026-01-01T00:00:00+00:00"]} == asked(
        node, "/v1/ledger/export"
    )


@pytest.mark.parametrize("trouble", ["short", "broken"])
def test_an_export_that_is_not_whole_leaves_what_was_there(
    domain: sy.Domain, node: Any, tmp_path: Path, trouble: str
) -> None:
    (tmp_path / "log.jsonl").write_bytes(b"the one before")
    if trouble == "short":
        node.export = node.export[: node.export.rindex(b"{")]
    else:
        node.checkpoint, node.missing_bytes = None, 5
    expected = errors.UnexpectedAnswerError if trouble == "short" else errors.UnreachableError
    with pytest.raises(expected):
        domain.ledger.export(tmp_path / "log.jsonl")
    assert {"log.jsonl": b"the one before"} == {file.name: file.read_bytes() for file in tmp_path.iterdir()}


def test_a_file_that_cannot_be_written_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError), written_whole(tmp_path / "folder") as write:
        write(b"x")
    assert ["folder"] == [file.name for file in tmp_path.iterdir()]


def test_a_statement_says_whether_the_ledger_confirms_it(
    domain: sy.Domain, node: Any, decided: Callable[..., dict[str, Any]]
) -> None:
    node.add_run("run_1", decided({"rounds": 4}), "published")
    run = domain.runs["run_1"]

    assert run.statement.confirmed
    assert "confirmed by entry 6" in str(run.statement)
    node.audit["statement"]["ledger"][0]["matches"] = False
    assert "NOT CONFIRMED" in str(run.statement)
    assert node.page.decode() == run.statement_page()


def test_the_budget_shows_what_a_window_has_unlocked(domain: sy.Domain, node: Any) -> None:
    table = domain.budget("writers").table()
    assert "–" == cell(table.rows[0][table.columns.index("unlocked epsilon")])


def test_joined_data_is_shown_in_words() -> None:
    joined = [{"train_data_id": "ast_1", "label_data_id": "ast_2"}, {"train_data_id": "ast_3", "label_data_id": "b"}]
    assert "ast_1, ast_2; ast_3, b" == cell(joined)
    assert "[8, 8]" == cell([8, 8])


# --- the command line ---


def test_every_command_answers_as_table_and_as_json(invoke: Invoke) -> None:
    for command, shown in (
        (["ledger", "odometer", "writers", "--delta", "0.001"], "odometer readings"),
        (["ledger", "remaining", "pop_1"], "about 14 more runs"),
        (["ledger", "why", "dec_1"], "9 rounds would have fitted"),
    ):
        done = invoke(*command)
        assert 0 == done.exit_code, done.output
        assert shown in done.stdout
        assert json.loads(invoke(*command, "--json").stdout)


def test_the_ledger_is_listed_with_filters(invoke: Invoke, node: Any) -> None:
    done = invoke("ledger", "--kind", "debit", "--from", "2026-01-31", "--to", "2026-02-01T12:00:00Z", "--json")

    assert 0 == done.exit_code, done.output
    query = asked(node, "/v1/ledger/entries")
    assert (["debit"], ["2026-01-31T00:00:00+00:00"], ["2026-02-01T12:00:00+00:00"]) == (
        query["kind"],
        query["from"],
        query["to"],
    )


def test_a_time_that_is_none_and_a_filter_in_the_wrong_place_end_with_2(invoke: Invoke) -> None:
    wrong = invoke("ledger", "--from", "yesterday")
    assert (2, True) == (wrong.exit_code, "'yesterday' is no time" in wrong.stderr)
    assert 2 == invoke("ledger", "--kind", "debit", "export", "--out", "x").exit_code


def test_an_export_on_the_command_line(invoke: Invoke, node: Any, tmp_path: Path) -> None:
    done = invoke("ledger", "export", "--out", "log.jsonl", "--json")

    assert 0 == done.exit_code, done.output
    assert {
        "file": "log.jsonl",
        "checkpoint": "log.jsonl.checkpoint",
        "rotations": [],
        "ledger_size": 7,
        "unsigned": 0,
        "bytes": len(node.export),
    } == json.loads(done.stdout)
    assert node.export == (tmp_path / "log.jsonl").read_bytes()
    assert 1 == invoke("ledger", "export", "--out", "nowhere/log.jsonl").exit_code


def test_a_statement_is_shown_and_written_as_a_page(
    invoke: Invoke, node: Any, tmp_path: Path, decided: Callable[..., dict[str, Any]]
) -> None:
    node.add_run("run_1", decided({"rounds": 4}), "published")

    done = invoke("runs", "statement", "run_1", "--html", "statement.html")

    assert (0, node.page) == (done.exit_code, (tmp_path / "statement.html").read_bytes())
    assert "ε of this run" in done.stdout
    node.audit["statement"]["ledger"] = []
    assert 1 == invoke("runs", "statement", "run_1").exit_code
