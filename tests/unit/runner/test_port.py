"""What governance and runner say to each other survives the way as JSON, also what an earlier release stored."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from runner.port import Grant, GrantReport, JoinedData
from tests.integration.runner.made_data import HANDLE, grant

OTHER = JoinedData("ver_" + "2" * 24, "x", "y", max_examples_per_unit=7)


def sent(granted: Grant) -> Any:
    return json.loads(json.dumps(granted.to_json()))


@pytest.mark.parametrize("joined", [(), (OTHER,), (OTHER, OTHER)])
def test_a_grant_arrives_as_it_was_made(joined: tuple[JoinedData, ...]) -> None:
    made = grant(data=replace(grant().data, joined=joined))
    assert made == Grant.from_json(sent(made))
    assert (HANDLE, *(OTHER.version_handle for _ in joined)) == made.data.version_handles


def test_a_grant_stored_before_versions_could_be_joined_has_one_version() -> None:
    stored = sent(grant())
    assert {"version_handle", "features", "labels", "max_examples_per_unit", "holdout_handle"} == set(stored["data"])
    assert () == Grant.from_json(stored).data.joined


@pytest.mark.parametrize("joined", [[{}], [{"version_handle": HANDLE}], [7], 7, None])
def test_a_joined_version_that_is_not_fully_described_is_refused(joined: object) -> None:
    document = sent(grant())
    document["data"]["joined"] = joined
    with pytest.raises(TypeError):
        Grant.from_json(document)


def test_a_report_travels_as_plain_json() -> None:
    report = GrantReport("grt_1", "run_1", 7, (HANDLE,), 0.5, 1.0, rounds_permitted=2, ended=False)
    assert {
        "grant_id": "grt_1",
        "run_id": "run_1",
        "fencing_token": 7,
        "version_handles": [HANDLE],
        "sampling_probability": 0.5,
        "noise_multiplier": 1.0,
        "rounds_permitted": 2,
        "ended": False,
    } == json.loads(json.dumps(report.to_json()))
    assert report == GrantReport.from_json(json.loads(json.dumps(report.to_json())))
    whole = report.to_json() | {"sampling_probability": 1, "noise_multiplier": 2}  # as canonical JSON writes 1.0, 2.0
    assert (1.0, 2.0) == (
        GrantReport.from_json(whole).sampling_probability,
        GrantReport.from_json(whole).noise_multiplier,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"grant_id": 7},
        {"fencing_token": "7"},
        {"fencing_token": True},
        {"fencing_token": -1},
        {"version_handles": HANDLE},
        {"version_handles": [7]},
        {"version_handles": None},
        {"version_handles": []},
        {"sampling_probability": 0.0},
        {"sampling_probability": 1.5},
        {"sampling_probability": float("nan")},
        {"noise_multiplier": 0},
        {"noise_multiplier": float("inf")},
        {"noise_multiplier": float("nan")},
        {"rounds_permitted": -1},
        {"rounds_permitted": 2.0},
        {"ended": 1},
        {"more": 1},
    ],
)
def test_a_report_that_says_nothing_sensible_is_refused(changes: dict[str, Any]) -> None:
    report = GrantReport("grt_1", "run_1", 7, (HANDLE,), 0.5, 1.0, rounds_permitted=2, ended=False)
    with pytest.raises((TypeError, ValueError)):
        GrantReport.from_json(report.to_json() | changes)


def test_a_report_without_one_of_its_fields_is_refused() -> None:
    document = GrantReport("grt_1", "run_1", 7, (HANDLE,), 0.5, 1.0, rounds_permitted=2, ended=False).to_json()
    for name in document:
        with pytest.raises(TypeError):
            GrantReport.from_json({key: value for key, value in document.items() if key != name})
