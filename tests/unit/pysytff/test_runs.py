"""Watching runs to their end and taking their results, over real HTTP with streams that break."""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

import pysytff as sy
from pysytff import errors
from pysytff.follow import Follower, parse_events


@pytest.fixture
def domain(node: Any) -> sy.Domain:
    return sy.login(email="sam@stargate.net", password="changethis", port=node.port)


@pytest.fixture
def run(node: Any, domain: sy.Domain, decided: Callable[..., dict[str, Any]]) -> sy.Run:
    node.add_run("run_1", decided({"rounds": 4}))
    run = domain.runs["run_1"]
    run.poll_s = 0.01
    return run


def streams(node: Any) -> list[str | None]:
    return [headers.get("Last-Event-ID") for headers, _ in node.sent("GET", "/v1/runs/run_1/events")]


def test_a_run_is_followed_by_its_event_stream(node: Any, run: sy.Run) -> None:
    node.run_to_the_end("run_1")

    seen = [(event.state, event.rounds_done) for event in run.events()]

    assert [("reserved", 0), *(("running", done) for done in range(5)), ("published", 4)] == seen
    assert [None] == streams(node)


def test_a_broken_stream_is_resumed_after_the_last_event(node: Any, run: sy.Run) -> None:
    node.run_to_the_end("run_1")
    node.stream_breaks = [2, 3]

    seen = [event.rounds_done for event in run.events() if event.state == "running"]

    assert [None, "2", "5"] == streams(node)
    assert seen == sorted(seen)
    assert {0, 1, 2, 3, 4} == set(seen)


def test_streams_that_bring_nothing_are_given_up_for_polling(node: Any, run: sy.Run) -> None:
    node.run_to_the_end("run_1")
    node.stream_breaks = [0] * 100
    node.advance_on_read = True

    assert "published" == list(run.events())[-1].state
    assert 3 == len(streams(node))


def test_a_refused_stream_is_replaced_by_polling(node: Any, run: sy.Run) -> None:
    node.run_to_the_end("run_1")
    node.stream_problem = (429, "too_many_streams")
    node.advance_on_read = True

    assert "published" == list(run.events())[-1].state
    assert 1 == len(streams(node))


def test_a_session_that_ends_while_watching_is_refreshed(node: Any, run: sy.Run) -> None:
    node.run_to_the_end("run_1")
    node.access.clear()

    assert "published" == run.watch(progress=False).info.state


def test_a_node_that_restarts_does_not_end_the_wait(node: Any, run: sy.Run) -> None:
    node.run_to_the_end("run_1")
    node.drop_after_work = 9

    assert "published" == run.watch(progress=False).info.state


def test_a_node_that_stays_away_ends_the_wait(node: Any, run: sy.Run) -> None:
    node.drop_after_work = 1000

    follower = Follower(run._transport, run.id, None, poll_s=0.01, patience_s=0.05)

    with pytest.raises(errors.UnreachableError):
        list(follower.events())


def test_a_watched_run_shows_a_progress_bar(node: Any, run: sy.Run, capsys: pytest.CaptureFixture[str]) -> None:
    node.run_to_the_end("run_1")

    assert run is run.watch()

    assert "run_1 published" in capsys.readouterr().err


def test_a_timeout_names_the_run_and_how_to_go_on(node: Any, run: sy.Run) -> None:
    with pytest.raises(TimeoutError) as failure:
        run.watch(0.05, progress=False)

    assert isinstance(failure.value, errors.RunTimeoutError)
    assert ("run_1", "reserved") == (failure.value.run_id, failure.value.state)
    assert "domain.runs['run_1'].watch()" in str(failure.value)
    assert "reserved" == run.status


