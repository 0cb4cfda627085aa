"""Published values, and values of other libraries' tests, that an accountant must reproduce (reference_values.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dp_accounting.rdp import rdp_privacy_accountant

from accountant.events import PoissonGaussian
from accountant.odometer import run_statement
from accountant.orders import DEFAULT_ORDERS

VALUES: dict[str, dict[str, Any]] = {
    value["id"]: value for value in json.loads(Path(__file__).with_name("reference_values.json").read_text())["values"]
}
LIBRARY_ORDERS = tuple(float(order) for order in rdp_privacy_accountant.DEFAULT_RDP_ORDERS)


def statement(value: dict[str, Any], orders: tuple[float, ...]) -> float:
    event = PoissonGaussian(value.get("sampling_probability", 1.0), value["noise_multiplier"], value["steps"])
    return run_statement(event, value["delta"], orders)


@pytest.mark.parametrize("name", ["tfp-1", "tfp-2", "tfp-4", "tfp-6", "opacus-16"])
def test_a_published_value_is_reproduced(name: str) -> None:
    value = VALUES[name]

    assert value["epsilon"] == pytest.approx(statement(value, LIBRARY_ORDERS), rel=value["rtol"])


@pytest.mark.parametrize("name", ["tfp-1", "tfp-2", "tfp-4", "tfp-6", "opacus-16"])
def test_more_orders_never_state_more(name: str) -> None:
    value = VALUES[name]

    assert statement(value, DEFAULT_ORDERS) <= statement(value, LIBRARY_ORDERS)


def test_a_run_that_the_library_calls_free_is_charged_at_least_its_lower_bound() -> None:
    value = VALUES["roundoff-5"]

    assert value["lower_bound"] <= statement(value, DEFAULT_ORDERS) < 0.02
