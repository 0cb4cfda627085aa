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