@pytest.fixture
def heeded_ctrl_c() -> Iterator[None]:
    """A shell starts what it runs in the background with SIGINT ignored, and Python then leaves it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded_ctrl_c")
def test_ctrl_c_leaves_the_run_and_says_how_to_go_on(node: Any, run: sy.Run) -> None:
    timer = threading.Timer(0.3, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))
    timer.start()

    with pytest.raises(KeyboardInterrupt) as interrupt:
        run.watch(60, progress=False)

    timer.join()
    assert "run run_1 goes on" in str(interrupt.value)
    assert "pysytff runs cancel run_1" in str(interrupt.value)
    assert "reserved" == run.status


def test_a_cancelled_run_has_no_result(node: Any, run: sy.Run) -> None:
    assert "cancelled" == run.cancel().info.state
    assert "cancelled" == run.watch(progress=False).status

    with pytest.raises(errors.RunEndedError, match="ended cancelled and has no result"):
        run.result()


def test_a_run_that_still_goes_has_no_result_yet(run: sy.Run) -> None:
    with pytest.raises(errors.RunNotFinishedError, match="is reserved"):
        run.result()


def test_runs_are_listed_page_by_page_and_found_by_id(
    node: Any, domain: sy.Domain, decided: Callable[..., dict[str, Any]]
) -> None:
    for number in range(1, 6):
        node.add_run(f"run_{number}", decided({}))

    assert [f"run_{number}" for number in range(1, 6)] == [run.id for run in domain.runs]
    assert "run_5" == domain.runs[-1].id == domain.runs["run_5"].id
    assert "run_3" in repr(domain.runs)
    assert "0 of 4 done" in repr(domain.runs["run_3"])
    with pytest.raises(errors.NotFoundError, match="no run run_9"):
        _ = domain.runs["run_9"]


def test_a_result_has_metrics_privacy_statement_and_checked_weights(
    node: Any, run: sy.Run, published_weights: dict[str, Any]
) -> None:
    node.runs["run_1"]["state"] = "published"

    result = run.result()

    assert ({"holdout_accuracy": 0.93}, 1.5) == (result.metrics, result.privacy["epsilon"])
    assert set(published_weights) == set(result.weights)
    assert node.weights == result.content


def broken_digest(node: Any) -> None:
    node.digest = "0" * 64


def no_safetensors(node: Any) -> None:
    node.weights = b"\x80\x04\x95 pickled"


def not_finite(node: Any) -> None:
    node.weights = safetensors.numpy.save({"dense/kernel": np.full((4, 2), np.nan, np.float32)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (broken_digest, "not those that the node published"),
        (no_safetensors, "not in the safetensors format"),
        (not_finite, "not finite, in dense/kernel"),
    ],
)
def test_weights_that_are_not_right_are_refused(
    node: Any, run: sy.Run, change: Callable[[Any], None], message: str
) -> None:
    node.runs["run_1"]["state"] = "published"
    change(node)
    if change is not broken_digest:
        node.digest = hashlib.sha256(node.weights).hexdigest()

    with pytest.raises(errors.WeightsError, match=message):
        run.result()


@pytest.mark.parametrize(
    ("units", "message"),
    [([2, 2], "1 weights of the model|among the model's 4"), ([3], r"\[4, 2\] in the run, \[4, 3\]")],
)
def test_weights_of_another_model_are_refused_and_change_nothing(
    node: Any, run: sy.Run, units: list[int], message: str
) -> None:
    node.runs["run_1"]["state"] = "published"
    model = tf.keras.Sequential([tf.keras.Input((4,)), *(tf.keras.layers.Dense(size) for size in units)])
    before = model.get_weights()

    with pytest.raises(errors.WeightsError, match=message):
        run.result().load_into(model)

    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_result_of_an_earlier_session_goes_into_a_model_of_the_same_layers(
    node: Any, run: sy.Run, published_weights: dict[str, Any]
) -> None:
    node.runs["run_1"]["state"] = "published"
    tf.keras.layers.Dense(1)  # Keras counts on: the next automatic name is no longer "dense"

    model = run.result().load_into(tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(2)]))

    np.testing.assert_array_equal(published_weights["dense/kernel"], model.get_weights()[0])


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["id: 1", "data: a", ""], [("1", "a")]),
        (["data:a", "data: b", "", "data: c", ""], [("", "a\nb"), ("", "c")]),
        (
            [": ping", "id: 2", "event: state", "retry: 5", "data: x", "", "data: y", ""],
            [("", ""), ("2", "x"), ("2", "y")],
        ),
        (["id: 3", "data: lost in the break"], []),
        (["", "", "unknown", "id: 4", ""], []),
    ],
)
def test_event_streams_are_read_as_the_standard_says(lines: list[str], expected: list[tuple[str, str]]) -> None:
    assert expected == list(parse_events(lines))
