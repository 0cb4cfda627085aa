from __future__ import annotations

import pytest

from api import access


def test_a_route_without_access_keeps_the_application_from_starting() -> None:
    with pytest.raises(RuntimeError, match="/v1/new"):
        access.check([*access.ACCESS, ("GET", "/v1/new")])


def test_access_without_a_route_keeps_it_from_starting_too() -> None:
    with pytest.raises(RuntimeError, match="/v1/health"):
        access.check([route for route in access.ACCESS if route[1] != "/v1/health"])
