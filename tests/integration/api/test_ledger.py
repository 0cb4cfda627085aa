"""What auditors, owners and researchers read of the ledger over REST."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from typing import Any

import pyarrow.parquet as pq
import pytest

from governance.ledger.tables import decisions

from .conftest import Node, submit
from .test_runs import finished

Governed = tuple[Node, dict[str, str]]


def read(node: Node, who: str, path: str, **query: Any) -> Any:
    answer = node.call(who, "GET", path, params=query)
    assert 200 == answer.status_code, answer.text
    return answer.json()


def entries(node: Node, who: str = "auditor", **query: Any) -> list[dict[str, Any]]:
    """All pages."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = read(node, who, "/v1/ledger/entries", limit=2, **query, **cursor)
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


def test_entries_are_filtered_paged_and_turned_round(governed: Governed) -> None:
    node, ids = governed
    run_id = finished(node, ids)
    submit(node, ids, "refused", purpose="marketing")
    everything = entries(node)

    def indexes(**query: Any) -> list[int]:
        return [entry["index"] for entry in entries(node, **query)]

    def kept(**subjects: str) -> list[int]:
        return [e["index"] for e in everything if subjects.items() <= e["body"]["subjects"].items()]

    assert list(range(len(everything))) == [entry["index"] for entry in everything]
    assert indexes()[::-1] == indexes(order="desc")
    assert kept(run_id=run_id) == indexes(run_id=run_id)
    assert kept(population_id=ids["population"]) == indexes(population_id=ids["population"])
    assert kept(researcher_id=node.ids["researcher"]) == indexes(researcher_id=node.ids["researcher"])
    assert {*kept(run_id=run_id), *kept(dataset_id=ids["dataset"])} == set(indexes(dataset_id=ids["dataset"]))
    assert ["debit", "debit", "publication"] == [
        entry["kind"] for entry in entries(node, kind=["debit", "publication"])
    ]
    assert ["refused"] == [entry["body"]["facts"]["outcome"] for entry in entries(node, outcome="refused")]
    middle = everything[len(everything) // 2]["at"]
    assert [e["index"] for e in everything if e["at"] >= middle] == indexes(**{"from": middle})
    assert [e["index"] for e in everything if e["at"] < middle] == indexes(to=middle)


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({"kind": "lunch"}, "query.kind[0]"),
        ({"from": "yesterday"}, "query.from"),
        ({"from": "2026-01-01T00:00:00"}, "query.from"),
        ({"outcome": "maybe"}, "query.outcome"),
        ({"order": "up"}, "query.order"),
        ({"cursor": "W10="}, "cursor"),
        ({"population": "pop_1"}, "query.population"),
    ],
)
def test_an_unfit_filter_is_422_and_named(node: Node, query: dict[str, str], path: str) -> None:
    answer = node.call("auditor", "GET", "/v1/ledger/entries", params=query)
    assert (422, [path]) == (answer.status_code, [one["path"] for one in answer.json()["errors"]])


def test_the_odometer_names_guarantee_readings_deltas_and_accountant(governed: Governed) -> None:
    node, ids = governed
    finished(node, ids)
    asked = {"population_id": ids["population"]}
    now = read(node, "auditor", "/v1/ledger/odometer", **asked)
    budget = read(node, "auditor", "/v1/ledger/budget", **asked)["items"][0]

    assert {"epsilon": 8.0, "delta": 1e-5} == now["guarantee"]
    assert (1e-5, budget["spent_epsilon"], budget["accountant"]) == (
        now["delta"],
        now["items"][0]["spent_epsilon"],
        now["accountant"],
    )
    assert ["population", "project", "researcher"] == [one["scope"] for one in now["items"]]
    assert {"guarantee", "spent_epsilon", "committed_epsilon", "quota_epsilon"} == set(now["means"])
    looser = read(node, "owner", "/v1/ledger/odometer", **asked, delta=1e-3, scope="population")
    assert {"epsilon": 8.0, "delta": 1e-5} == looser["guarantee"]
    assert 0 < looser["items"][0]["spent_epsilon"] < now["items"][0]["spent_epsilon"]
    before = read(node, "auditor", "/v1/ledger/odometer", **asked, as_of_entry=2)
    assert (2, 0.0) == (before["as_of_entry"], before["items"][0]["spent_epsilon"])
    assert "remaining_epsilon" not in json.dumps(now)


def test_a_researcher_reads_the_odometer_of_now_and_no_other(governed_sqlite: Governed) -> None:
    node, ids = governed_sqlite
    submit(node, ids, "k")
    asked = {"population_id": ids["population"]}
    assert ["population"] == [one["scope"] for one in read(node, "researcher", "/v1/ledger/odometer", **asked)["items"]]
    for more in ({"delta": 1e-3}, {"as_of_entry": 1}):
        answer = node.call("researcher", "GET", "/v1/ledger/odometer", params=asked | more)
        assert (403, "forbidden") == (answer.status_code, answer.json()["code"])


def test_a_decision_and_why(governed: Governed) -> None:
    node, ids = governed
    answer = submit(node, ids, "k", rounds=500, noise_multiplier=0.3).json()
    decision_id = answer["id"] if "id" in answer else answer["decision"]["id"]

    shown = read(node, "researcher", f"/v1/decisions/{decision_id}")
    why = read(node, "owner", f"/v1/decisions/{decision_id}/explanation")

    assert (decision_id, shown["outcome"], shown["entry_index"]) == (
        why["decision_id"],
        why["outcome"],
        why["entries"][0]["index"],
    )
    changed = {one["name"]: one["effective"] for one in why["parameters"] if one["changed_by"]}
    assert {clamp["parameter"]: clamp["effective"] for clamp in shown["clamps"]} == changed
    assert why["would_have_fitted"]["rounds"] >= 0
    assert 404 == node.call("other_researcher", "GET", f"/v1/decisions/{decision_id}/explanation").status_code


