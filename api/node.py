"""A node on disk: its folders, its secrets, its first admin, and the policies in force.

Invariants
- A node is made once. ``node.json`` is written last, so a node that has it is whole; one that exists is never
  overwritten.
- The data folder and the secrets are for their owner alone (0700, 0600). The admin's password is returned once and
  stored only as a hash.
- The bundle that the policy engine serves is built from what the database says is in force, at every start, and policy
  files other than the activated ones are refused: editing a file puts nothing in force.

This module does not: start processes (``up.py``), or know HTTP.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from api.errors import NodeError
from api.settings import Settings
from governance import log_keeper, log_keys
from governance.errors import ConflictError, InvalidRequestError
from governance.identity import Identity
from governance.ledger.database import Database
from governance.log_keys import Enrolled, KeyFile
from governance.model import Role, timestamp, utc_now
from governance.policy import activation, bundles, gate
from governance.policy.activation import ActivationStore
from governance.policy.bundles import ActivePolicies
from governance.registry import Registry
from governance.tokens import SigningKey
from migrations import run as migrations

CHECKOUT = Path(__file__).resolve().parent.parent
ORGANISATION_POLICIES = CHECKOUT / "policies"
INVITED = tuple(role.value for role in Role if role is not Role.RUNNER)
# What an interrupted init may have left behind.
_OWN_NAMES = {"secrets", "results", "bundle", "logs", "data", "scratch", "ledger"} | {
    f"node.{end}" for end in ("lock", "sqlite3", "sqlite3-wal", "sqlite3-shm")
}


@dataclass(frozen=True, slots=True)
class FirstAdmin:
    email: str
    password: str  # shown once, kept nowhere


@dataclass(frozen=True, slots=True)
class Bundle:
    path: Path
    active: ActivePolicies


def exists(settings: Settings) -> bool:
    return settings.node_file.exists()


def is_demo(settings: Settings) -> bool:
    return exists(settings) and bool(json.loads(settings.node_file.read_text()).get("demo"))


def require(settings: Settings) -> None:
    """Raises ``NodeError`` unless there is a whole node whose database is of this release."""
    if not exists(settings):
        raise NodeError(f"there is no node at {settings.data_dir}; make one with: pysytff-server init")
    with _database(settings) as database:
        if not migrations.is_current(database):
            raise NodeError("the database is of another release; back it up, then run: pysytff-server migrate")


def create(settings: Settings, email: str, *, demo: bool = False) -> FirstAdmin:
    """Makes the node. Raises ``NodeError`` where there is one, ``StorageError`` where it can't be written."""
    if exists(settings):
        raise NodeError(f"{settings.data_dir} holds a node already, and it stays as it is")
    if settings.data_dir.is_dir() and (foreign := sorted(set(os.listdir(settings.data_dir)) - _OWN_NAMES)):
        raise NodeError(
            f"{settings.data_dir} holds other things ({', '.join(foreign[:3])}); name an empty or new folder"
        )
    for folder in _folders(settings):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings.data_dir.chmod(0o700)
    if not settings.opa_token_file.exists():
        write_secret(settings.opa_token_file, secrets.token_urlsafe(32))
    migrations.upgrade(settings.database_url)
    with _database(settings) as database:
        registry = Registry(database)
        identity = Identity(database, registry, SigningKey.load_or_create(settings.token_key_file))
        try:
            principal, password = identity.create_admin(email, "Administrator")
        except ConflictError as error:
            raise NodeError(
                "the database has an admin already, but this folder is no finished node: another node uses it, "
                "or an earlier init was interrupted (then start again from an empty folder and database)"
            ) from error
        log_keeper.begin(
            database, settings.ledger_dir, KeyFile(settings.log_key_file), principal.id, settings.log_origin or None
        )
        _activate(settings, registry, {}, principal.id)
        write_secret(settings.runner_credential_file, identity.create_runner_credential("runner of this node").secret)
    settings.node_file.write_text(json.dumps({"made_at": timestamp(utc_now()), "demo": demo}) + "\n")
    return FirstAdmin(principal.email or email, password)


