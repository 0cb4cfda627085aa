"""What the command line does to declare two populations disjoint: compares who is in them, then has it written down.

Invariants
- Every version that was ever registered is compared: a unit belongs to one population for life (privacy rule 1). What
  the owner leaves out all the same is named.
- The data is read by a process of its own (``python -m runner.unit_keys``), and nothing comes back but yes or no.
- Only a yes is written down. A no, a doubt and an error are errors, and nothing is written.
- The entry is made in the owner's name, after the owner logged in; that somebody compared is this host's word.

This module does not: know a unit.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from api import node
from api.errors import OwnerError
from api.owner import CHECKOUT, Session
from api.settings import Settings
from governance.ledger.database import Database
from governance.registry import Registry


@dataclass(frozen=True, slots=True)
class Registered:
    """The versions of a population's datasets: all handles, and the number of each dataset's newest."""

    handles: tuple[str, ...]
    newest_handles: tuple[str, ...]
    newest: Mapping[str, int]

    @property
    def replaced(self) -> tuple[str, ...]:
        return tuple(handle for handle in self.handles if handle not in self.newest_handles)


def declare_disjoint(
    settings: Settings, session: Session, one: str, other: str, *, newest_only: bool = False
) -> tuple[str, ...]:
    """Names or ids of two populations; the handles of the versions that were not compared.

    Raises ``OwnerError`` or a domain error.
    """
    node.require(settings)
    ids = session.population_id(one), session.population_id(other)
    if ids[0] == ids[1]:
        raise OwnerError("name two populations: one is never disjoint from itself")
    sides = [_registered(session, population_id) for population_id in ids]
    for name, side in zip((one, other), sides, strict=True):
        if not side.newest:
            raise OwnerError(f"population {name!r} has no datasets yet, so there is nothing to compare")
    left, right = (side.newest_handles if newest_only else side.handles for side in sides)
    if not compare(settings.data_root, left, right):
        raise OwnerError("somebody is in both populations: they are not disjoint, and nothing was declared")
    database = Database.open(settings.database_url)
    try:
        registry = Registry(database)
        owner = registry.principal_by_id(session.principal_id())
        if owner is None:
            raise OwnerError("the node that you logged in to is not the one in this folder")
        registry.declare_disjoint(owner, ids[0], ids[1], {**sides[0].newest, **sides[1].newest})
    finally:
        database.dispose()
    return sides[0].replaced + sides[1].replaced if newest_only else ()


def compare(data_root: Path, left: Sequence[str], right: Sequence[str]) -> bool:
    """Whether these versions share nobody. Raises ``OwnerError`` where that cannot be told."""
    command = [sys.executable, "-m", "runner.unit_keys", "overlap", "--data-root", str(data_root)]
    ran = subprocess.run(
        [*command, "--left", *left, "--right", *right], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    try:
        answer = json.loads(ran.stdout) if ran.returncode in (0, 1) else None
    except ValueError:
        answer = None
    if answer not in ({"disjoint": True}, {"disjoint": False}) or answer["disjoint"] is not (ran.returncode == 0):
        said = ran.stderr.strip().removeprefix("error: ") or f"the comparison ended with status {ran.returncode}"
        raise OwnerError(f"{said}\n(nothing was declared)")
    return ran.returncode == 0


def _registered(session: Session, population_id: str) -> Registered:
    """From the ledger, which forgets no version."""
    newest: dict[str, tuple[int, str]] = {}
    handles: list[str] = []
    for body in session.entries(population_id, "dataset_registered"):
        try:
            dataset_id, facts = body["subjects"]["dataset_id"], body["facts"]
            version, handle = int(facts["version"]), str(facts["version_handle"])
        except (KeyError, TypeError, ValueError) as error:
            raise OwnerError("the node's ledger names a version in a way that this release does not know") from error
        handles.append(handle)
        newest[dataset_id] = max(newest.get(dataset_id, (0, "")), (version, handle))
    return Registered(
        tuple(handles),
        tuple(handle for _, handle in newest.values()),
        {dataset_id: version for dataset_id, (version, _) in newest.items()},
    )
