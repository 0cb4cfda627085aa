from __future__ import annotations

from pathlib import Path

import pytest

from api import access
from api.app import build_services, options_of
from api.settings import Settings


def settings(folder: Path, **changes: object) -> Settings:
    return Settings(data_dir=folder, **changes)  # type: ignore[arg-type]  # pydantic checks each one


def test_on_loopback_only_loopbacks_names_are_answered(tmp_path: Path) -> None:
    assert {"127.0.0.1", "localhost", "[::1]"} == set(options_of(settings(tmp_path)).allowed_hosts)


@pytest.mark.parametrize("changes", [{"host": "0.0.0.0"}, {"trusted_proxies": "127.0.0.1"}])
def test_elsewhere_the_network_decides(tmp_path: Path, changes: dict[str, object]) -> None:
    assert ("*",) == options_of(settings(tmp_path, **changes)).allowed_hosts


def test_the_name_that_the_service_goes_by_is_answered(tmp_path: Path) -> None:
    options = options_of(settings(tmp_path, api_url="https://node.example.org"))
    assert "node.example.org" in options.allowed_hosts
    assert options.secure_cookies


def test_there_is_no_service_without_a_policy_engine(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="PYSYTFF_OPA_URL"):
        build_services(settings(tmp_path))


def test_a_route_without_access_keeps_the_application_from_starting() -> None:
    with pytest.raises(RuntimeError, match="/v1/new"):
        access.check([*access.ACCESS, ("GET", "/v1/new")])


def test_access_without_a_route_keeps_it_from_starting_too() -> None:
    with pytest.raises(RuntimeError, match="/v1/health"):
        access.check([route for route in access.ACCESS if route[1] != "/v1/health"])
