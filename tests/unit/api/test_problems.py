from __future__ import annotations

import inspect

import pytest

from api import problems
from governance import errors

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.GovernanceError) and kind is not errors.GovernanceError
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_of_governance_has_a_status(kind: type[errors.GovernanceError]) -> None:
    assert 400 <= problems.status_of(kind("x")) != 500


def test_an_error_without_a_status_is_a_500() -> None:
    assert 500 == problems.status_of(errors.GovernanceError("x"))


def test_what_may_be_tried_again_says_when() -> None:
    answer = problems.problem(429, "throttled", "wait", "req_1", extensions={"retry_after_s": 7})
    assert "7" == answer.headers["Retry-After"]
