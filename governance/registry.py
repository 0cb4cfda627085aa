"""Who and what there is: principals, projects, populations, datasets, quotas, and the policies in force.

Invariants
- A population's size, budget and relation are declared once and never change (privacy rule 1); registering data again
  never mints budget. Every change that matters to the claim is a ledger entry in the same transaction.
- Everything about a dataset is declared by its owner; nothing here looks at the data (privacy rule 7).
- What a principal may not see is ``NotFoundError``, exactly as if it did not exist.

This module does not: check passwords or tokens (``identity.py``), decide about requests (``admission.py``).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from accountant.errors import AccountantError
from accountant.filter import Budget
from accountant.relations import ADD_OR_REMOVE_ONE
from accountant.weights import PlannedUse
from governance import budget_state
from governance.errors import ConflictError, ConstraintError, ForbiddenError, InvalidRequestError, NotFoundError
from governance.ledger import budgets, catalogue, entries, policies, quotas
from governance.ledger.database import Connection, Database
from governance.ledger.entries import Log
from governance.model import (
    Asset,
    Dataset,
    Population,
    Principal,
    Project,
    Quota,
    Role,
    Schedule,
    new_id,
    utc_now,
)
from governance.policy.bundles import ActivePolicies, revision_name
from governance.resources import MAX_UNIT_BYTES, unit_bytes
from governance.visibility import populations_seen

_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_ASSET_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_POLICY_ID = re.compile(r"[a-z][a-z0-9_]{0,39}")
_HANDLE = re.compile(r"ver_[0-9a-f]{24}")
DTYPES = ("float32", "float64", "int32", "int64", "uint8")
SMALLEST_POPULATION, LARGEST_POPULATION = 2, 10**10
LONGEST_PERIOD_DAYS = 3660
FIRST_YEAR, LAST_YEAR = 2000, 2999  # of schedules: far from where dates end


class Registry:
    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    # --- principals and projects -----------------------------------------------------------------------------------

    def create_principal(self, role: Role, email: str | None, display_name: str = "") -> Principal:
        """A researcher gets a personal project. Raises ``ConflictError`` if the e-mail is taken."""
        now = self._clock()
        principal = Principal(new_id("usr"), role, email.strip().lower() if email else None, display_name)
        try:
            with self._database.write() as connection:
                catalogue.insert_principal(connection, principal, now)
                if role is Role.RESEARCHER:
                    personal = Project(new_id("prj"), "personal", principal.id, now, (principal.id,))
                    catalogue.insert_project(connection, personal, personal_of=principal.id)
        except ConstraintError as error:
            raise ConflictError("there is an account with this e-mail address already") from error
        return principal

    def principal_by_email(self, email: str) -> Principal | None:
        with self._database.read() as connection:
            found = catalogue.select_principals(connection, email=email.strip().lower())
        return found[0] if found else None

    def principal_by_id(self, principal_id: str) -> Principal | None:
        """None for unknown and for disabled principals."""
        with self._database.read() as connection:
            found = catalogue.select_principals(connection, principal_id=principal_id, disabled=False)
        return found[0] if found else None

    def create_project(self, principal: Principal, name: str) -> Project:
        _require(principal, Role.RESEARCHER, Role.OWNER, Role.ADMIN)
        _checked_name(name)
        members = (principal.id,) if principal.role is Role.RESEARCHER else ()
        project = Project(new_id("prj"), name, principal.id, self._clock(), members)
        with self._database.write() as connection:
            catalogue.insert_project(connection, project)
        return project

    def projects(self, principal: Principal) -> list[Project]:
        with self._database.read() as connection:
            if principal.role in (Role.ADMIN, Role.AUDITOR):
                return catalogue.select_projects(connection)
            found = catalogue.select_projects(connection, member=principal.id)
            created = [p for p in catalogue.select_projects(connection) if p.created_by == principal.id]
        return found + [project for project in created if project.id not in {p.id for p in found}]

    def project(self, principal: Principal, project_id: str) -> Project:
        for project in self.projects(principal):
            if project.id == project_id:
                return project
        raise NotFoundError(f"there is no project {project_id!r} that you can see")

    def add_member(self, principal: Principal, project_id: str, member_id: str) -> Project:
        """Only the project's creator or an admin adds members; a member must be a researcher."""
        project = self.project(principal, project_id)
        if principal.role is not Role.ADMIN and project.created_by != principal.id:
            raise ForbiddenError("only the project's creator or an administrator adds members")
        member = self.principal_by_id(member_id)
        if member is None or member.role is not Role.RESEARCHER:
            raise NotFoundError(f"there is no researcher {member_id!r}")
        if member_id in project.member_ids:
            return project
        try:
            with self._database.write() as connection:
                catalogue.insert_member(connection, project_id, member_id)
        except ConstraintError:
            return self.project(principal, project_id)  # another call added the same member first
        return replace(project, member_ids=(*project.member_ids, member_id))

    # --- populations and quotas --------------------------------------------------------------------------------------

    def open_population(
        self,
        owner: Principal,
        name: str,
        declared_size: int,
        epsilon: float,
        delta: float,
        *,
        relation: str = ADD_OR_REMOVE_ONE,
        planned_use: PlannedUse | None = None,
    ) -> Population:
        """Opens a population and its budget, for life. ``planned_use``: the rounds that its owner expects; the budget's
        weights are chosen for them. Raises ``InvalidRequestError`` or ``ConflictError``.
        """
        _require(owner, Role.OWNER)
        _checked_name(name)
        if not SMALLEST_POPULATION <= declared_size <= LARGEST_POPULATION:
            raise _invalid(
                "declared_size", "is out of range", f"between {SMALLEST_POPULATION} and {LARGEST_POPULATION}"
            )
        try:
            budget = Budget.open(epsilon, delta, relation=relation, planned_use=planned_use)
        except AccountantError as error:
            raise InvalidRequestError(f"the budget cannot be opened: {error}") from error
        now = self._clock()
        population = Population(new_id("pop"), name, owner.id, declared_size, budget, now)
        facts = {"declared_size": declared_size, "budget": budget.to_document(), "owner": owner.id}
        if planned_use is not None:
            facts["planned_use"] = dataclasses.asdict(planned_use)
        try:
            with self._database.write() as connection:
                catalogue.insert_population(connection, population)
                budgets.open_balance(connection, population.id, ("population", population.id), len(budget.orders))
                entries.append(connection, "population_opened", now, facts, population_id=population.id)
        except ConstraintError as error:
            raise ConflictError(f"there is a population named {name!r} already") from error
        return population

    def populations(self, principal: Principal) -> list[Population]:
        owner = principal.id if principal.role is Role.OWNER else None
        with self._database.read() as connection:
            return catalogue.select_populations(connection, owner_id=owner)

    def population(self, principal: Principal, population_id: str) -> Population:
        for population in self.populations(principal):
            if population.id == population_id:
                return population
        raise NotFoundError(f"there is no population {population_id!r} that you can see")

    def set_quota(
        self,
        owner: Principal,
        population_id: str,
        scope: str,
        scope_id: str,
        epsilon: float,
        schedule: Schedule | None = None,
    ) -> Quota:
        """Caps one project's or one researcher's share of a population, or, as a window, what everybody together has
        of it (scope ``population``). With a schedule it is unlocked gradually. What was spent before counts.
        """
        _require(owner, Role.OWNER)
        population = self.population(owner, population_id)
        if scope not in ("population", "project", "researcher"):
            raise _invalid("scope", "is not a scope of quotas", "population, project or researcher")
        if scope == "population" and scope_id != population_id:
            raise _invalid("scope_id", "is not the population itself", "a window is set on the population's own id")
        if not (math.isfinite(epsilon) and 0 < epsilon <= population.epsilon):
            raise _invalid("epsilon", "must be above 0 and at most the population's", f"≤ {population.epsilon}")
        _check_schedule(schedule, epsilon)
        quota = Quota(population_id, scope, scope_id, float(epsilon), schedule)
        now = self._clock()
        with self._database.write() as connection:
            if not _known(connection, scope, scope_id):
                raise NotFoundError(f"there is no {scope} {scope_id!r}")
            budgets.lock_balances(connection, population_id)
            try:
                for least in (quota.epsilon, *(() if schedule is None else (schedule.initial_epsilon,))):
                    budget_state.quota_budget(population.budget, least)
            except AccountantError as error:
                raise InvalidRequestError(f"the quota could never admit anything: {error}") from error
            quotas.store(connection, quota, now)
            facts = {"scope": scope, "scope_id": scope_id, "epsilon": quota.epsilon, "by": owner.id}
            if schedule is not None:
                facts["schedule"] = schedule.facts()
            entries.append(connection, "quota_set", now, facts, population_id=population_id)
        return quota

    def declare_disjoint(
        self, principal: Principal, one_id: str, other_id: str, versions: Mapping[str, int]
    ) -> tuple[str, str]:
        """Records that nobody is in both populations, as found by comparing ``versions`` (dataset id -> version).

        They must be the current versions of every dataset of both. Raises ``ConflictError`` where they are not.
        """
        _require(principal, Role.OWNER, Role.ADMIN)
        for population_id in (one_id, other_id):
            self.population(principal, population_id)
        if one_id == other_id:
            raise _invalid("population", "is the same twice", "name two populations")
        pair = (min(one_id, other_id), max(one_id, other_id))
        now = self._clock()
        with self._database.write() as connection, entries.locked(connection) as log:
            current = {found.id: found.version for found in catalogue.select_datasets(connection, population_ids=pair)}
            if current != dict(versions):
                raise ConflictError("data was registered while the populations were compared; compare them again")
            facts = {"populations": list(pair), "versions": current, "by": principal.id}
            entry = log.append("populations_disjoint", now, facts, population_id=pair[0])
            quotas.store_disjoint(connection, pair, current, entry.index)
        return pair

    def quotas(self, principal: Principal, population_id: str) -> list[Quota]:
        """Researchers see those that bind themselves."""
        self.population(principal, population_id)
        with self._database.read() as connection:
            found = quotas.read(connection, population_id)
            if principal.role is not Role.RESEARCHER:
                return found
            mine = {project.id for project in catalogue.select_projects(connection, member=principal.id)}
        return [quota for quota in found if quota.scope_id in mine | {principal.id, population_id}]

    # --- datasets --------------------------------------------------------------------------------------------------

    def register_dataset(
        self,
        owner: Principal,
        *,
        population_id: str,
        name: str,
        description: str,
        policy_id: str,
        assets: Sequence[Asset],
        version_handle: str,
        holdout_handle: str | None,
        max_examples_per_unit: int,
    ) -> Dataset:
        """``assets`` come with any id; each gets a fresh random one.

        Raises ``InvalidRequestError``, ``ConflictError``.
        """
        _require(owner, Role.OWNER)
        population = self.population(owner, population_id)
        _checked_name(name)
        _check_assets(assets)
        _check_handle("version_handle", version_handle)
        if holdout_handle is not None:
            _check_handle("holdout_handle", holdout_handle)
        if not 1 <= max_examples_per_unit <= 10**6:
            raise _invalid("max_examples_per_unit", "is out of range", "between 1 and 1000000")
        if unit_bytes(assets, max_examples_per_unit) > MAX_UNIT_BYTES:
            raise _invalid("max_examples_per_unit", "lets one person have over 1 GiB of examples", "lower it")
        if not _POLICY_ID.fullmatch(policy_id):
            raise _invalid("policy", "is not a policy's id", "lower-case letters, digits and underscores")
        active = self.active_policies()
        if active is None or f"owner:{policy_id}" not in active.digests:
            raise _invalid("policy", f"there is no active policy {policy_id!r}", "activate it first")
        now = self._clock()
        dataset = Dataset(
            id=new_id("dat"),
            population_id=population.id,
            name=name,
            description=description,
            policy_id=policy_id,
            version=1,
            version_handle=version_handle,
            holdout_handle=holdout_handle,
            max_examples_per_unit=max_examples_per_unit,
            assets=tuple(replace(asset, id=new_id("ast")) for asset in assets),
            created_at=now,
        )
        try:
            # Registrations wait for one another at the log's head.
            with self._database.write() as connection, entries.locked(connection) as log:
                _check_roles(connection, version_handle, holdout_handle)
                catalogue.insert_dataset(connection, dataset)
                self._append_dataset(log, dataset, owner, now)
        except ConstraintError as error:
            raise ConflictError("a dataset of this name, or this version handle, is registered already") from error
        return dataset

    def add_version(
        self, owner: Principal, dataset_id: str, version_handle: str, holdout_handle: str | None = None
    ) -> Dataset:
        """New data of the same people. The population, and so the budget, stays. Raises ``ConflictError``."""
        _require(owner, Role.OWNER)
        current = self.dataset(owner, dataset_id)
        _check_handle("version_handle", version_handle)
        if holdout_handle is not None:
            _check_handle("holdout_handle", holdout_handle)
        now = self._clock()
        newer = replace(
            current, version=current.version + 1, version_handle=version_handle, holdout_handle=holdout_handle
        )
        try:
            with self._database.write() as connection, entries.locked(connection) as log:
                _check_roles(connection, version_handle, holdout_handle)
                catalogue.insert_version(connection, dataset_id, newer.version, version_handle, holdout_handle, now)
                self._append_dataset(log, newer, owner, now)
        except ConstraintError as error:
            raise ConflictError("this version handle is registered already, or another version came first") from error
        return newer

    def _append_dataset(self, log: Log, dataset: Dataset, owner: Principal, now: datetime) -> None:
        facts = {
            "version": dataset.version,
            "version_handle": dataset.version_handle,
            "has_public_holdout": dataset.holdout_handle is not None,
            "max_examples_per_unit": dataset.max_examples_per_unit,
            "policy": dataset.policy_id,
            "by": owner.id,
        }
        log.append("dataset_registered", now, facts, population_id=dataset.population_id, dataset_id=dataset.id)

    def datasets(self, principal: Principal) -> list[Dataset]:
        with self._database.read() as connection:
            seen = populations_seen(connection, principal, catalogue_only=True)
            return catalogue.select_datasets(connection, population_ids=seen)

    def dataset(self, principal: Principal, dataset_id: str) -> Dataset:
        with self._database.read() as connection:
            seen = populations_seen(connection, principal, catalogue_only=True)
            found = catalogue.select_datasets(connection, dataset_id=dataset_id, population_ids=seen)
        if not found:
            raise NotFoundError(f"there is no dataset {dataset_id!r} that you can see")
        return found[0]

    # --- policies ----------------------------------------------------------------------------------------------------

    def active_policies(self) -> ActivePolicies | None:
        with self._database.read() as connection:
            return policies.active(connection)

    def owner_policies(self) -> dict[str, str]:
        """Rego source of every owner policy in force, by policy id."""
        with self._database.read() as connection:
            active = policies.active(connection)
            if active is None:
                return {}
            found = {}
            for name, digest in active.digests.items():
                if name.startswith("owner:"):
                    policy_id = name.removeprefix("owner:")
                    source = policies.source(connection, policy_id, digest)
                    if source is None:
                        raise ConflictError(f"the source of policy {policy_id!r} at {digest} is not stored")
                    found[policy_id] = source
        return found

    def activate_policies(
        self, principal_id: str | None, digests: Mapping[str, str], sources: Mapping[str, str]
    ) -> ActivePolicies:
        """Puts exactly this set in force: one transaction, one ledger entry. ``sources``: owner policies by id."""
        now = self._clock()
        with self._database.write() as connection:
            log = entries.Log(connection)  # admission compares revisions under this lock
            last = policies.active(connection)
            sequence = 1 if last is None else last.sequence + 1
            active = ActivePolicies(revision_name(sequence, digests), sequence, dict(digests))
            for policy_id, source in sources.items():
                policies.insert_source(connection, policy_id, digests[f"owner:{policy_id}"], source, now)
            policies.insert_activation(connection, active, principal_id, now)
            facts = {
                "revision": active.revision,
                "sequence": sequence,
                "digests": dict(digests),
                "by": principal_id or "operator",
            }
            log.append("policy_activated", now, facts)
            log.store()
        return active


