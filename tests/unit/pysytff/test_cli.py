"""The command line, against a node that speaks the contract."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from typer.testing import CliRunner, Result

from pysytff.cli import app

Invoke = Callable[..., Result]
MODEL = {
    "schema": "pysytff.model/1",
    "input": {"shape": [4], "dtype": "float32"},
    "layers": [{"type": "dense", "name": "dense", "units": 2}],
}
OPTIONS = ("--rounds", "4", "--clients-per-round", "20", "--noise-multiplier", "1", "--train-data", "digits/images",
           "--label-data", "ast_labels")  # fmt: skip


@pytest.fixture
def invoke(session_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "model.json").write_text(json.dumps(MODEL))
    return lambda *arguments, **more: CliRunner().invoke(app, [str(argument) for argument in arguments], **more)


@pytest.fixture
def logged_in(node: Any, invoke: Invoke) -> Invoke:
    done = invoke("login", "--email", "sam@stargate.net", "--port", node.port, env={"PYSYTFF_PASSWORD": "changethis"})
    assert 0 == done.exit_code, done.output
    return invoke


def test_logging_in_asks_for_the_password_and_stores_a_session_without_it(
    node: Any, invoke: Invoke, session_file: Path
) -> None:
    done = invoke("login", "--email", "sam@stargate.net", "--port", node.port, input="changethis\n")

    assert 0 == done.exit_code
    assert f"Logged in to {node.url} as Sam (researcher)." in done.stdout
    assert "changethis" not in done.output
    assert "changethis" not in session_file.read_text()
    assert 0o600 == stat.S_IMODE(session_file.stat().st_mode)


def test_no_option_takes_a_password(invoke: Invoke) -> None:
    done = invoke("login", "--email", "sam@stargate.net", "--password", "changethis")

    assert 2 == done.exit_code
    assert "No such option" in done.output


def test_a_wrong_password_ends_with_4_and_stores_nothing(node: Any, invoke: Invoke, session_file: Path) -> None:
    done = invoke("login", "--email", "sam@stargate.net", "--port", node.port, input="wrong\n")

    assert 4 == done.exit_code
    assert "e-mail or password is wrong" in done.stderr
    assert not session_file.exists()


def test_plain_http_to_another_machine_is_refused(invoke: Invoke) -> None:
    done = invoke("login", "--email", "a@b.c", "--url", "http://node.example", env={"PYSYTFF_PASSWORD": "x"})

    assert 1 == done.exit_code
    assert "plain HTTP to another machine" in done.stderr


@pytest.mark.parametrize("command", ["whoami", "datasets", "budget", "ledger", "runs list", "runs show run_1"])
def test_without_a_session_a_command_says_to_log_in(invoke: Invoke, command: str) -> None:
    done = invoke(*command.split())

    assert 4 == done.exit_code
    assert "run `pysytff login`" in done.stderr


def test_whoami_datasets_budget_and_ledger_show_tables(logged_in: Invoke) -> None:
    for command, shown in (
        (["whoami"], "researcher"),
        (["datasets"], "digits"),
        (["datasets", "digits"], "ast_images"),
        (["budget"], "guarantee epsilon"),
        (["budget", "writers"], "pop_1"),
        (["ledger"], "decision"),
    ):
        done = logged_in(*command)
        assert 0 == done.exit_code, done.output
        assert shown in done.stdout


def test_every_answer_can_be_json(logged_in: Invoke) -> None:
    def answer(*command: str) -> Any:
        return json.loads(logged_in(*command, "--json").stdout)

    assert "researcher" == answer("whoami")["role"]
    assert ["dat_1"] == [dataset["id"] for dataset in answer("datasets")]
    assert "images" == answer("datasets", "digits")["assets"][0]["name"]
    assert 8.0 == answer("budget")[0]["guarantee_epsilon"]
    assert [0, 1, 2] == [entry["index"] for entry in answer("ledger", "--limit", "3")]
    assert [] == answer("runs", "list")


def test_errors_are_json_on_stderr_where_json_is_asked_for(logged_in: Invoke) -> None:
    done = logged_in("runs", "show", "run_9", "--json")

    assert (1, "") == (done.exit_code, done.stdout)
    assert ("not_found", 404) == tuple(json.loads(done.stderr)["error"][name] for name in ("code", "status"))


def test_a_session_is_refreshed_and_the_new_tokens_stored(node: Any, logged_in: Invoke, session_file: Path) -> None:
    node.access.clear()

    assert 0 == logged_in("whoami").exit_code
    assert 0 == logged_in("whoami").exit_code

    assert 2 == len(node.sent("POST", "/v1/auth/token"))
    assert "refresh-2" == json.loads(session_file.read_text())["refresh"]


def test_logging_out_ends_the_session_here_and_there(node: Any, logged_in: Invoke, session_file: Path) -> None:
    assert 0 == logged_in("logout").exit_code

    assert not session_file.exists()
    assert set() == node.refresh
    assert 4 == logged_in("whoami").exit_code
    assert 0 == logged_in("logout").exit_code


def test_a_preview_shows_the_decision(logged_in: Invoke, node: Any) -> None:
    done = logged_in("preview", "--model", "model.json", *OPTIONS)

    assert 0 == done.exit_code, done.output
    assert "Decision: approved" in done.stdout
    body = node.sent("POST", "/v1/train-requests:preview")[0][1]
    assert ("ast_images", "ast_labels", 4, 1.0) == tuple(
        body[name] for name in ("train_data_id", "label_data_id", "rounds", "noise_multiplier")
    )


def test_a_refused_preview_ends_with_3(logged_in: Invoke, node: Any, decided: Callable[..., dict[str, Any]]) -> None:
    node.decide = lambda body: decided(body, outcome="refused", effective=None)

    done = logged_in("preview", "--model", "model.json", *OPTIONS)

    assert 3 == done.exit_code
    assert "Decision: refused" in done.stdout


def test_training_writes_weights_and_shows_metrics_and_privacy(logged_in: Invoke, node: Any, tmp_path: Path) -> None:
    node.run_to_the_end("run_1")

    done = logged_in("train", "--model", "model.json", *OPTIONS, "--output", "weights.safetensors", "--json")

    assert 0 == done.exit_code, done.output
    answer = json.loads(done.stdout)
    assert (0.93, 1.5) == (answer["metrics"]["holdout_accuracy"], answer["privacy_statement"]["epsilon"])
    assert node.weights == (tmp_path / "weights.safetensors").read_bytes()


def test_parameters_come_from_a_file_then_set_then_options(logged_in: Invoke, node: Any, tmp_path: Path) -> None:
    given = {"rounds": 1, "clients_per_round": 2, "noise_multiplier": 3, "train_data_id": "a", "label_data_id": "b"}
    (tmp_path / "params.json").write_text(json.dumps(given | {"project": "Sam's own"}))

    done = logged_in(
        "train", "-m", "model.json", "-p", "params.json", "--set", "local_epochs=2", "--set", "clients_per_round=7",
        "--set", "purpose=7", "--rounds", 9, "--no-watch",
    )  # fmt: skip

    assert 0 == done.exit_code, done.output
    body = node.sent("POST", "/v1/train-requests")[0][1]
    del body["model"]
    expected = {"rounds": 9, "clients_per_round": 7, "local_epochs": 2, "purpose": "7", "project": "prj_1"}
    assert given | expected == body


def test_a_keras_models_json_is_translated(logged_in: Invoke, node: Any, tmp_path: Path) -> None:
    model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(2)])
    (tmp_path / "keras.json").write_text(model.to_json())

    assert 0 == logged_in("train", "-m", "keras.json", *OPTIONS, "--no-watch").exit_code

    assert "pysytff.model/1" == node.sent("POST", "/v1/train-requests")[0][1]["model"]["schema"]


def test_a_clamped_training_warns_on_stderr(
    logged_in: Invoke, node: Any, decided: Callable[..., dict[str, Any]]
) -> None:
    clamp = {"parameter": "rounds", "requested": 4, "effective": 2, "by": "budget", "why": "it must fit"}
    node.decide = lambda body: decided(body, outcome="clamped", clamps=[clamp])

    done = logged_in("train", "-m", "model.json", *OPTIONS, "--no-watch")

    assert 0 == done.exit_code
    assert "rounds: asked 4, allowed 2, because it must fit (by budget)" in done.stderr


def test_a_refused_training_ends_with_3_and_says_why(
    logged_in: Invoke, node: Any, decided: Callable[..., dict[str, Any]]
) -> None:
    reason = {"code": "purpose", "message": "say what for", "source": "owner:digits", "field": "purpose"}
    node.decide = lambda body: decided(body, outcome="refused", reasons=[reason], effective=None)

    for more in ((), ("--json",)):
        done = logged_in("train", "-m", "model.json", *OPTIONS, *more)
        assert 3 == done.exit_code
        assert "say what for" in done.stderr
        assert "" == done.stdout


def test_a_training_that_lasts_longer_ends_with_5_and_names_the_run(logged_in: Invoke) -> None:
    done = logged_in("train", "-m", "model.json", *OPTIONS, "--timeout", "0.05")

    assert 5 == done.exit_code
    assert "Run run_1 is still reserved" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "sigma=1"), "did you mean 'noise_multiplier'?"),
        (("--set", "local_epochs"), "has no '='"),
        (("--set", "local_epochs=two"), "is 'two', not an integer"),
        (("--params", "model.txt"), "is not JSON"),
        (("--params", "list.json"), "is no JSON object"),
        (("--train-data", "digit/images"), "did you mean 'digits'?"),
        (("--model", "model.txt"), "is not JSON"),
        (("--model", "list.json"), "is list, not a Keras model"),
    ],
)
def test_wrong_input_ends_with_2_and_says_what_to_do(
    logged_in: Invoke, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "model.txt").write_text("{")
    (tmp_path / "list.json").write_text("[1]")

    done = logged_in("train", "--model", "model.json", *OPTIONS, *arguments)

    assert 2 == done.exit_code, done.output
    assert message in done.stderr


def test_runs_are_listed_shown_watched_cancelled_and_fetched(
    logged_in: Invoke, node: Any, decided: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    node.add_run("run_1", decided({"rounds": 4}))
    node.add_run("run_2", decided({"rounds": 4}), "published")

    assert "run_2" in logged_in("runs", "list").stdout
    assert "Decision: approved" in logged_in("runs", "show", "run_1").stdout
    assert 5 == logged_in("runs", "result", "run_1").exit_code
    assert 5 == logged_in("runs", "watch", "run_1", "--timeout", "0.05").exit_code
    assert "published" == json.loads(logged_in("runs", "watch", "run_2", "--json").stdout)["state"]
    assert 0 == logged_in("runs", "result", "run_2", "--output", "w.safetensors").exit_code
    assert node.weights == (tmp_path / "w.safetensors").read_bytes()
    assert "cancelled" in logged_in("runs", "cancel", "run_1").stdout
    assert 1 == logged_in("runs", "watch", "run_1").exit_code


def test_help_explains_every_command(invoke: Invoke) -> None:
    commands = ("login", "logout", "whoami", "datasets", "preview", "train", "runs", "budget", "ledger")
    assert all(command in invoke("--help").stdout for command in commands)
    for command in commands:
        assert 0 == invoke(command, "--help").exit_code
    assert "0.1.0" == invoke("--version").stdout.strip()
