"""Who is calling: passwords, invitations, sessions, runner credentials.

Invariants
- Every failed login gives the same answer after the same work: an unknown account is checked against a dummy hash.
- A refresh token works once. Its second use, by whomever, ends the whole session: either the thief or the owner held
  a copy, and nobody can tell which (RFC 9700 section 4.14.2).
- An access token counts only while its session lives and its principal is enabled, both read on each request, so
  disabling somebody, logging out and a detected reuse take effect at once.
- A runner credential authenticates a runner and nobody else; people have no way to become one.
- Guessing is counted in the database before a password is looked at; ``throttle.py`` says how it is slowed so that
  nobody can lock out another.
- At most ``_HASHERS`` passwords are hashed at a time, so a flood of logins cannot take the process's memory.

This module does not: know HTTP, or grant rights (``api/auth.py`` holds the table of roles).
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from governance import throttle
from governance.errors import AuthenticationError, ConflictError, InvalidRequestError, NotFoundError
from governance.ledger import identity_store as store
from governance.ledger.database import Connection, Database
from governance.login_guess import Guess
from governance.model import Principal, Role, new_id, utc_now
from governance.tokens import (
    INVITATION_PREFIX,
    REFRESH_PREFIX,
    RUNNER_PREFIX,
    AccessClaims,
    SigningKey,
    new_secret,
    secret_hash,
)

SHORTEST_PASSWORD = 12
LONGEST_PASSWORD = 1024  # bytes that somebody else makes us hash
_HASHERS = 2
_WRONG = "e-mail address or password is wrong, or the account is not active"


class Principals(Protocol):
    """What identity needs of ``governance.registry``."""

    def create_principal(self, role: Role, email: str | None, display_name: str) -> Principal: ...


@dataclass(frozen=True, slots=True)
class Lifetimes:
    access: timedelta = timedelta(minutes=15)
    refresh: timedelta = timedelta(days=7)  # idle: each refresh starts it again
    session: timedelta = timedelta(days=30)  # absolute
    invitation: timedelta = timedelta(days=7)
    device: timedelta = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Session:
    """What a login or a refresh hands out. ``device_proof`` only after a login."""

    principal: Principal
    access_token: str
    expires_in: int  # seconds
    refresh_token: str
    device_proof: str | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """``session_id`` is None for a runner; ``expires_at`` is when the credential ends, if it does."""

    principal: Principal
    session_id: str | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Invitation:
    principal: Principal
    token: str  # shown once
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class RunnerCredential:
    id: str
    principal: Principal
    secret: str  # shown once


@dataclass(frozen=True, slots=True)
class Person:
    principal: Principal
    status: str  # "active" | "invited" | "disabled"
    created_at: datetime


def password_hasher() -> PasswordHasher:
    """argon2id at OWASP's first choice: 46 MiB, one pass, one lane. Older hashes are redone at login."""
    return PasswordHasher(time_cost=1, memory_cost=46 * 1024, parallelism=1)


def normal_email(email: str) -> str:
    return email.strip().lower()