def _known(connection: Connection, scope: str, scope_id: str) -> bool:
    if scope == "project":
        return bool(catalogue.select_projects(connection, project_id=scope_id))
    if scope == "researcher":
        found = catalogue.select_principals(connection, principal_id=scope_id)
        return any(principal.role is Role.RESEARCHER for principal in found)
    return True  # the population itself, which was found before


def _check_schedule(schedule: Schedule | None, epsilon: float) -> None:
    if schedule is None:
        return
    for name in ("initial_epsilon", "step_epsilon"):
        value = getattr(schedule, name)
        if not (math.isfinite(value) and 0 < value <= epsilon):
            raise _invalid(f"schedule.{name}", "must be above 0 and at most the quota's epsilon", f"≤ {epsilon}")
    if not FIRST_YEAR <= schedule.starts_at.year <= LAST_YEAR:
        raise _invalid("schedule.starts_at", "is out of range", f"a moment from {FIRST_YEAR} to {LAST_YEAR}")
    if not 1 <= schedule.period_days <= LONGEST_PERIOD_DAYS:
        raise _invalid("schedule.period_days", "is out of range", f"1 to {LONGEST_PERIOD_DAYS} days")


def _require(principal: Principal, *roles: Role) -> None:
    if principal.role not in roles:
        allowed = " or ".join(role.value for role in roles)
        raise ForbiddenError(f"this needs the role {allowed}; yours is {principal.role.value}")


