"""Random secrets, the signing key, and the tokens signed with it.

Invariants
- A secret that we hand out has 256 random bits; what is stored is its SHA-256, and it is looked up by that.
- An access token is a JWT under HS256 and no other algorithm, with issuer, audience, subject, session and expiry all
  required. It names no role: rights are read from the database on every request.
- The key file is made once, atomically, for its owner alone; one that others may read is refused.

This module does not: know principals, or decide whether a session still lives (``identity.py``).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt

from governance.errors import AuthenticationError, StorageError

ISSUER = "pysytff"
AUDIENCE = "pysytff-api"
DEVICE_AUDIENCE = "pysytff-device"
RUNNER_PREFIX = "pysr_"
INVITATION_PREFIX = "pysi_"
REFRESH_PREFIX = "pysf_"
KEY_BYTES = 32
_ALGORITHM = "HS256"
_LONGEST_TOKEN = 2048


def new_secret(prefix: str) -> str:
    """The prefix lets secret scanners and people see what leaked."""
    return prefix + secrets.token_urlsafe(32)


def secret_hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class AccessClaims:
    principal_id: str
    session_id: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, repr=False)
class SigningKey:
    """Signs and checks tokens, and keys the hashes that must not be guessable. Shared by all API processes."""

    key: bytes

    @staticmethod
    def load_or_create(path: Path) -> SigningKey:
        """Reads ``path``, or makes it (0600) where it is missing. Raises ``StorageError`` for an unfit file."""
        try:
            if not path.exists():
                _create(path)
            if path.stat().st_mode & 0o027:
                raise StorageError(f"{path} may be read by others: chmod 600 it, and replace it if others had access")
            key = path.read_bytes()
        except OSError as error:
            raise StorageError(f"the token signing key {path} can be neither read nor made") from error
        if len(key) < KEY_BYTES:
            raise StorageError(f"{path} holds less than {KEY_BYTES} bytes: remove it, and a new one is made")
        return SigningKey(key)

    def sign_access(self, claims: AccessClaims, now: datetime) -> str:
        return self._sign(AUDIENCE, {"sub": claims.principal_id, "sid": claims.session_id}, now, claims.expires_at)

    def read_access(self, token: str, now: datetime) -> AccessClaims:
        """Raises ``AuthenticationError`` for anything but an unexpired access token of ours."""
        claims = self._read(AUDIENCE, token, now, required=("sub", "sid"))
        return AccessClaims(claims["sub"], claims["sid"], datetime.fromtimestamp(claims["exp"], UTC))

    def sign_device(self, principal_id: str, device_id: str, now: datetime, expires_at: datetime) -> str:
        """Proof that a device logged in as this principal before. It is worth nothing but its own throttle counter."""
        return self._sign(DEVICE_AUDIENCE, {"sub": principal_id, "dev": device_id}, now, expires_at)

    def read_device(self, proof: str | None, now: datetime) -> tuple[str, str] | None:
        """(principal id, device id), or None for whatever is not a valid proof."""
        if proof is None:
            return None
        try:
            claims = self._read(DEVICE_AUDIENCE, proof, now, required=("sub", "dev"))
        except AuthenticationError:
            return None
        return claims["sub"], claims["dev"]

    def keyed_hash(self, *parts: str) -> bytes:
        message = b"\x00".join(part.encode("utf-8", "surrogatepass") for part in parts)
        return hmac.digest(self.key, b"pysytff/keyed-hash\x00" + message, "sha256")

    def _sign(self, audience: str, claims: Mapping[str, str], now: datetime, expires_at: datetime) -> str:
        document = dict(claims) | {"iss": ISSUER, "aud": audience, "iat": _seconds(now), "exp": _seconds(expires_at)}
        return jwt.encode(document, self.key, algorithm=_ALGORITHM)

    def _read(self, audience: str, token: str, now: datetime, *, required: tuple[str, ...]) -> dict[str, Any]:
        if len(token) > _LONGEST_TOKEN:
            raise AuthenticationError("the token is not valid")
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self.key,
                algorithms=[_ALGORITHM],
                audience=audience,
                issuer=ISSUER,
                # Times are compared below, against the clock that was passed in.
                options={"require": ["iss", "aud", "iat", "exp", *required], "verify_exp": False, "verify_iat": False},
            )
        except (jwt.PyJWTError, ValueError, UnicodeError) as error:
            raise AuthenticationError("the token is not valid") from error
        if not all(isinstance(claims[name], str) for name in required) or not isinstance(claims["exp"], int):
            raise AuthenticationError("the token is not valid")
        if claims["exp"] <= _seconds(now):
            raise AuthenticationError("the token has expired; refresh it or log in again")
        return claims


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _create(path: Path) -> None:
    """Written whole beside its place, then linked: of two processes that race, the loser finds the winner's key."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.unlink(temporary)