class Identity:
    """Accounts and sessions over one database. Thread-safe. Raises only errors of ``governance.errors``."""

    def __init__(
        self,
        database: Database,
        principals: Principals,
        key: SigningKey,
        *,
        clock: Callable[[], datetime] = utc_now,
        hasher: PasswordHasher | None = None,
        lifetimes: Lifetimes | None = None,
    ) -> None:
        self._database = database
        self._principals = principals
        self._key = key
        self._clock = clock
        self._hasher = hasher or password_hasher()
        self._hashing = threading.BoundedSemaphore(_HASHERS)
        self._dummy_hash = self._hash(secrets.token_urlsafe(16))
        self.lifetimes = lifetimes or Lifetimes()

    # --- sessions ---

    def login(self, email: str, password: str, *, address: str, device_proof: str | None = None) -> Session:
        """Raises ``AuthenticationError`` for whatever is wrong, ``ThrottledError`` where it came too early."""
        email = normal_email(email)
        guess = Guess(self._database, self._key, email, address, device_proof, self._clock())
        guess.count()  # (1) count before looking, in a transaction of its own
        with self._database.read() as connection:
            account = store.account_by_email(connection, email)
        known = account is not None and not account.disabled and account.password_hash is not None
        stored = account.password_hash if known and account is not None else None
        right = self._verify(stored or self._dummy_hash, password)  # (2) the same work, known or not
        if not right or account is None or stored is None:
            raise AuthenticationError(_WRONG)
        rehashed = self._hash(password) if self._hasher.check_needs_rehash(stored) else None
        now = self._clock()
        with self._database.write() as connection:
            current = store.account_by_id(connection, account.principal.id)
            if current is not None and current.password_hash == stored and not current.disabled:
                guess.take_back(connection, now)  # (3) it was no failure, and this door is trusted now
                if rehashed is not None:
                    store.set_password(connection, account.principal.id, rehashed, now)
                return self._open_session(connection, account.principal, now, guess.device_id or new_id("dev"))
        raise AuthenticationError(_WRONG)

    def refresh(self, refresh_token: str) -> Session:
        """Rotates. Raises ``AuthenticationError``; a token's second use has then ended its session."""
        now, digest = self._clock(), secret_hash(refresh_token)
        with self._database.write() as connection:
            row = store.refresh_token(connection, digest, now)
            if row is not None and not store.take_refresh_token(connection, digest, now):
                store.revoke_family(connection, row.family_id, "reuse", now)  # must commit: so no raise in here
            elif row is not None and row.live:
                principal = store.session_principal(connection, row.family_id, row.principal_id, now)
                if principal is not None:
                    return self._extend_session(connection, principal, row.family_id, row.family_expires_at, now)
        raise AuthenticationError("the refresh token is not valid any more; log in again")

    def logout(self, caller: Caller) -> None:
        if caller.session_id is None:
            return
        with self._database.write() as connection:
            store.revoke_family(connection, caller.session_id, "logout", self._clock())

    def authenticate(self, credential: str) -> Caller:
        """The caller behind an access token or a runner credential. Raises ``AuthenticationError``."""
        if credential.startswith(RUNNER_PREFIX):
            with self._database.read() as connection:
                runner = store.runner_by_secret(connection, secret_hash(credential))
            if runner is None:
                raise AuthenticationError("the runner credential is not valid, or was revoked")
            return Caller(runner.principal)
        now = self._clock()
        claims = self._key.read_access(credential, now)
        with self._database.read() as connection:
            principal = store.session_principal(connection, claims.session_id, claims.principal_id, now)
        if principal is None:
            raise AuthenticationError("the session has ended; log in again")
        return Caller(principal, claims.session_id, claims.expires_at)

    def recheck(self, caller: Caller) -> None:
        """For long streams: raises ``AuthenticationError`` once the caller's session or credential has ended."""
        now = self._clock()
        if caller.session_id is None or caller.expires_at is None or caller.expires_at <= now:
            raise AuthenticationError("the access token has expired; refresh it and resume")
        with self._database.read() as connection:
            if store.session_principal(connection, caller.session_id, caller.principal.id, now) is None:
                raise AuthenticationError("the session has ended; log in again")

    def device(self, device_proof: str | None) -> str | None:
        """The id of the device that logged in before, or None. Cheap: no database, no password."""
        proof = self._key.read_device(device_proof, self._clock())
        return None if proof is None else proof[1]

    # --- people ---

    def invite(self, role: Role, email: str, display_name: str) -> Invitation:
        """Makes a principal and a one-time invitation. Who has not accepted yet gets a new one, and the old one ends.

        Raises ``ConflictError`` where the e-mail address is an active account, a disabled one, or has another role.
        """
        if role is Role.RUNNER:
            raise InvalidRequestError("a runner is not invited: make a runner credential")
        email = normal_email(email)
        with self._database.read() as connection:
            account = store.account_by_email(connection, email)
        if account is not None and (account.disabled or account.password_hash or account.principal.role is not role):
            raise ConflictError("this e-mail address has an account already")
        principal = account.principal if account else self._principals.create_principal(role, email, display_name)
        now, token = self._clock(), new_secret(INVITATION_PREFIX)
        expires_at = now + self.lifetimes.invitation
        with self._database.write() as connection:
            store.end_invitations(connection, principal.id, now)
            store.add_invitation(connection, secret_hash(token), principal.id, now, expires_at)
        return Invitation(principal, token, expires_at)

    def accept(self, invitation_token: str, password: str) -> None:
        """Raises ``InvalidRequestError`` for an unfit password, ``AuthenticationError`` for an unfit invitation."""
        check_password(password)
        now, hashed = self._clock(), self._hash(password)
        with self._database.write() as connection:
            principal_id = store.take_invitation(connection, secret_hash(invitation_token), now)
            if principal_id is not None:
                store.set_password(connection, principal_id, hashed, now)
                return
        raise AuthenticationError("the invitation is unknown, used, replaced or expired; ask for a new one")

    def set_password(self, principal_id: str, password: str) -> None:
        """For set-up on the host itself: no check of the password's quality. Ends every session of the principal."""
        now, hashed = self._clock(), self._hash(password)
        with self._database.write() as connection:
            if store.account_by_id(connection, principal_id) is None:
                raise NotFoundError("no such user")
            store.set_password(connection, principal_id, hashed, now)
            store.end_invitations(connection, principal_id, now)
            store.revoke_families_of(connection, principal_id, "password", now)

    def create_admin(self, email: str, display_name: str) -> tuple[Principal, str]:
        """The first admin and their password, which is shown once. Raises ``ConflictError`` where there is an admin."""
        with self._database.write() as connection:
            if store.lock_active_admins(connection):
                raise ConflictError("this node has an admin already; an admin invites others with POST /v1/users")
        password = secrets.token_urlsafe(18)
        principal = self._principals.create_principal(Role.ADMIN, normal_email(email), display_name)
        self.set_password(principal.id, password)
        return principal, password

    def people(self) -> list[Person]:
        with self._database.read() as connection:
            rows = store.people(connection)
        return [Person(row.principal, _status(row), row.created_at) for row in rows]

    def disable(self, principal_id: str) -> None:
        """Ends everything that the principal holds, in one transaction. Raises ``NotFoundError``, ``ConflictError``."""
        now = self._clock()
        with self._database.write() as connection:
            admins = store.lock_active_admins(connection)
            account = store.account_by_id(connection, principal_id)
            if account is None or account.principal.role is Role.RUNNER:
                raise NotFoundError("no such user")
            if admins == [principal_id]:
                raise ConflictError("this is the last admin: nobody could invite another; invite one first")
            store.disable(connection, principal_id)
            store.revoke_families_of(connection, principal_id, "disabled", now)
            store.end_invitations(connection, principal_id, now)

    # --- runners ---

    def create_runner_credential(self, name: str) -> RunnerCredential:
        """A new runner and its credential. Replace one by making another, then revoking the first."""
        principal = self._principals.create_principal(Role.RUNNER, None, name)
        credential_id, secret = new_id("rcr"), new_secret(RUNNER_PREFIX)
        with self._database.write() as connection:
            store.add_runner_credential(
                connection, credential_id, principal.id, name, secret_hash(secret), self._clock()
            )
        return RunnerCredential(credential_id, principal, secret)

    def revoke_runner_credential(self, credential_id: str) -> None:
        """Effective at once. Raises ``NotFoundError``; revoking twice is no error."""
        with self._database.write() as connection:
            if not store.revoke_runner_credential(connection, credential_id, self._clock()):
                raise NotFoundError("no such runner credential")

    def prune(self) -> None:
        """Drops rows that can no longer change an answer. Called now and then by the service."""
        now = self._clock()
        with self._database.write() as connection:
            store.prune_counters(connection, now - 2 * throttle.DOOR_MEMORY, now - throttle.TRUST)

    # --- helpers ---

    def _open_session(self, connection: Connection, principal: Principal, now: datetime, device_id: str) -> Session:
        store.prune_sessions(connection, principal.id, now)
        family_id, ends = new_id("ses"), now + self.lifetimes.session
        store.add_family(connection, family_id, principal.id, now, ends)
        session = self._extend_session(connection, principal, family_id, ends, now)
        proof = self._key.sign_device(principal.id, device_id, now, now + self.lifetimes.device)
        return Session(session.principal, session.access_token, session.expires_in, session.refresh_token, proof)

    def _extend_session(
        self, connection: Connection, principal: Principal, family_id: str, ends: datetime, now: datetime
    ) -> Session:
        refresh_token = new_secret(REFRESH_PREFIX)
        store.add_refresh_token(
            connection, secret_hash(refresh_token), family_id, now, min(now + self.lifetimes.refresh, ends)
        )
        expires_at = min(now + self.lifetimes.access, ends)
        access = self._key.sign_access(AccessClaims(principal.id, family_id, expires_at), now)
        return Session(principal, access, int((expires_at - now).total_seconds()), refresh_token)

    def _hash(self, password: str) -> str:
        with self._hashing:
            return self._hasher.hash(_bytes(password))

    def _verify(self, stored: str, password: str) -> bool:
        if len(_bytes(password)) > LONGEST_PASSWORD:
            return False
        try:
            with self._hashing:
                return self._hasher.verify(stored, _bytes(password))
        except (VerificationError, InvalidHashError):
            return False


def check_password(password: str) -> None:
    """Length and little else, as NIST SP 800-63B asks. Raises ``InvalidRequestError``."""
    size = len(_bytes(password))
    if len(password) < SHORTEST_PASSWORD or size > LONGEST_PASSWORD or len(set(password)) < 5:
        message = f"a password has {SHORTEST_PASSWORD} characters or more, at least five of them different"
        hint = "four random words, or what a password manager makes"
        raise InvalidRequestError("the password is not fit", [{"path": "password", "message": message, "hint": hint}])


def _status(row: store.AccountRow) -> str:
    if row.disabled:
        return "disabled"
    return "invited" if row.password_hash is None else "active"


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")