def _invalid(path: str, message: str, hint: str) -> InvalidRequestError:
    return InvalidRequestError(f"{path} {message}: {hint}", [{"path": path, "message": message, "hint": hint}])


def _checked_name(name: str) -> None:
    if not _NAME.fullmatch(name) or not name.strip():
        raise _invalid("name", "is empty, too long or has control characters", "1 to 200 printable characters")


def _check_handle(path: str, handle: str) -> None:
    if not _HANDLE.fullmatch(handle):
        raise _invalid(path, "is not a data handle", "the ver_… that `pysytff-server dataset add` printed")


def _check_roles(connection: Connection, version_handle: str, holdout_handle: str | None) -> None:
    """What is computed on a hold-out is published without noise: data is private or public, never both."""
    if version_handle == holdout_handle or catalogue.holdout_is_private(connection, version_handle, holdout_handle):
        raise _invalid(
            "holdout_handle", "and version_handle name the same data", "a hold-out is public data of its own"
        )


def _check_assets(assets: Sequence[Asset]) -> None:
    if not 1 <= len(assets) <= 64:
        raise _invalid("assets", "are too few or too many", "1 to 64")
    if len({asset.name for asset in assets}) != len(assets):
        raise _invalid("assets", "share a name", "each asset needs a name of its own")
    for position, asset in enumerate(assets):
        path = f"assets[{position}]"
        if not _ASSET_NAME.fullmatch(asset.name):
            raise _invalid(f"{path}.name", "is not an asset name", "a–z, 0–9 and _, starting with a letter")
        if asset.dtype not in DTYPES:
            raise _invalid(f"{path}.dtype", f"{asset.dtype!r} is not supported", ", ".join(DTYPES))
        if len(asset.shape) > 4 or any(not 1 <= size <= 10**6 for size in asset.shape):
            raise _invalid(f"{path}.shape", "is not the shape of one example", "up to four sizes from 1 to 1000000")
        bounds = [bound for bound in (asset.minimum, asset.maximum) if bound is not None]
        if not all(math.isfinite(bound) for bound in bounds) or (len(bounds) == 2 and bounds[0] > bounds[1]):
            raise _invalid(f"{path}.minimum", "and maximum are not a range", "finite numbers, minimum ≤ maximum")
