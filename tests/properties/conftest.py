"""Real databases and a real policy engine for the properties that need them; the integration tests' own fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.conftest import postgres_server, postgres_template, served_policies, sqlite_template
from tests.integration.opa_fixtures import ServedPolicies
from tests.properties.ledger_site import PostgresCopies, SqliteCopies

__all__ = ["postgres_server", "postgres_template", "served_policies", "sqlite_template"]


@pytest.fixture(scope="session")
def sqlite_copies(
    sqlite_template: Path, served_policies: ServedPolicies, tmp_path_factory: pytest.TempPathFactory
) -> SqliteCopies:
    return SqliteCopies(sqlite_template, tmp_path_factory.mktemp("copies"), served_policies)


@pytest.fixture(scope="session")
def postgres_copies(postgres_server: str, postgres_template: str, served_policies: ServedPolicies) -> PostgresCopies:
    return PostgresCopies(postgres_server, postgres_template, served_policies)
