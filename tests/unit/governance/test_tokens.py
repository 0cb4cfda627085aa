from __future__ import annotations

import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest

from governance.errors import AuthenticationError, StorageError
from governance.tokens import AUDIENCE, DEVICE_AUDIENCE, ISSUER, AccessClaims, SigningKey, new_secret

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEY = SigningKey(b"k" * 32)
CLAIMS = AccessClaims("usr_1", "ses_1", NOW + timedelta(minutes=15))


def made(key: bytes = KEY.key, algorithm: str = "HS256", **changes: Any) -> str:
    """A token as ours, with changed claims; None leaves one out."""
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "usr_1",
        "sid": "ses_1",
        "iat": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 900,
    } | changes
    document = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(document, key if algorithm != "none" else "", algorithm=algorithm)


def test_what_was_signed_is_read_again() -> None:
    assert CLAIMS == KEY.read_access(KEY.sign_access(CLAIMS, NOW), NOW)


@pytest.mark.parametrize(
    "token",
    [
        made(key=b"x" * 32),
        made(algorithm="HS512"),
        made(algorithm="none"),
        made(iss="other"),
        made(aud="other"),
        made(aud=DEVICE_AUDIENCE),
        made(aud=None),
        made(exp=None),
        made(iat=None),
        made(sub=None),
        made(sid=None),
        made(sid=7),
        made(exp="soon"),
        made(exp=int(NOW.timestamp())),
        made(nbf="x"),
        made() + "x",
        "a.b.c",
        "",
        "é.é.é",
        "a" * 5000,
    ],
)
def test_anything_else_is_refused(token: str) -> None:
    with pytest.raises(AuthenticationError):
        KEY.read_access(token, NOW)


def test_a_device_proof_is_no_access_token_and_the_other_way_round() -> None:
    proof = KEY.sign_device("usr_1", "dev_1", NOW, NOW + timedelta(days=1))
    assert ("usr_1", "dev_1") == KEY.read_device(proof, NOW)
    assert KEY.read_device(KEY.sign_access(CLAIMS, NOW), NOW) is None
    with pytest.raises(AuthenticationError):
        KEY.read_access(proof, NOW)


def test_the_key_file_is_made_for_its_owner_alone_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "secrets" / "key"
    first = SigningKey.load_or_create(file)
    assert (0o600, first.key, ["key"]) == (
        stat.S_IMODE(file.stat().st_mode),
        SigningKey.load_or_create(file).key,
        os.listdir(file.parent),
    )


def test_processes_that_start_together_share_one_key(tmp_path: Path) -> None:
    keys: list[bytes] = []
    barrier = threading.Barrier(8)

    def load() -> None:
        barrier.wait()
        keys.append(SigningKey.load_or_create(tmp_path / "key").key)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 == len(set(keys))


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604])
def test_a_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "key"
    SigningKey.load_or_create(file)
    file.chmod(mode)
    with pytest.raises(StorageError):
        SigningKey.load_or_create(file)


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.touch(mode=0o600)
    with pytest.raises(StorageError):
        SigningKey.load_or_create(file)


def test_the_key_is_not_shown() -> None:
    assert "kkkk" not in repr(KEY)


def test_secrets_differ_and_say_what_they_are() -> None:
    found = {new_secret("pysr_") for _ in range(100)}
    assert (100, {48}, True) == (len(found), {len(one) for one in found}, all(one.startswith("pysr_") for one in found))


def test_keyed_hashes_keep_parts_apart() -> None:
    assert KEY.keyed_hash("a", "bc") != KEY.keyed_hash("ab", "c")
