"""Two answers become one, and the owner can only tighten."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.errors import PolicyResultError
from governance.model import CLAMPABLE, Reason
from governance.policy.answer import BOUNDS, CHOICES
from governance.policy.merge import merge
from tests.unit.governance.policy.answers import ACTIVE, PERMISSIVE, answer, merged

DENIED = {"code": "no", "message": "No."}


def test_what_both_allow_is_allowed() -> None:
    decision = merged()
    assert decision.allowed
    assert () == decision.reasons
    assert CLAMPABLE == decision.clamp_order
    assert (ACTIVE.revision, ACTIVE.digests, "opa-1") == (decision.revision, decision.digests, decision.opa_decision_id)


@pytest.mark.parametrize(
    ("organisation", "owner", "source"),
    [(answer(allow=False), PERMISSIVE, "organisation"), (PERMISSIVE, answer(allow=False), "owner:digits")],
)
def test_one_that_does_not_allow_refuses_with_a_reason(organisation: object, owner: object, source: str) -> None:
    decision = merged(organisation, owner)
    assert not decision.allowed
    assert [("not_allowed", source)] == [(reason.code, reason.source) for reason in decision.reasons]


def test_a_denial_refuses_whatever_allow_says() -> None:
    decision = merged(owner=answer(allow=True, deny=[DENIED]))
    assert not decision.allowed
    assert (Reason("no", "No.", "owner:digits"),) == decision.reasons


def test_a_denial_explains_a_refusal_by_itself() -> None:
    assert ["no"] == [reason.code for reason in merged(answer(allow=False, deny=[DENIED])).reasons]


def test_both_policies_reasons_are_given() -> None:
    decision = merged(answer(allow=False, deny=[DENIED]), answer(allow=False, deny=[DENIED]))
    assert ["organisation", "owner:digits"] == [reason.source for reason in decision.reasons]


@pytest.mark.parametrize(
    "raw",
    [None, [], {}, {"organisation": PERMISSIVE}, {"owner": PERMISSIVE}, "x", {"organisation": PERMISSIVE, "b": {}}],
)
def test_an_answer_without_both_packages_is_refused(raw: object) -> None:
    with pytest.raises(PolicyResultError):
        merge(raw, policy_id="digits", active=ACTIVE, opa_decision_id="opa-1")


def test_a_third_package_is_refused() -> None:
    raw = {"organisation": PERMISSIVE, "owner": PERMISSIVE, "other": PERMISSIVE}
    with pytest.raises(PolicyResultError):
        merge(raw, policy_id="digits", active=ACTIVE, opa_decision_id="opa-1")


def test_an_owners_package_that_is_not_there_is_refused() -> None:
    with pytest.raises(PolicyResultError, match="owner:digits left undefined"):
        merged(owner={})


def test_the_tighter_bound_holds_and_says_whose_it_is() -> None:
    limits = merged(
        answer(limits={"max_rounds": 100, "min_noise_multiplier": 0.8, "max_batch_size": 10}),
        answer(limits={"max_rounds": 200, "min_noise_multiplier": 1.0, "min_no_clients": 50}),
    ).limits
    assert (100, 1.0, 10, 50) == (
        limits.max_rounds,
        limits.min_noise_multiplier,
        limits.max_batch_size,
        limits.min_no_clients,
    )
    assert {
        "max_rounds": "organisation",
        "min_noise_multiplier": "owner:digits",
        "max_batch_size": "organisation",
        "min_no_clients": "owner:digits",
    } == limits.sources


def test_of_equal_bounds_the_organisations_is_named() -> None:
    decision = merged(answer(limits={"max_rounds": 100}), answer(limits={"max_rounds": 100}))
    assert {"max_rounds": "organisation"} == decision.limits.sources


def test_of_choices_those_that_both_allow_are_left() -> None:
    limits = merged(answer(limits={"allowed_losses": ["a", "b"]}), answer(limits={"allowed_losses": ["b", "c"]})).limits
    assert frozenset({"b"}) == limits.allowed_losses
    assert {"allowed_losses": "owner:digits"} == limits.sources


def test_an_owner_cannot_widen_the_organisations_choice() -> None:
    limits = merged(answer(limits={"allowed_losses": ["a"]}), answer(limits={"allowed_losses": ["a", "b"]})).limits
    assert (frozenset({"a"}), {"allowed_losses": "organisation"}) == (limits.allowed_losses, limits.sources)


@pytest.mark.parametrize(
    ("organisation", "owner"),
    [
        ({"allowed_mechanisms": ["a"]}, {"allowed_mechanisms": ["b"]}),
        ({"allowed_mechanisms": []}, {}),
        ({"max_rounds": 0}, {}),
        ({}, {"max_rounds": -5}),
        ({}, {"max_clients_per_round": 0.5}),
        ({}, {"min_noise_multiplier": 10_001}),
        ({"max_clipping_norm": 0}, {}),
    ],
)
def test_limits_that_leave_nothing_refuse(organisation: dict[str, Any], owner: dict[str, Any]) -> None:
    decision = merged(answer(limits=organisation), answer(limits=owner))
    assert not decision.allowed
    assert ["limits_leave_nothing"] == [reason.code for reason in decision.reasons]


def test_the_owners_clamp_order_holds() -> None:
    order = ["rounds", "noise_multiplier", "clients_per_round"]
    assert tuple(order) == merged(answer(clamp_order=list(CLAMPABLE)), answer(clamp_order=order)).clamp_order


def test_what_one_policy_leaves_out_of_the_order_is_not_clamped() -> None:
    decision = merged(answer(clamp_order=["noise_multiplier"]), answer(clamp_order=["rounds", "noise_multiplier"]))
    assert ("noise_multiplier",) == decision.clamp_order
    assert () == merged(answer(clamp_order=[])).clamp_order


def test_known_obligations_of_both_are_joined() -> None:
    publish = {"type": "publish_weights", "params": {}}
    decision = merged(answer(obligations=[publish]), answer(obligations=[publish]))
    assert decision.allowed
    assert (publish,) == decision.obligations


@pytest.mark.parametrize(
    "obligation", [{"type": "notify_owner", "params": {}}, {"type": "publish_weights", "params": {"to": "all"}}]
)
def test_an_obligation_that_the_service_cannot_meet_refuses(obligation: dict[str, Any]) -> None:
    decision = merged(owner=answer(obligations=[obligation]))
    assert not decision.allowed
    assert [("obligation_unknown", "owner:digits")] == [(reason.code, reason.source) for reason in decision.reasons]


def test_reviews_and_warnings_of_both_are_kept_and_do_not_refuse() -> None:
    remark = [{"code": "look", "message": "Look."}]
    decision = merged(answer(review=remark, warn=remark), answer(review=remark))
    assert decision.allowed
    assert ["organisation", "owner:digits"] == [reason.source for reason in decision.review]
    assert ["organisation"] == [reason.source for reason in decision.warnings]


_BOUND_VALUES = st.dictionaries(st.sampled_from(sorted(BOUNDS)), st.integers(1, 1000))
_CHOICE_VALUES = st.dictionaries(
    st.sampled_from(sorted(CHOICES)), st.lists(st.sampled_from("abcd"), unique=True, min_size=1)
)


@given(_BOUND_VALUES, _CHOICE_VALUES, _BOUND_VALUES, _CHOICE_VALUES)
def test_no_owner_ever_loosens(
    bounds: dict[str, int],
    choices: dict[str, list[str]],
    owner_bounds: dict[str, int],
    owner_choices: dict[str, list[str]],
) -> None:
    alone = merged(answer(limits=bounds | choices)).limits
    both = merged(answer(limits=bounds | choices), answer(limits=owner_bounds | owner_choices)).limits
    for name in bounds:
        held, then = getattr(alone, name), getattr(both, name)
        assert then <= held if name.startswith("max_") else then >= held
    for name in choices:
        assert getattr(both, name) <= getattr(alone, name)
    for name in owner_bounds:
        assert getattr(both, name) is not None


@given(st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_both_must_allow_and_neither_deny(allow: bool, owner_allow: bool, deny: bool, owner_deny: bool) -> None:
    decision = merged(
        answer(allow=allow, deny=[DENIED] if deny else []),
        answer(allow=owner_allow, deny=[DENIED] if owner_deny else []),
    )
    assert (allow and owner_allow and not deny and not owner_deny) == decision.allowed
    assert decision.allowed == (not decision.reasons)
