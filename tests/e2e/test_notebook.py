"""The announcement's notebook with one import changed, as the README prints it, against a whole node."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import pysytff as sy
from examples.digits import data
from pysytff.errors import ClampedWarning, UnsupportedModelError
from tests.e2e.nodes import DemoNode
from tests.integration.processes.nodes import CHECKOUT

ASKED = {"rounds": 10, "no_clients": 3, "noise_multiplier": 0.05, "clients_per_round": 2}


@dataclass(frozen=True)
class Notebook:
    """What is left after its last cell."""

    names: dict[str, Any]
    told: list[warnings.WarningMessage]
    run: Any  # pysytff.runs.Run

    @property
    def clamped(self) -> warnings.WarningMessage:
        (warning,) = [one for one in self.told if issubclass(one.category, ClampedWarning)]
        return warning


@pytest.fixture(scope="module")
def notebook(node: DemoNode) -> Notebook:
    code = readme_notebook().replace("port=8081", f"port={node.url.rpartition(':')[2]}")
    names: dict[str, Any] = {}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        exec(compile(code, "notebook", "exec"), names)  # our own README's code
    return Notebook(names, told, names["domain"].runs[0])


def readme_notebook() -> str:
    found = re.search(r"```python\n(import pysytff as sy\n.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_readme_prints_the_announcements_lines() -> None:
    announced = (
        "import pysytff as sy",
        'domain = sy.login(email="sam@stargate.net", password="changethis", port=8081)',
        "model_fn = lambda: tf.keras.models.Sequential([",
        "tf.keras.layers.Flatten(input_shape=(8, 8, 1)),",
        '"rounds": 10, "no_clients": 3, "noise_multiplier": 0.05, "clients_per_round": 2,',
        '"train_data_id": domain.datasets[0]["images"].id_at_location.to_string(),',
        '"label_data_id": domain.datasets[0]["labels"].id_at_location.to_string(),',
        "model, metrics = sy.tff.train_model(model_fn, params, domain, timeout=5000)",
    )
    assert [] == [line for line in announced if line not in readme_notebook()]


def test_the_notebook_gives_a_keras_model_with_the_weights_that_were_published(notebook: Notebook) -> None:
    model = notebook.names["model"]
    published = notebook.run.result().weights

    assert isinstance(model, tf.keras.Sequential)
    kernel, bias = model.get_weights()
    assert {"kernel", "bias"} == {name.rpartition("/")[2] for name in published}
    for name, weight in published.items():
        np.testing.assert_array_equal(weight, kernel if name.endswith("/kernel") else bias)


def test_the_model_predicts_and_reaches_the_accuracy_that_its_metrics_say(notebook: Notebook, tmp_path: Path) -> None:
    _, holdout_file, _ = data.write(tmp_path)
    holdout = np.load(holdout_file)
    predicted = notebook.names["model"].predict(holdout["images"], verbose=0)
    reached = float(np.mean(np.argmax(predicted, axis=1) == holdout["labels"]))

    assert (len(holdout["labels"]), 10) == predicted.shape
    np.testing.assert_allclose(predicted.sum(axis=1), 1.0, rtol=1e-4)
    assert pytest.approx(reached, abs=1.5 / len(holdout["labels"])) == notebook.names["metrics"]["holdout_accuracy"]


def test_the_metrics_are_those_of_the_public_hold_out_and_carry_the_privacy_statement(
    node: DemoNode, notebook: Notebook
) -> None:
    metrics = notebook.names["metrics"]
    statement = metrics["privacy"]
    reading = node.budget()

    assert {"holdout_loss", "holdout_accuracy", "holdout_examples", "privacy"} == set(metrics)
    assert ("pysytff.privacy-statement/2", notebook.run.id, node.population_id, "ADD_OR_REMOVE_ONE") == (
        statement["schema"],
        statement["run"],
        statement["population"],
        statement["neighbouring_relation"],
    )
    assert (8.0, 1e-5) == (statement["population_guarantee"]["epsilon"], statement["population_guarantee"]["delta"])
    assert 0.0 < statement["this_run"]["epsilon"] <= reading["spent_epsilon"] <= 8.0


def test_the_warning_says_what_was_asked_what_is_allowed_and_why(notebook: Notebook) -> None:
    warning = notebook.clamped
    assert isinstance(warning.message, ClampedWarning)
    clamps = warning.message.decision.clamps
    effective = notebook.run.info.effective["noise_multiplier"]
    text = str(warning.message)

    assert {"noise_multiplier"} == {clamp.parameter for clamp in clamps}
    assert (0.05, effective) == (clamps[0].requested, clamps[-1].effective)
    assert effective >= 5.0  # the owner's floor where most of the pool takes part in every round
    assert all(f"asked {clamp.requested:g}, allowed {clamp.effective:.6g}" in text for clamp in clamps)
    assert all(clamp.why in text and f"(by {clamp.by})" in text for clamp in clamps)
    assert "notebook" == warning.filename


def test_each_of_the_six_parameters_is_honoured_in_the_run_and_in_the_ledger(
    node: DemoNode, notebook: Notebook
) -> None:
    info = notebook.run.info
    noise = info.effective["noise_multiplier"]
    (entry,) = node.entries(run_id=info.id, kind="decision")
    facts = entry["body"]["facts"]
    columns = {"train_data_id": node.assets["images"], "label_data_id": node.assets["labels"]}

    assert ASKED | columns == {name: info.requested[name] for name in ASKED | columns}
    assert ASKED | columns | {"noise_multiplier": noise} == {name: info.effective[name] for name in ASKED | columns}
    assert (10, 10, 10) == (info.rounds, info.rounds_debited, info.rounds_done)
    # Drawing the pool earns no credit: a round is charged as sampled from three people, not from three hundred.
    event = {"sampling_probability": 2 / 3, "noise_multiplier": noise, "rounds": 10}
    assert event == {name: facts["charge"]["event"][name] for name in event}
    mechanism = notebook.names["metrics"]["privacy"]["mechanism"]
    assert event == {name: mechanism["event"][name] for name in event}
    assert 3 / 300 == mechanism["pool_probability"]


def test_the_announcements_other_spelling_names_the_same_dataset(notebook: Notebook) -> None:
    domain = notebook.names["domain"]
    assert domain.datasets[0] == domain.dataset[0]
    assert (
        domain.datasets[0]["images"].id_at_location.to_string()
        == domain.dataset[0]["images"].id_at_location.to_string()
    )


def test_refused_rather_than_clamped_says_the_same(node: DemoNode, notebook: Notebook) -> None:
    before = node.budget()
    with pytest.raises(sy.errors.RequestRefusedError, match=r"noise_multiplier: asked 0\.05, allowed") as caught:
        notebook.names["domain"].submit(notebook.names["model_fn"], notebook.names["params"] | {"on_exceed": "refuse"})

    decision = caught.value.decision
    assert decision is not None
    assert ["exceeds_policy"] == [reason.code for reason in decision.reasons][:1]
    assert before["committed_epsilon"] == node.budget()["committed_epsilon"]


def test_a_model_with_code_in_it_is_not_even_sent(node: DemoNode, notebook: Notebook) -> None:
    before = node.entries()

    def smuggler() -> Any:
        layers = [tf.keras.layers.Flatten(input_shape=(8, 8, 1)), tf.keras.layers.Lambda(lambda x: x)]
        return tf.keras.models.Sequential([*layers, tf.keras.layers.Dense(10)])

    with pytest.raises(UnsupportedModelError, match="code does not travel"):
        sy.tff.train_model(smuggler, notebook.names["params"], notebook.names["domain"])
    assert before == node.entries()
