"""The repository's own policies: tested, covered, formatted, and described by their schema."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from accountant.filter import Budget
from governance.model import BudgetReading, Dataset, Population, Principal, Project, Role, TrainRequest
from governance.policy.capabilities import current, derive, render
from governance.policy.document import policy_input
from governance.policy.locate import PINNED, POLICIES_DIR, version_of
from governance.policy.tool import Ran, run_opa
from runner.model_spec import SCHEMA, parse

FRAME = ["--ignore", "*.json"]


def run(opa: Path, *arguments: str) -> Ran:
    return run_opa(opa, list(arguments), directory=POLICIES_DIR, timeout_s=60)


def test_they_pass_their_tests_with_every_line_covered(opa: Path) -> None:
    ran = run(opa, "test", *FRAME, "--coverage", "--fail-on-empty", ".")
    assert ran.succeeded, ran.output
    uncovered = {
        name: file["not_covered"] for name, file in json.loads(ran.output)["files"].items() if "not_covered" in file
    }
    assert {} == uncovered


def test_they_are_formatted(opa: Path) -> None:
    assert "" == run(opa, "fmt", "--list", ".").output


def test_every_rule_has_a_test_beside_it() -> None:
    rules = [file for file in POLICIES_DIR.rglob("*.rego") if not file.name.endswith("_test.rego")]
    assert [] == [file for file in rules if not file.with_name(f"{file.stem}_test.rego").exists()]


def test_the_allowed_builtins_are_those_of_the_pinned_opa(opa: Path) -> None:
    if version_of(opa) == PINNED:
        assert (POLICIES_DIR / "capabilities.json").read_text() == render(derive(current(opa)))
    else:  # a newer OPA may declare a builtin otherwise; what is allowed stays what is committed
        assert derive(current(opa))["builtins"]


def test_the_example_of_the_schema_is_what_the_tests_start_from(opa: Path) -> None:
    ran = run(opa, "eval", *FRAME, "--data", ".", "--format", "json", "data.testing.request")
    assert schema()["examples"][0] == json.loads(ran.output)["result"][0]["expressions"][0]["value"]


def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((POLICIES_DIR / "input.schema.json").read_text())
    return found


def test_every_object_of_the_schema_is_closed_and_complete() -> None:
    def objects(node: Any) -> list[dict[str, Any]]:
        if isinstance(node, list):
            return [found for member in node for found in objects(member)]
        if not isinstance(node, dict):
            return []
        own = [node] if node.get("type") == "object" else []
        return own + [found for key, member in node.items() if key != "examples" for found in objects(member)]

    described = objects(schema())
    assert 10 == len(described)
    for one in described:
        assert one["additionalProperties"] is False
        assert sorted(one["properties"]) == sorted(one["required"])


def errors_of(document: dict[str, Any], opa: Path, tmp_path: Path) -> list[str]:
    """What OPA's validator says about a document, by our schema."""
    (tmp_path / "input.json").write_text(json.dumps({"document": document, "schema": schema()}))
    query = "json.match_schema(input.document, input.schema)"
    ran = run_opa(opa, ["eval", "--format", "json", "--input", "input.json", query], directory=tmp_path)
    matches, errors = json.loads(ran.output)["result"][0]["expressions"][0]["value"]
    assert matches == (not errors)
    return [error["error"] for error in errors]


def test_the_example_matches_the_schema(document: dict[str, Any], opa: Path, tmp_path: Path) -> None:
    assert [] == errors_of(document, opa, tmp_path)


@pytest.mark.parametrize("no_clients", [None, 60])
def test_the_document_that_admission_builds_matches_the_schema(
    no_clients: int | None, opa: Path, tmp_path: Path
) -> None:
    now = datetime(2026, 1, 15, 9, 30, tzinfo=UTC)
    layer = {"type": "dense", "name": "dense", "units": 10, "activation": "softmax"}
    model = {"schema": SCHEMA, "input": {"shape": [64], "dtype": "float32"}, "layers": [layer]}
    reading = BudgetReading("population", "pop_1", 8.0, 1e-5, 0.0, 0.0, "rdp", 0)
    built = policy_input(
        now=now,
        request=TrainRequest(10, 30, 1.2, "ast_1", "ast_2", model, no_clients=no_clients),
        spec=parse(model),
        requester=Principal("usr_1", Role.RESEARCHER),
        project=Project("prj_1", "Handwriting", "usr_1", now, ("usr_1",)),
        dataset=Dataset("dst_1", "pop_1", "digits", "", "digits", 1, "ver_1", None, 5, (), now),
        population=Population("pop_1", "Writers", "usr_2", 300, Budget.open(8.0, 1e-5), now),
        budget=reading,
        quotas=[
            dataclasses.replace(reading, scope="window"),
            dataclasses.replace(reading, scope="project", scope_id="prj_1"),
        ],
        pool=300 if no_clients is None else no_clients,
    )
    assert [] == errors_of(built, opa, tmp_path)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("request", "rounds", "10"),
        ("request", "rounds", 0),
        ("request", "noise_multiplier", None),
        ("request", "sampling_probability", 1.5),
        ("request", "remark", "x"),
        ("requester", "role", "superuser"),
        ("dataset", "policy", "../gate"),
        ("population", "true_count", 297),
    ],
)
def test_what_the_schema_does_not_describe_does_not_match(
    document: dict[str, Any], opa: Path, tmp_path: Path, section: str, name: str, value: object
) -> None:
    document[section][name] = value
    assert errors_of(document, opa, tmp_path)


def test_the_times_of_the_example_are_one_moment(document: dict[str, Any]) -> None:
    moment = datetime.strptime(document["now"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert int(moment.timestamp()) * 10**9 == document["now_ns"]
