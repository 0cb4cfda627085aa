"""Runs over several datasets, over real TFF: of the same people, and of two populations that share nobody."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import pysytff as sy
from examples.digits.data import ASSETS
from examples.digits.seed import OWNER, PASSWORD
from pysytff.errors import InvalidRequestError, RequestRefusedError
from tests.e2e.conftest import WitnessedNode
from tests.e2e.nodes import DemoNode, Json
from tests.integration.processes.nodes import pysytff_server

EPSILON = 4.0


def small_model() -> Any:
    return tf.keras.Sequential([tf.keras.layers.Flatten(input_shape=(8, 8, 1)), tf.keras.layers.Dense(10, "softmax")])


@dataclass(frozen=True)
class Clinic:
    """An owner's two populations: ``mornings`` and ``evenings`` are the same people's, ``elsewhere`` is others'."""

    node: DemoNode
    domain: sy.Domain
    populations: dict[str, str]

    def params(self, *datasets: str, **changes: Any) -> Json:
        named = {one.name: one for one in self.domain.datasets}

        def ids(column: str) -> list[str]:
            return [named[name][column].id_at_location.to_string() for name in datasets]

        asked = {"rounds": 3, "clients_per_round": 10, "noise_multiplier": 2.0, "purpose": "research"}
        return asked | {"train_data_id": ids("images"), "label_data_id": ids("labels")} | changes

    def owner(self, *arguments: str) -> str:
        given = ("--email", OWNER, "--url", self.node.url)
        done = pysytff_server(self.node.folder, *arguments, *given, PYSYTFF_PASSWORD=PASSWORD)
        return f"{done.returncode}: {done.stdout}{done.stderr}"

    def spent(self, population: str) -> float:
        items = self.node.auditor.read("/v1/ledger/budget", population_id=self.populations[population])["items"]
        return float(items[0]["spent_epsilon"])

    def trained(self, **params: Any) -> sy.Run:
        run = self.domain.submit(small_model, params)
        assert "published" == run.watch(timeout=300).info.state
        return run

    def refused(self, **params: Any) -> RequestRefusedError:
        with pytest.raises(RequestRefusedError) as caught:
            self.domain.submit(small_model, params | {"on_exceed": "refuse"})
        return caught.value


@pytest.fixture(scope="module")
def clinic(witnessed: WitnessedNode, tmp_path_factory: pytest.TempPathFactory) -> Clinic:
    node, folder = witnessed.node, tmp_path_factory.mktemp("clinic")
    clinic = Clinic(node, node.domain(), {})
    for name, size in (("north", 60), ("south", 50)):
        options = ("--size", str(size), "--epsilon", str(EPSILON), "--delta", "1e-5")
        said = clinic.owner("dataset", "open-population", name, *options)
        assert said.startswith("0: "), said
        clinic.populations[name] = said.split()[-1]
    assets = folder / "assets.json"
    assets.write_text(json.dumps(ASSETS))
    north, south = range(60), range(1000, 1050)
    for name, who, population in (
        ("mornings", north, "north"),
        ("evenings", north[20:], "north"),
        ("elsewhere", south, "south"),
    ):
        given = ("--unit-column", "who", "--assets", str(assets), "--policy", "digits", "--max-examples-per-unit", "2")
        file = written(folder / f"{name}.npz", who)
        said = clinic.owner("dataset", "add", name, "--file", str(file), "--population", population, *given)
        assert said.startswith("0: "), said
    return clinic


def written(file: Path, who: Sequence[int]) -> Path:
    chance, people = np.random.default_rng(0), np.repeat(who, 2)
    images = chance.random((len(people), 8, 8, 1), dtype=np.float32)
    np.savez(file, who=people, images=images, labels=chance.integers(0, 10, len(people)))
    return file


def test_two_datasets_of_the_same_people_are_one_event_of_their_population(clinic: Clinic) -> None:
    before = len(clinic.node.entries())
    run = clinic.trained(**clinic.params("mornings", "evenings"))
    decision, *others = clinic.node.entries(run_id=run.id)

    assert ["granted", "debit", "publication"] == [entry["kind"] for entry in others]
    assert before + 4 == len(clinic.node.entries())
    assert clinic.populations["north"] == decision["body"]["subjects"]["population_id"]
    assert 1 == len(decision["body"]["facts"]["joined"])
    event = decision["body"]["facts"]["charge"]["event"]
    assert (10 / 60, 2.0, 3) == (event["sampling_probability"], event["noise_multiplier"], event["rounds"])
    statement = run.result().privacy
    assert (clinic.populations["north"], event) == (statement["population"], statement["mechanism"]["event"])
    assert 0.0 < clinic.spent("north") <= EPSILON
    assert 0.0 == clinic.spent("south")


def test_two_populations_are_used_together_only_once_they_are_checked_to_share_nobody(clinic: Clinic) -> None:
    before = clinic.node.entries()
    with pytest.raises(InvalidRequestError, match=r"not checked to be disjoint .*: pysytff-server population disjoint"):
        clinic.domain.submit(small_model, clinic.params("mornings", "elsewhere"))
    assert before == clinic.node.entries()
    assert "0: north and south share nobody; declared\n" == clinic.owner("population", "disjoint", "north", "south")
    spent = clinic.spent("north")
    run = clinic.trained(**clinic.params("mornings", "elsewhere"))

    kinds = [
        (entry["kind"], entry["body"]["subjects"]["population_id"]) for entry in clinic.node.entries(run_id=run.id)
    ]
    steps, both = ("decision", "granted", "debit", "publication"), sorted(clinic.populations.values())
    assert [(kind, population) for kind in steps for population in both] == kinds
    assert spent < clinic.spent("north")
    assert 0.0 < clinic.spent("south")
    stated = run.result().privacy["populations"]
    guarantee = {"epsilon": EPSILON, "delta": 1e-5}
    assert [(population, guarantee) for population in both] == [
        (one["id"], {name: one["guarantee"][name] for name in guarantee}) for one in stated
    ]
    assert run.statement.confirmed


def test_a_refusal_names_the_quota_or_the_window_that_was_hit(clinic: Clinic) -> None:
    researcher = clinic.node.sam.read("/v1/auth/me")["id"]
    hungry = {"rounds": 100, "clients_per_round": 30}
    quota = clinic.owner("population", "quota", "north", "--epsilon", "3", "--researcher", researcher)
    by_quota = clinic.refused(**clinic.params("mornings", **hungry))
    window = ("--epsilon", "3", "--initial", "0.5", "--step", "0.5", "--every-days", "30")
    opened = clinic.owner("population", "quota", "south", *window)
    by_window = clinic.refused(**clinic.params("elsewhere", **hungry))
    by_both = clinic.refused(**clinic.params("mornings", "elsewhere"))

    assert f"0: researcher {researcher}: at most ε = 3\n" == quota
    assert f"0: population {clinic.populations['south']}: at most ε = 3\n" == opened
    assert "the researcher's quota (ε = 3)" in str(by_quota)
    assert "the population's window (ε = 0.5 unlocked of 3; more on 20" in str(by_window)
    assert "the population's window (ε = 0.5 unlocked of 3; more on 20" in str(by_both)
