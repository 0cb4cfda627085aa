"""The demo's people, population and dataset, put into a node that is not running yet.

Invariants
- The passwords are known to everybody, so ``pysytff-server`` keeps a demo node on loopback.
- Seeding twice changes nothing: the population, and with it the budget, is opened once.

This module does not: start anything.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from api import node, owner
from api.settings import Settings
from examples.digits import data
from governance.identity import Identity
from governance.ledger.database import Database
from governance.model import Asset, Principal, Role
from governance.registry import Registry
from governance.tokens import SigningKey

PASSWORD = "changethis"  # the announcement's
RESEARCHER, OWNER, AUDITOR = "sam@stargate.net", "owner@stargate.net", "auditor@stargate.net"
PEOPLE = {RESEARCHER: Role.RESEARCHER, OWNER: Role.OWNER, AUDITOR: Role.AUDITOR}
POPULATION, DATASET, POLICY = "digit writers", "digits", "digits"
EPSILON, DELTA = 8.0, 1e-5
_POLICY_FILE = Path("policies") / "demo" / f"{POLICY}.rego"


def seed(settings: Settings) -> None:
    """Raises ``NodeError`` and domain errors; what was there already stays."""
    node.activate_policies(settings, {POLICY: (node.CHECKOUT / _POLICY_FILE).read_text(encoding="utf-8")})
    database = Database.open(settings.database_url)
    try:
        registry = Registry(database)
        identity = Identity(database, registry, SigningKey.load_or_create(settings.token_key_file))
        people = {email: _person(registry, identity, email, role) for email, role in PEOPLE.items()}
        if not registry.datasets(people[OWNER]):
            _dataset(registry, people[OWNER], settings)
    finally:
        database.dispose()


def _person(registry: Registry, identity: Identity, email: str, role: Role) -> Principal:
    person = registry.principal_by_email(email)
    if person is None:
        person = registry.create_principal(role, email, email.partition("@")[0].title())
        identity.set_password(person.id, PASSWORD)
    return person


def _dataset(registry: Registry, person: Principal, settings: Settings) -> None:
    with tempfile.TemporaryDirectory() as folder:
        training, holdout, assets = data.write(Path(folder))
        files = owner.DatasetFiles(training, "writer", assets, data.IMAGES_EACH, holdout)
        handle, holdout_handle = owner.lay_out(files, settings.data_root)
        declared = [
            Asset(id="", **(asset | {"shape": tuple(asset["shape"])})) for asset in owner.declared_assets(assets)
        ]
    opened = registry.populations(person)
    population = opened[0] if opened else registry.open_population(person, POPULATION, data.PEOPLE, EPSILON, DELTA)
    registry.register_dataset(
        person,
        population_id=population.id,
        name=DATASET,
        description="Handwritten digits of 300 people, five images each (UCI; people assigned at random)",
        policy_id=POLICY,
        assets=declared,
        version_handle=handle,
        holdout_handle=holdout_handle,
        max_examples_per_unit=data.IMAGES_EACH,
    )
