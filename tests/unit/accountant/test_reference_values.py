"""Published values, and values of other libraries' tests, that an accountant must reproduce (reference_values.json).

Every entry is used: a kind of mechanism or accountant that is not known here fails.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dp_accounting.rdp import rdp_privacy_accountant

from accountant.charge import charge
from accountant.curve import UNITS_PER_NAT
from accountant.errors import NotComposableError
from accountant.events import Event, FixedSizeGaussian, PoissonGaussian, TreeGaussian
from accountant.odometer import run_statement
from accountant.orders import DEFAULT_ORDERS
from accountant.pld import pld_epsilon_here
from accountant.relations import ADD_OR_REMOVE_ONE, RELATIONS, REPLACE_ONE, REPLACE_SPECIAL
from accountant.tree import backward_squared_sensitivity, forward_squared_sensitivity

pytestmark = pytest.mark.filterwarnings("ignore:np.find_common_type:DeprecationWarning")  # SciPy's own

VALUES: dict[str, dict[str, Any]] = {
    value["id"]: value for value in json.loads(Path(__file__).with_name("reference_values.json").read_text())["values"]
}
LIBRARY_ORDERS = tuple(float(order) for order in rdp_privacy_accountant.DEFAULT_RDP_ORDERS)
STATED = [name for name, value in VALUES.items() if "epsilon" in value]
BY_RDP = [name for name in STATED if VALUES[name].get("accountant", "rdp") == "rdp"]
BY_PLD = [name for name in STATED if VALUES[name].get("accountant") == "pld"]


def event_of(value: dict[str, Any]) -> Event:
    noise = value["noise_multiplier"]
    match value["mechanism"]:
        case "poisson_gaussian":
            return PoissonGaussian(value["sampling_probability"], noise, value["steps"])
        case "gaussian":
            return PoissonGaussian(1.0, noise, value["steps"])
        case "single_epoch_tree":
            return TreeGaussian(noise, value["steps"], 1, 0)
        case "tree_restart_participation":
            return TreeGaussian(noise, value["rounds"], value["max_participation"], value["min_separation"])
        case "fixed_size_without_replacement_gaussian":
            return FixedSizeGaussian(value["population_size"], value["sample_size"], noise, value["steps"])
    raise AssertionError(f"unknown mechanism {value['mechanism']}")


def relation_of(value: dict[str, Any]) -> str:
    return str(value.get("relation", ADD_OR_REMOVE_ONE))


def statement(value: dict[str, Any], orders: tuple[float, ...]) -> float:
    return run_statement(event_of(value), value["delta"], orders, relation_of(value))


def test_every_entry_of_the_file_is_tested_here() -> None:
    assert set(VALUES) == {*BY_RDP, *BY_PLD, "roundoff-5", "tree-sens"}
    assert {"rdp", "pld", "any", None} == {value.get("accountant") for value in VALUES.values()}


@pytest.mark.parametrize("name", BY_RDP)
def test_a_published_value_is_reproduced(name: str) -> None:
    value = VALUES[name]

    assert value["epsilon"] == pytest.approx(statement(value, LIBRARY_ORDERS), rel=value["rtol"])


@pytest.mark.parametrize("name", BY_RDP)
def test_more_orders_never_state_more(name: str) -> None:
    value = VALUES[name]

    assert statement(value, DEFAULT_ORDERS) <= statement(value, LIBRARY_ORDERS)


@pytest.mark.parametrize("name", BY_PLD)
def test_a_published_value_is_reproduced_by_pld(name: str) -> None:
    value = VALUES[name]
    stated = pld_epsilon_here(event_of(value), value["delta"], relation_of(value)).epsilon

    assert value["epsilon"] == pytest.approx(stated, rel=value["rtol"])


@pytest.mark.parametrize("name", [name for name in BY_RDP if "upper_bound" in VALUES[name]])
def test_a_published_upper_bound_is_kept(name: str) -> None:
    value = VALUES[name]

    assert statement(value, DEFAULT_ORDERS) <= value["upper_bound"]


def test_a_run_that_the_library_calls_free_is_charged_at_least_its_lower_bound() -> None:
    value = VALUES["roundoff-5"]
    by_pld = pld_epsilon_here(event_of(value), value["delta"], relation_of(value)).epsilon

    assert value["lower_bound"] <= statement(value, DEFAULT_ORDERS) < 0.02
    assert by_pld is not None
    assert value["lower_bound"] <= by_pld < 0.02


def test_fixed_size_sampling_has_its_sensitivity_doubled() -> None:
    value = VALUES["wor-4"]

    assert REPLACE_ONE == value["relation"]
    assert statement(value, DEFAULT_ORDERS) > 5 * value["wrong_if"]


@pytest.mark.parametrize("case", VALUES["tree-sens"]["cases"])
def test_a_trees_squared_sensitivity_is_reproduced(case: list[int]) -> None:
    fields = dict(zip(VALUES["tree-sens"]["fields"], case, strict=True))
    job = (fields["steps"],), fields["max_participation"], fields["min_separation"]

    assert fields["squared_sensitivity"] == forward_squared_sensitivity(*job) == backward_squared_sensitivity(*job)


def test_the_es_es_job_has_its_squared_sensitivity_and_its_zcdp() -> None:
    value = VALUES["gboard-28"]
    event = event_of(value)
    assert isinstance(event, TreeGaussian)

    squared = forward_squared_sensitivity(event.trees, event.max_participation, event.min_separation)
    assert value["squared_sensitivity"] == squared == 79
    units = charge(event, DEFAULT_ORDERS, REPLACE_SPECIAL).total
    for order, amount in zip(DEFAULT_ORDERS, units, strict=True):
        assert value["zcdp_rho"] * order == pytest.approx(amount / UNITS_PER_NAT, rel=1e-6)


@pytest.mark.parametrize("name", STATED)
def test_no_value_holds_under_a_relation_that_is_not_its_own_without_a_reason(name: str) -> None:
    value = VALUES[name]
    if "relation" not in value:
        return  # the plain Gaussian mechanism composes under each
    own = statement(value, DEFAULT_ORDERS)
    for relation in set(RELATIONS) - {value["relation"]}:
        try:
            other = run_statement(event_of(value), value["delta"], DEFAULT_ORDERS, relation)
        except NotComposableError:
            continue
        assert other >= own
