"""Decisions by the real OPA, and refusals wherever something else answers."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from governance.errors import (
    InvalidRequestError,
    PolicyEngineError,
    PolicyResultError,
    PolicyRevisionError,
    PolicyTimeoutError,
    PolicyUnreachableError,
)
from governance.model import CLAMPABLE, PolicyDecision
from governance.policy.bundles import ActivePolicies, build
from governance.policy.locate import POLICIES_DIR
from governance.policy.opa import PolicyEngine
from governance.policy.supervisor import OpaChild
from governance.policy.wire import MAX_ANSWER_BYTES
from tests.integration.policy import peers

TOKEN = "0" * 32


def ask(
    engine: PolicyEngine, document: dict[str, Any], active: ActivePolicies, policy_id: str = "digits"
) -> PolicyDecision:
    document["dataset"]["policy"] = policy_id
    return engine.decide(document, policy_id=policy_id, active=active)


def refused_by(
    url: str, document: dict[str, Any], active: ActivePolicies, *, timeout_s: float = 5.0
) -> PolicyEngineError:
    engine = PolicyEngine(url, TOKEN, timeout_s=timeout_s)
    try:
        with pytest.raises(PolicyEngineError) as caught:
            ask(engine, document, active)
    finally:
        engine.close()
    return caught.value


# --- real decisions


def test_a_sensible_request_is_allowed(engine: PolicyEngine, document: dict[str, Any], active: ActivePolicies) -> None:
    decision = ask(engine, document, active)
    assert decision.allowed
    assert () == decision.reasons
    assert () == decision.warnings
    assert CLAMPABLE == decision.clamp_order
    assert (120, 0.8, 100) == (
        decision.limits.max_rounds,
        decision.limits.min_noise_multiplier,
        decision.limits.max_clients_per_round,
    )
    assert frozenset({"gaussian_fixed_clipping"}) == decision.limits.allowed_mechanisms
    assert "owner:digits" == decision.limits.sources["max_rounds"]
    assert "organisation" == decision.limits.sources["max_batch_size"]
    assert ({"type": "publish_weights", "params": {}},) == decision.obligations
    assert (active.revision, active.digests) == (decision.revision, decision.digests)


def test_each_decision_has_an_id_of_its_own(
    engine: PolicyEngine, document: dict[str, Any], active: ActivePolicies
) -> None:
    ids = {ask(engine, document, active).opa_decision_id for _ in range(3)}
    assert 3 == len(ids)


def test_the_notebooks_own_parameters_need_much_more_noise_and_are_warned_about(
    engine: PolicyEngine, document: dict[str, Any], active: ActivePolicies
) -> None:
    document["request"] |= {
        "rounds": 10,
        "no_clients": 3,
        "pool_restricted": True,
        "clients_per_round": 2,
        "sampling_probability": 2 / 3,
        "noise_multiplier": 0.05,
    }
    document["purpose"] = "unspecified"
    decision = ask(engine, document, active)
    assert decision.allowed
    assert (5, "owner:digits") == (
        decision.limits.min_noise_multiplier,
        decision.limits.sources["min_noise_multiplier"],
    )
    assert {"pool_is_small", "purpose_not_stated", "sampling_probability_high"} == {
        warning.code for warning in decision.warnings
    }


def test_the_owners_denial_is_named_as_the_owners(
    engine: PolicyEngine, document: dict[str, Any], active: ActivePolicies
) -> None:
    document["purpose"] = "pricing insurance"
    decision = ask(engine, document, active)
    assert not decision.allowed
    assert [("purpose_not_permitted", "owner:digits")] == [(reason.code, reason.source) for reason in decision.reasons]


def test_the_datasets_own_policy_decides(
    engine: PolicyEngine, document: dict[str, Any], active: ActivePolicies
) -> None:
    assert 150 == ask(engine, document, active, "standard").limits.max_clients_per_round
    assert 100 == ask(engine, document, active, "digits").limits.max_clients_per_round


def test_a_denial_refuses_though_allow_is_true(
    engine: PolicyEngine, document: dict[str, Any], active: ActivePolicies
) -> None:
    decision = ask(engine, document, active, "denies")
    assert (False, ["no"]) == (decision.allowed, [reason.code for reason in decision.reasons])


def test_an_unknown_obligation_refuses(engine: PolicyEngine, document: dict[str, Any], active: ActivePolicies) -> None:
    decision = ask(engine, document, active, "unknown_obligation")
    assert (False, ["obligation_unknown"]) == (decision.allowed, [reason.code for reason in decision.reasons])


def test_many_threads_get_their_own_answers(
    engine: PolicyEngine, document: dict[str, Any], active: ActivePolicies
) -> None:
    found: dict[int, int | None] = {}

    def one(size: int) -> None:
        mine = json.loads(json.dumps(document))
        mine["request"]["no_clients"] = size
        found[size] = ask(engine, mine, active, "standard").limits.max_clients_per_round

    threads = [threading.Thread(target=one, args=(size,)) for size in range(100, 140, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {size: size // 2 for size in range(100, 140, 2)} == found


# --- policies that go wrong when asked


@pytest.mark.parametrize(
    "policy_id",
    [
        "two_values",
        "failing",
        "no_allow",
        "no_limits",
        "allow_text",
        "allow_one",
        "allow_null",
        "unknown_limit",
        "huge",
    ],
)
def test_an_answer_that_is_not_the_contracts_refuses(
    engine: PolicyEngine, document: dict[str, Any], active: ActivePolicies, policy_id: str
) -> None:
    with pytest.raises(PolicyResultError):
        ask(engine, document, active, policy_id)


def test_an_evaluation_that_fails_names_the_place_and_not_the_input(
    engine: PolicyEngine, document: dict[str, Any], active: ActivePolicies
) -> None:
    document["purpose"] = "a purpose that nobody should read in a log"
    with pytest.raises(PolicyResultError, match=r"owners/failing\.rego:5") as caught:
        ask(engine, document, active, "failing")
    assert "nobody should read" not in caught.value.detail


def test_one_owners_fault_leaves_the_others_alone(
    engine: PolicyEngine, document: dict[str, Any], active: ActivePolicies
) -> None:
    with pytest.raises(PolicyResultError):
        ask(engine, document, active, "two_values")
    assert ask(engine, document, active, "digits").allowed


def test_a_policy_that_takes_too_long_refuses_and_the_next_question_is_answered(
    server: OpaChild, token: str, engine: PolicyEngine, document: dict[str, Any], active: ActivePolicies
) -> None:
    hasty = PolicyEngine(server.url, token, timeout_s=0.5)
    with pytest.raises(PolicyTimeoutError):
        ask(hasty, document, active, "slow")
    hasty.close()
    assert ask(engine, document, active, "digits").allowed


def test_a_policy_that_is_not_in_force_refuses(
    engine: PolicyEngine, document: dict[str, Any], active: ActivePolicies
) -> None:
    with pytest.raises(PolicyResultError, match="owner:nobody"):
        ask(engine, document, active, "nobody")


def test_a_policy_that_the_bundle_lacks_refuses(
    engine: PolicyEngine, document: dict[str, Any], active: ActivePolicies
) -> None:
    claimed = ActivePolicies(active.revision, active.sequence, {**active.digests, "owner:nobody": "sha256:00"})
    with pytest.raises(PolicyResultError, match="owner:nobody left undefined"):
        ask(engine, document, claimed, "nobody")


def test_a_document_about_another_policy_refuses(
    engine: PolicyEngine, document: dict[str, Any], active: ActivePolicies
) -> None:
    with pytest.raises(PolicyEngineError, match="another policy"):
        engine.decide(document, policy_id="standard", active=active)


def test_a_document_that_is_unfit_is_not_sent(document: dict[str, Any], active: ActivePolicies) -> None:
    document["request"]["noise_multiplier"] = float("nan")
    asked: list[str] = []
    with peers.answering(b"{}", asked=asked) as url:
        engine = PolicyEngine(url, TOKEN)
        with pytest.raises(InvalidRequestError):
            ask(engine, document, active)
        engine.close()
    assert [] == asked


# --- revision


def test_readiness_is_reachable_admitted_and_of_the_revision_in_force(
    engine: PolicyEngine, active: ActivePolicies
) -> None:
    engine.ready(active)
    with pytest.raises(PolicyRevisionError):
        engine.ready(ActivePolicies("2-0000000000000000", 2, active.digests))


def test_another_revision_refuses(engine: PolicyEngine, document: dict[str, Any], active: ActivePolicies) -> None:
    newer = ActivePolicies("2-0000000000000000", 2, active.digests)
    with pytest.raises(PolicyRevisionError):
        ask(engine, document, newer)


def test_a_new_bundle_takes_force_with_a_restart_on_the_same_port(
    tmp_path: Path,
    token: str,
    opa: Path,
    document: dict[str, Any],
    active: ActivePolicies,
    owner_policies: dict[str, str],
) -> None:
    file = build(POLICIES_DIR, owner_policies, active.revision, tmp_path / "b.tar.gz", opa=opa)
    child = OpaChild(opa)
    child.start(file, token)
    child.wait_ready()
    url = child.url
    engine = PolicyEngine(url, token, timeout_s=20.0)
    try:
        assert ask(engine, document, active).allowed
        newer = ActivePolicies("2-0000000000000000", 2, active.digests)
        build(POLICIES_DIR, owner_policies, newer.revision, file, opa=opa)
        with pytest.raises(PolicyRevisionError):
            ask(engine, document, newer)
        child.restart()
        child.wait_ready()
        assert url == child.url
        engine.ready(newer)
        with pytest.raises(PolicyRevisionError):
            ask(engine, document, active)
    finally:
        engine.close()
        child.stop()


@pytest.mark.parametrize(
    "provenance",
    [
        None,
        {},
        {"bundles": {}},
        {"bundles": {"other": {"revision": "{revision}"}}},
        {"bundles": {"pysytff": {}}},
        {"bundles": {"pysytff": {"revision": ""}}},
        {"bundles": {"pysytff": "{revision}"}},
        {"bundles": {"pysytff": {"revision": "{revision}"}, "second": {"revision": "{revision}"}}},
        {"revision": "{revision}"},
    ],
)
def test_an_answer_without_our_bundle_alone_refuses(
    provenance: object, document: dict[str, Any], active: ActivePolicies
) -> None:
    allowing = {"allow": True, "deny": [], "limits": {}}
    answer = {"result": {"organisation": allowing, "owner": allowing}, "provenance": provenance, "decision_id": "x"}
    body = json.dumps(answer).replace("{revision}", active.revision).encode()
    with peers.answering(body) as url:
        assert isinstance(refused_by(url, document, active), PolicyRevisionError)


# --- unreachable, slow, rubbish


def test_an_engine_that_is_not_there_refuses(document: dict[str, Any], active: ActivePolicies) -> None:
    error = refused_by(f"http://127.0.0.1:{peers.free_port()}", document, active)
    assert isinstance(error, PolicyUnreachableError)


def test_an_engine_that_never_answers_refuses(document: dict[str, Any], active: ActivePolicies) -> None:
    with peers.silent() as url:
        assert isinstance(refused_by(url, document, active, timeout_s=0.3), PolicyTimeoutError)


def test_an_engine_that_never_ends_its_answer_refuses(document: dict[str, Any], active: ActivePolicies) -> None:
    with peers.dripping() as url:
        assert isinstance(refused_by(url, document, active, timeout_s=0.3), PolicyTimeoutError)


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{", b"OK", b"<html></html>", b'{"result": NaN}', b'{"allow": true, "allow": true}'],
)
def test_rubbish_refuses(body: bytes, document: dict[str, Any], active: ActivePolicies) -> None:
    with peers.answering(body) as url:
        assert isinstance(refused_by(url, document, active), PolicyResultError)


def genuine(active: ActivePolicies, **replaced: object) -> bytes:
    allowing = {"allow": True, "deny": [], "limits": {}}
    answer = {
        "result": {"organisation": allowing, "owner": allowing},
        "provenance": {"bundles": {"pysytff": {"revision": active.revision}}},
        "decision_id": "x",
    }
    return json.dumps({name: value for name, value in {**answer, **replaced}.items() if value is not None}).encode()


@pytest.mark.parametrize(
    "replaced",
    [
        {"result": None},
        {"result": {}},
        {"result": True},
        {"decision_id": None},
        {"decision_id": 5},
        {"decision_id": ""},
    ],
)
def test_an_answer_that_lacks_something_refuses(
    replaced: dict[str, object], document: dict[str, Any], active: ActivePolicies
) -> None:
    with peers.answering(genuine(active, **replaced)) as url:
        assert isinstance(refused_by(url, document, active), PolicyResultError)


def test_a_huge_answer_refuses(document: dict[str, Any], active: ActivePolicies) -> None:
    with peers.answering(b'{"a":"' + b"x" * (40 * MAX_ANSWER_BYTES) + b'"}') as url:
        error = refused_by(url, document, active)
    assert isinstance(error, PolicyResultError)
    assert "larger" in error.detail


@pytest.mark.parametrize("status", [201, 204, 400, 401, 403, 404, 413, 429, 500, 502, 503, 504])
def test_any_other_status_refuses_though_the_body_allows(
    status: int, document: dict[str, Any], active: ActivePolicies
) -> None:
    asked: list[str] = []
    with peers.answering(b"" if status == 204 else genuine(active), status=status, asked=asked) as url:
        refused_by(url, document, active)
    assert 1 == len(asked)  # asked once: no retry behind our back


def test_a_redirect_is_not_followed_with_our_token(document: dict[str, Any], active: ActivePolicies) -> None:
    elsewhere: list[str] = []
    with (
        peers.answering(genuine(active), asked=elsewhere) as other,
        peers.answering(b"", status=307, headers={"Location": f"{other}/v1/data/pysytff/gate"}) as url,
    ):
        refused_by(url, document, active)
    assert [] == elsewhere


def test_a_wrong_token_refuses(server: OpaChild, document: dict[str, Any], active: ActivePolicies) -> None:
    error = refused_by(server.url, document, active)
    assert "token" in error.detail
    assert TOKEN not in error.detail


def test_a_closed_engine_refuses(
    server: OpaChild, token: str, document: dict[str, Any], active: ActivePolicies
) -> None:
    engine = PolicyEngine(server.url, token)
    engine.close()
    engine.close()
    with pytest.raises(PolicyUnreachableError):
        ask(engine, document, active)


@pytest.mark.parametrize(
    "url",
    [
        "http://policies.example:8181",
        "http://10.0.0.1:8181",
        "ftp://127.0.0.1:8181",
        "127.0.0.1:8181",
        "http://127.0.0.1:8181/prefix",
        "http://name:secret@127.0.0.1:8181",
        "http://127.0.0.1:port",
        "http://127.0.0.1:8181?x=1",
        "",
    ],
)
def test_an_address_that_is_unusable_or_unsafe_is_refused(url: str) -> None:
    with pytest.raises(PolicyEngineError) as caught:
        PolicyEngine(url, TOKEN)
    assert "secret" not in caught.value.detail
