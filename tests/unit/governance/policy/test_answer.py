"""Reading one policy's answer: whatever is not exactly the contract is no answer."""

from __future__ import annotations

from typing import Any

import pytest

from governance.errors import PolicyResultError
from governance.model import Reason
from governance.policy.answer import MAX_ELEMENTS, MAX_MESSAGE, read
from tests.unit.governance.policy.answers import PERMISSIVE, answer

REASON = {"code": "too_much", "message": "Too much.", "field": "rounds"}


def test_a_full_answer_is_read() -> None:
    given = answer(
        allow=False,
        deny=[REASON],
        warn=[{"code": "hm", "message": "Hm."}],
        limits={"max_rounds": 5, "min_noise_multiplier": 0.5, "allowed_losses": ["mean_squared_error"]},
        clamp_order=["rounds"],
        review=[{"code": "look", "message": "A person looks."}],
        obligations=[{"type": "publish_weights", "params": {}}],
    )
    found = read(given, "owner:x")
    assert (Reason("too_much", "Too much.", "owner:x", "rounds"),) == found.deny
    assert (Reason("hm", "Hm.", "owner:x"),) == found.warn
    assert (Reason("look", "A person looks.", "owner:x"),) == found.review
    assert {
        "max_rounds": 5,
        "min_noise_multiplier": 0.5,
        "allowed_losses": frozenset({"mean_squared_error"}),
    } == found.limits
    assert ("rounds",) == found.clamp_order
    assert ({"type": "publish_weights", "params": {}},) == found.obligations


@pytest.mark.parametrize("raw", [None, [], "allow", True, 1])
def test_an_answer_that_is_no_object_is_refused(raw: object) -> None:
    with pytest.raises(PolicyResultError, match="no object"):
        read(raw, "organisation")


@pytest.mark.parametrize("rule", ["allow", "deny", "limits"])
def test_a_rule_that_is_undefined_is_refused(rule: str) -> None:
    with pytest.raises(PolicyResultError, match=f"undefined: {rule}"):
        read({name: value for name, value in PERMISSIVE.items() if name != rule}, "organisation")


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(PolicyResultError, match="unknown rules: dney"):
        read(answer(dney=[]), "organisation")


@pytest.mark.parametrize("allow", ["true", 1, 1.0, None, [], {}, [True]])
def test_allow_of_another_type_is_refused(allow: object) -> None:
    with pytest.raises(PolicyResultError, match="allow"):
        read(answer(allow=allow), "organisation")


@pytest.mark.parametrize("rule", ["deny", "warn", "review", "obligations"])
@pytest.mark.parametrize("value", [None, True, {}, "x", 0, ["x"], [None], [[]], [REASON, 1]])
def test_a_set_of_another_type_is_refused(rule: str, value: object) -> None:
    with pytest.raises(PolicyResultError, match=rule):
        read(answer(**{rule: value}), "organisation")


@pytest.mark.parametrize(
    "element",
    [
        {},
        {"code": "a"},
        {"message": "m"},
        {"code": "", "message": "m"},
        {"code": "Upper", "message": "m"},
        {"code": "a b", "message": "m"},
        {"code": "a\n", "message": "m"},
        {"code": "a" * 65, "message": "m"},
        {"code": 1, "message": "m"},
        {"code": "a", "message": ""},
        {"code": "a", "message": 1},
        {"code": "a", "message": "m" * (MAX_MESSAGE + 1)},
        {"code": "a", "message": "line\nline"},
        {"code": "a", "message": "\u202e"},
        {"code": "a", "message": "m", "field": None},
        {"code": "a", "message": "m", "field": "x y"},
        {"code": "a", "message": "m", "severity": "low"},
    ],
)
def test_a_reason_that_is_not_well_formed_is_refused(element: dict[str, Any]) -> None:
    with pytest.raises(PolicyResultError, match="deny"):
        read(answer(deny=[element]), "organisation")


@pytest.mark.parametrize("rule", ["warn", "review"])
def test_only_a_denial_names_a_field(rule: str) -> None:
    with pytest.raises(PolicyResultError, match=rule):
        read(answer(**{rule: [REASON]}), "organisation")


def test_a_duplicate_shows_that_it_is_no_set() -> None:
    with pytest.raises(PolicyResultError, match="duplicates"):
        read(answer(deny=[REASON, REASON]), "organisation")


def test_a_set_without_end_is_refused() -> None:
    many = [{"code": f"c{index}", "message": "m"} for index in range(MAX_ELEMENTS + 1)]
    with pytest.raises(PolicyResultError, match="elements"):
        read(answer(deny=many), "organisation")


@pytest.mark.parametrize("limits", [None, [], "x", 1, True])
def test_limits_of_another_type_are_refused(limits: object) -> None:
    with pytest.raises(PolicyResultError, match="limits"):
        read(answer(limits=limits), "organisation")


@pytest.mark.parametrize("name", ["max_round", "min_rounds", "rounds", "allowed_optimizers", "sources", ""])
def test_an_unknown_limit_is_refused(name: str) -> None:
    with pytest.raises(PolicyResultError, match="unknown limits"):
        read(answer(limits={name: 1}), "organisation")


@pytest.mark.parametrize("value", [None, "5", True, False, [], {}, float("nan"), float("inf"), float("-inf"), 10**400])
@pytest.mark.parametrize("name", ["max_rounds", "min_noise_multiplier"])
def test_a_bound_that_is_no_finite_number_is_refused(name: str, value: object) -> None:
    with pytest.raises(PolicyResultError, match=name):
        read(answer(limits={name: value}), "organisation")


def test_a_bound_between_two_integers_becomes_the_integer_that_says_the_same() -> None:
    limits = read(answer(limits={"max_rounds": 33.5, "min_no_clients": 33.5, "max_clipping_norm": 33.5}), "x").limits
    assert {"max_rounds": 33, "min_no_clients": 34, "max_clipping_norm": 33.5} == limits
    assert [int, int, float] == [type(value) for value in limits.values()]


@pytest.mark.parametrize("value", [None, "gaussian", {}, [1], [""], ["a b"], ["a", "a"], [["a"]]])
def test_a_choice_that_is_no_set_of_names_is_refused(value: object) -> None:
    with pytest.raises(PolicyResultError, match="allowed_mechanisms"):
        read(answer(limits={"allowed_mechanisms": value}), "organisation")


@pytest.mark.parametrize(
    "value", [None, "rounds", {}, ["round"], [1], [["rounds"]], ["rounds", "rounds"], ["clipping_norm"]]
)
def test_a_clamp_order_with_unknown_names_is_refused(value: object) -> None:
    with pytest.raises(PolicyResultError, match="clamp_order"):
        read(answer(clamp_order=value), "organisation")


@pytest.mark.parametrize(
    "element",
    [
        {},
        {"type": "publish_weights"},
        {"params": {}},
        {"type": 1, "params": {}},
        {"type": "publish_weights", "params": None},
        {"type": "publish_weights", "params": []},
        {"type": "publish_weights", "params": {}, "when": "now"},
    ],
)
def test_an_obligation_that_is_not_well_formed_is_refused(element: dict[str, Any]) -> None:
    with pytest.raises(PolicyResultError, match="bligation"):
        read(answer(obligations=[element]), "organisation")