def bundle_in_force(settings: Settings) -> Bundle:
    """Builds the bundle of the policies that are in force. Raises ``NodeError`` where the files on disk are others."""
    with _database(settings) as database:
        registry = Registry(database)
        active, owners = registry.active_policies(), registry.owner_policies()
    if active is None:
        raise NodeError("no policies are in force; activate the organisation's: pysytff-server policy activate")
    if bundles.digest_sources(ORGANISATION_POLICIES, owners) != dict(active.digests):
        raise NodeError(
            f"the organisation's policies in {ORGANISATION_POLICIES} are not those in force ({active.revision}); "
            "activate them with: pysytff-server policy activate"
        )
    destination = settings.bundle_dir / bundles.BUNDLE_FILE
    return Bundle(bundles.build(ORGANISATION_POLICIES, owners, active.revision, destination), active)


def policies_in_force(settings: Settings) -> ActivePolicies | None:
    with _database(settings) as database:
        return Registry(database).active_policies()


def check_policy(policy_id: str, source: str) -> None:
    """Raises ``InvalidRequestError`` with line, column and a hint for each finding."""
    gate.check(policy_id, source, organisation_dir=ORGANISATION_POLICIES)


def activate_policies(settings: Settings, owner_policies: Mapping[str, str]) -> ActivePolicies:
    """Puts these owners' policies in force, with the organisation's as it lies on disk. Raises domain errors."""
    require(settings)
    with _database(settings) as database:
        return _activate(settings, Registry(database), owner_policies, None)


def _activate(
    settings: Settings, registry: Registry, owner_policies: Mapping[str, str], principal_id: str | None
) -> ActivePolicies:
    store = ActivationStore(registry.active_policies, registry.owner_policies, registry.activate_policies)
    return activation.activate(
        store, ORGANISATION_POLICIES, owner_policies, settings.bundle_dir, principal_id=principal_id
    )


def rotate_log_key(settings: Settings) -> Enrolled:
    """Enrols a new key of the log; the running node signs with it within about a second. Raises domain errors."""
    require(settings)
    with _database(settings) as database:
        return log_keys.rotate(database, KeyFile(settings.log_key_file), "operator")


def invite(settings: Settings, email: str, role: str, display_name: str) -> tuple[str, str]:
    """(invitation token, end of its life). For whoever may read the node's folder, as ``init`` is."""
    if role not in INVITED:
        raise NodeError(f"{role!r} is no role of a person; choose one of {', '.join(INVITED)}")
    with _identity(settings) as identity:
        invitation = identity.invite(Role(role), email, display_name)
    return invitation.token, timestamp(invitation.expires_at)


def reset_password(settings: Settings, email: str) -> str:
    """A new random password, shown once; the account's sessions end."""
    with _identity(settings) as identity:
        wanted = email.strip().lower()
        for person in identity.people():
            if person.principal.email == wanted and person.status != "disabled":
                password = secrets.token_urlsafe(18)
                identity.set_password(person.principal.id, password)
                return password
    raise InvalidRequestError(f"no active account has the e-mail address {email}")


def opa_token(settings: Settings) -> str:
    if settings.opa_token is not None:
        return settings.opa_token.get_secret_value()
    return read_secret(settings.opa_token_file)


def read_secret(path: Path) -> str:
    """Raises ``NodeError`` for a file that is missing, empty, or open to others."""
    try:
        if path.stat().st_mode & 0o027:
            raise NodeError(f"{path} may be read by others: chmod 600 it, and replace it if others had access")
        secret = path.read_text().strip()
    except OSError as error:
        raise NodeError(f"{path} cannot be read: {error.strerror}") from error
    if not secret:
        raise NodeError(f"{path} is empty")
    return secret


def write_secret(path: Path, secret: str) -> None:
    """Made for its owner alone from its first byte on; an older file gives way in one step."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextlib.contextmanager
def in_use(settings: Settings) -> Iterator[None]:
    """Holds the node for this process. Raises ``NodeError`` if another runs it. The kernel frees it at the end."""
    with (settings.data_dir / "node.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise NodeError(f"the node at {settings.data_dir} is running already, as process {holder}") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextlib.contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    database = Database.open(settings.database_url)
    try:
        yield database
    finally:
        database.dispose()


@contextlib.contextmanager
def _identity(settings: Settings) -> Iterator[Identity]:
    require(settings)
    with _database(settings) as database:
        yield Identity(database, Registry(database), SigningKey.load_or_create(settings.token_key_file))


def _folders(settings: Settings) -> tuple[Path, ...]:
    return (
        settings.data_dir,
        settings.secrets_dir,
        settings.results_dir,
        settings.bundle_dir,
        settings.logs_dir,
        settings.data_root,
        settings.scratch_dir,
        settings.ledger_dir,
    )