def test_an_erased_decision_still_has_its_explanation(governed: Governed) -> None:
    node, ids = governed
    decision_id = submit(node, ids, "k", purpose="marketing").json()["decision"]["id"]
    with node.services.database.write() as connection:
        connection.execute(decisions.delete().where(decisions.c.id == decision_id))

    assert 404 == node.call("auditor", "GET", f"/v1/decisions/{decision_id}").status_code
    why = read(node, "auditor", f"/v1/decisions/{decision_id}/explanation")
    assert (True, "refused", None) == (why["erased"], why["outcome"], why["rules"][0]["message"])
    assert "marketing" not in json.dumps(why)


def test_what_remains_is_said_in_runs(governed: Governed) -> None:
    node, ids = governed
    run_id = finished(node, ids)
    found = read(node, "owner", "/v1/ledger/remaining", population_id=ids["population"])

    assert (run_id, 10, f"about {found['runs']} more runs like {run_id}") == (
        found["like_run"],
        found["rounds"],
        found["sentence"].partition(";")[0],
    )
    assert "population_budget" == found["binding"]["limit"]
    asked = {"population_id": ids["population"], "like_run": "run_unknown"}
    assert 404 == node.call("owner", "GET", "/v1/ledger/remaining", params=asked).status_code


def test_exports_in_each_format_are_of_one_size(governed: Governed) -> None:
    node, ids = governed
    finished(node, ids)
    everything = entries(node)

    lines = node.call("auditor", "GET", "/v1/ledger/export", params={"format": "jsonl"})
    assert [base64.b64decode(entry["body_base64"]) for entry in everything] == lines.content.splitlines()
    size = str(len(everything))
    assert (size, size) == (lines.headers["Ledger-Size"], lines.headers["Ledger-Entries"])
    table = node.call("auditor", "GET", "/v1/ledger/export", params={"format": "csv", "kind": ["debit", "granted"]})
    rows = list(csv.DictReader(io.StringIO(table.text, newline="")))
    assert [e["index"] for e in everything if e["kind"] in ("debit", "granted")] == [int(row["index"]) for row in rows]
    columns = node.call("owner", "GET", "/v1/ledger/export", params={"format": "parquet"})
    own = [e["index"] for e in everything if e["body"]["subjects"].get("population_id") == ids["population"]]
    assert own == pq.read_table(io.BytesIO(columns.content))["index"].to_pylist()
    assert f'attachment; filename="ledger-{size}.parquet"' == columns.headers["Content-Disposition"]


@pytest.mark.parametrize(
    ("who", "query", "status"),
    [
        ("owner", {"format": "jsonl"}, 403),
        ("researcher", {"format": "csv"}, 403),
        ("auditor", {"format": "jsonl", "kind": "debit"}, 422),
        ("auditor", {"format": "jsonl", "from_index": 10**6}, 422),
        ("auditor", {"format": "csv", "from_index": 1}, 422),
        ("auditor", {"format": "xlsx"}, 422),
        ("auditor", {}, 422),
    ],
)
def test_an_export_that_is_not_to_be_had(node: Node, who: str, query: dict[str, Any], status: int) -> None:
    assert status == node.call(who, "GET", "/v1/ledger/export", params=query).status_code


# --- the statement ---


def test_a_statement_is_json_for_programs_and_a_page_for_people(governed: Governed) -> None:
    node, ids = governed
    run_id = finished(node, ids)
    path = f"/v1/runs/{run_id}/statement"
    told = read(node, "researcher", path)

    result = read(node, "researcher", f"/v1/runs/{run_id}/result")
    assert result["privacy_statement"] == told["statement"]
    publication = entries(node, kind="publication")[0]
    assert [publication["index"]] == [place["entry_index"] for place in told["ledger"] if place["matches"]]
    assert publication["body"]["facts"]["statement_sha256"] == told["statement_sha256"]
    for headers, params, kind in (
        ({"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}, {}, "text/html"),
        ({"Accept": "application/json"}, {"format": "html"}, "text/html"),
        ({"Accept": "text/html"}, {"format": "json"}, "application/json"),
        ({"Accept": "application/json, text/html"}, {}, "application/json"),
    ):
        answer = node.call("auditor", "GET", path, headers=headers, params=params)
        assert (200, kind) == (answer.status_code, answer.headers["Content-Type"].partition(";")[0])


def test_the_page_stands_alone_and_interprets_nothing(governed: Governed) -> None:
    node, ids = governed
    hostile = '<script>alert("x")</script>'
    run_id = submit(node, ids, "k", purpose=f"research {hostile}").json()["run_id"]
    from .test_runs import claim, publish, tell

    grant = claim(node)
    tell(node, grant, "debit", first_round=0, rounds=10)
    publish(node, grant)
    page = node.call("owner", "GET", f"/v1/runs/{run_id}/statement", params={"format": "html"})

    assert [] == re.findall(r"<script|<link|<img|<iframe|url\(|@import|\son\w+=", page.text)
    assert "research &lt;script&gt;" in page.text
    (style,) = re.findall(r"<style>(.*?)</style>", page.text)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in page.headers["Content-Security-Policy"]
    assert "The ledger confirms this statement" in page.text
    assert "not stated" in page.text
