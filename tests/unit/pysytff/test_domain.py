"""What a node offers, requests and their answers, over real HTTP."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tensorflow as tf

import pysytff as sy
from pysytff import errors
from pysytff.display import Listing, Table, cell
from pysytff.models import Project

DOCUMENT = {
    "schema": "pysytff.model/1",
    "input": {"shape": [4], "dtype": "float32"},
    "layers": [{"type": "dense", "name": "dense", "units": 2}],
}


@pytest.fixture
def domain(node: Any) -> Iterator[sy.Domain]:
    with sy.login(email="sam@stargate.net", password="changethis", port=node.port) as domain:
        yield domain


def clamp_to_two(body: dict[str, Any], decided: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    clamp = {"parameter": "noise_multiplier", "requested": 0.05, "effective": 2.0, "by": "budget", "why": "it must fit"}
    return decided(body, outcome="clamped", clamps=[clamp], effective=body | {"noise_multiplier": 2.0})


def test_the_announcements_line_finds_an_asset(domain: sy.Domain) -> None:
    assert "ast_images" == domain.datasets[0]["images"].id_at_location.to_string()
    assert "ast_labels" == domain.dataset[0]["labels"].id_at_location.to_string()


def test_datasets_are_found_by_position_name_and_id(domain: sy.Domain) -> None:
    datasets = domain.datasets

    assert "dat_1" == datasets[0].id == datasets[-1].id == datasets["digits"].id == datasets["dat_1"].id
    assert 1 == len(datasets) == len(list(datasets))
    with pytest.raises(IndexError):
        _ = datasets[1]


def test_a_misspelt_name_is_answered_with_the_nearest(domain: sy.Domain) -> None:
    with pytest.raises(KeyError, match="none of datasets is called 'digit'; did you mean 'digits'") as failure:
        _ = domain.datasets["digit"]
    assert isinstance(failure.value, errors.UnknownNameError)
    with pytest.raises(KeyError, match=r"dataset 'digits' has no asset 'image'; did you mean 'images'\?"):
        _ = domain.datasets[0]["image"]


def test_a_listing_shows_itself_as_text_and_as_html(domain: sy.Domain) -> None:
    datasets = domain.datasets

    assert "digits" in repr(datasets)
    assert "<table>" in datasets._repr_html_()
    assert "&lt;b&gt;8 × 8&lt;/b&gt;" in datasets._repr_html_()
    assert "<b>8" not in datasets._repr_html_()
    assert "ast_images" in repr(datasets[0])


def test_a_table_shows_control_characters_and_markup_as_text() -> None:
    text = str(Table("t", ("a",), [("\x1b[31mred [bold]x[/bold] [/nope]",)]))

    assert "\x1b" not in text
    assert "[bold]x[/bold] [/nope]" in text


def test_a_listing_refuses_a_name_that_several_bear() -> None:
    projects = [Project(id=f"prj_{number}", name="same") for number in (1, 2)]
    listing = Listing(projects, "Projects", ("name",))

    with pytest.raises(errors.UnknownNameError, match="use the id"):
        _ = listing["same"]
    assert "prj_2" == listing["prj_2"].id


def test_projects_and_budget_are_read(domain: sy.Domain, node: Any) -> None:
    assert "prj_1" == domain.projects["Sam's own"].id
    (reading,) = domain.budget()
    assert (8.0, 1.25, "pop_1") == (reading.guarantee_epsilon, reading.committed_epsilon, reading.scope_id)
    assert "pop_1" == domain.budget("writers")[0].scope_id == domain.budget(domain.populations[0])[0].scope_id
    assert "pop_other" == domain.budget("pop_other")[0].scope_id
    with pytest.raises(errors.UnknownNameError, match="did you mean 'writers'"):
        domain.budget("writer")


def test_the_ledger_is_read_page_by_page_up_to_a_limit(domain: sy.Domain) -> None:
    assert [0, 1, 2, 3, 4] == [entry.index for entry in domain.ledger()]
    assert [0, 1, 2] == [entry.index for entry in domain.ledger(limit=3)]


def test_a_preview_is_a_decision_with_a_table(
    domain: sy.Domain, node: Any, params: dict[str, Any], decided: Callable[..., dict[str, Any]]
) -> None:
    node.decide = lambda body: clamp_to_two(body, decided)

    decision = domain.preview(DOCUMENT, params | {"noise_multiplier": 0.05})

    assert ("clamped", True, None) == (decision.outcome, decision.allowed, decision.run_id)
    assert [("0.05", "2")] == [(row[1], row[2]) for row in rows(decision) if row[0] == "noise_multiplier"]
    assert "it must fit (by budget)" in repr(decision)
    assert "from 1 to 1.3" in repr(decision)
    assert "<table>" in decision._repr_html_()
    assert {} == node.runs


def test_a_parameter_that_was_clamped_twice_shows_both_reasons(
    domain: sy.Domain, node: Any, params: dict[str, Any], decided: Callable[..., dict[str, Any]]
) -> None:
    first = {"parameter": "rounds", "requested": 9, "effective": 5, "by": "owner:digits", "why": "five at most"}
    second = {"parameter": "rounds", "requested": 5, "effective": 4, "by": "budget", "why": "it must fit"}
    node.decide = lambda body: decided(body, outcome="clamped", clamps=[first, second])

    (row,) = (row for row in rows(domain.preview(DOCUMENT, params)) if row[0] == "rounds")

    assert "five at most (by owner:digits); it must fit (by budget)" == row[3]


def rows(decision: sy.Decision) -> list[list[str]]:
    return [[cell(value) for value in row] for row in decision.table().rows]


def test_a_refused_preview_is_an_answer_not_an_error(
    domain: sy.Domain, node: Any, params: dict[str, Any], decided: Callable[..., dict[str, Any]]
) -> None:
    reason = {"code": "purpose", "message": "say what for", "source": "owner:digits", "field": "purpose"}
    node.decide = lambda body: decided(body, outcome="refused", reasons=[reason], effective=None, cost=None)

    decision = domain.preview(DOCUMENT, params)

    assert not decision.allowed
    assert "say what for [purpose] (purpose, by owner:digits)" in repr(decision)


def test_a_submitted_request_becomes_a_run_without_waiting(
    domain: sy.Domain, node: Any, params: dict[str, Any]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = domain.submit(DOCUMENT, params)

    assert ("run_1", "reserved", "approved") == (run.id, run.status, run.decision.outcome)
    ((headers, body),) = node.sent("POST", "/v1/train-requests")
    assert params | {"model": DOCUMENT} == body
    assert 32 == len(headers["Idempotency-Key"])


def test_each_call_is_one_request_with_a_key_of_its_own(domain: sy.Domain, node: Any, params: dict[str, Any]) -> None:
    assert domain.submit(DOCUMENT, params).id != domain.submit(DOCUMENT, params).id
    assert (
        domain.submit(DOCUMENT, params, idempotency_key="k").id
        == domain.submit(DOCUMENT, params, idempotency_key="k").id
    )


def test_a_lost_answer_is_asked_for_again_with_the_same_key(
    domain: sy.Domain, node: Any, params: dict[str, Any]
) -> None:
    node.drop_after_work = 2

    run = domain.submit(DOCUMENT, params)

    keys = [headers["Idempotency-Key"] for headers, _ in node.sent("POST", "/v1/train-requests")]
    assert 3 == len(keys)
    assert 1 == len(set(keys)) == len(node.runs)
    assert "run_1" == run.id


def test_a_clamped_request_warns_what_was_asked_and_what_is_allowed(
    domain: sy.Domain, node: Any, params: dict[str, Any], decided: Callable[..., dict[str, Any]]
) -> None:
    node.decide = lambda body: clamp_to_two(body, decided)

    with pytest.warns(sy.errors.ClampedWarning) as caught:
        domain.submit(DOCUMENT, params)

    # Python may report what an earlier test left to the garbage collector in the same place.
    (warning,) = (one for one in caught if one.category is sy.errors.ClampedWarning)
    assert "noise_multiplier: asked 0.05, allowed 2, because it must fit (by budget)" in str(warning.message)
    assert __file__ == warning.filename
    assert isinstance(warning.message, sy.errors.ClampedWarning)
    assert 2.0 == warning.message.decision.clamps[0].effective


def test_what_a_policy_warns_of_is_a_warning(
    domain: sy.Domain, node: Any, params: dict[str, Any], decided: Callable[..., dict[str, Any]]
) -> None:
    said = {"code": "few", "message": "few rounds", "source": "organisation", "field": None}
    node.decide = lambda body: decided(body, warnings=[said])

    with pytest.warns(sy.errors.PolicyWarning, match="few rounds"):
        domain.submit(DOCUMENT, params)


def test_a_refusal_says_why_and_what_would_be_allowed(
    domain: sy.Domain, node: Any, params: dict[str, Any], decided: Callable[..., dict[str, Any]]
) -> None:
    reason = {"code": "over_budget", "message": "it costs too much", "source": "budget", "field": None}
    node.decide = lambda body: clamp_to_two(body, decided) | {"outcome": "refused", "reasons": [reason]}

    with pytest.raises(errors.RequestRefusedError) as refusal:
        domain.submit(DOCUMENT, params | {"on_exceed": "refuse"})

    text = str(refusal.value)
    assert "it costs too much (over_budget, by budget)" in text
    assert "noise_multiplier: asked 0.05, allowed 2" in text
    assert "on_exceed='clamp'" in text
    assert refusal.value.decision is not None
    assert "over_budget" == refusal.value.decision.reasons[0].code


def test_bad_parameters_and_models_are_refused_before_anything_is_sent(
    domain: sy.Domain, node: Any, params: dict[str, Any]
) -> None:
    before = len(node.requests)

    with pytest.raises(errors.ParameterError):
        domain.submit(DOCUMENT, params | {"sigma": 1})
    with pytest.raises(errors.UnsupportedModelError):
        domain.submit(lambda: tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Lambda(abs)]), params)

    assert before == len(node.requests)


def test_a_model_without_input_takes_the_shape_of_its_data(
    domain: sy.Domain, node: Any, params: dict[str, Any]
) -> None:
    domain.submit(lambda: tf.keras.Sequential([tf.keras.layers.Dense(2)]), params)

    assert [4] == node.sent("POST", "/v1/train-requests")[0][1]["model"]["input"]["shape"]


def test_an_answer_that_cannot_be_read_is_an_error_of_its_own(
    domain: sy.Domain, node: Any, params: dict[str, Any]
) -> None:
    node.decide = lambda body: {"id": 5, "outcome": "approved"}

    with pytest.raises(errors.UnexpectedAnswerError, match="no Decision"):
        domain.preview(DOCUMENT, params)


def test_newer_fields_of_a_node_are_ignored(
    domain: sy.Domain, node: Any, params: dict[str, Any], decided: Callable[..., dict[str, Any]]
) -> None:
    node.decide = lambda body: decided(body, a_field_of_next_year=1)

    assert "approved" == domain.preview(DOCUMENT, params).outcome


def test_a_reading_without_bound_arrives_as_infinity(
    domain: sy.Domain, node: Any, params: dict[str, Any], decided: Callable[..., dict[str, Any]]
) -> None:
    def decide(body: dict[str, Any]) -> dict[str, Any]:
        answer = decided(body)
        return answer | {"cost": answer["cost"] | {"epsilon_of_run_alone": None}}

    node.decide = decide

    decision = domain.preview(DOCUMENT, params)

    assert decision.cost is not None
    assert float("inf") == decision.cost.epsilon_of_run_alone
    assert "ε of this run alone inf" in repr(decision)
