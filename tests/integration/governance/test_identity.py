"""Identity over real databases, with a clock that the test moves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher

from governance.errors import (
    AuthenticationError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    ThrottledError,
)
from governance.identity import Caller, Identity
from governance.ledger import identity_tables
from governance.ledger.database import Database
from governance.model import Role
from governance.registry import Registry
from governance.tokens import AccessClaims, SigningKey, secret_hash

Answer = TypeVar("Answer")
CHEAP = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
PASSWORD = "correct horse battery"
HOME, ELSEWHERE = "192.0.2.1", "198.51.100.7"


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **amount: float) -> None:
        self.now += timedelta(**amount)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def key() -> SigningKey:
    return SigningKey(b"k" * 32)


@pytest.fixture
def identity(database: Database, clock: Clock, key: SigningKey) -> Identity:
    return Identity(database, Registry(database, clock=clock), key, clock=clock, hasher=CHEAP)


def join(identity: Identity, email: str = "sam@stargate.net", role: Role = Role.RESEARCHER) -> str:
    invitation = identity.invite(role, email, "Sam")
    identity.accept(invitation.token, PASSWORD)
    return invitation.principal.id


def guess(identity: Identity, password: str, *, address: str = HOME, email: str = "sam@stargate.net") -> str:
    """What became of a login: right, wrong or early."""
    try:
        identity.login(email, password, address=address)
    except AuthenticationError:
        return "wrong"
    except ThrottledError:
        return "early"
    return "right"


# --- accounts and invitations ---


def test_an_accepted_invitation_lets_one_log_in(identity: Identity) -> None:
    principal_id = join(identity)
    session = identity.login(" Sam@Stargate.NET ", PASSWORD, address=HOME)
    assert (principal_id, Role.RESEARCHER, 900) == (session.principal.id, session.principal.role, session.expires_in)


def test_an_invitation_works_once(identity: Identity) -> None:
    invitation = identity.invite(Role.OWNER, "olga@example.org", "Olga")
    identity.accept(invitation.token, PASSWORD)
    with pytest.raises(AuthenticationError):
        identity.accept(invitation.token, "another long password")


def test_an_invitation_expires(identity: Identity, clock: Clock) -> None:
    invitation = identity.invite(Role.OWNER, "olga@example.org", "Olga")
    clock.forward(days=7, seconds=1)
    with pytest.raises(AuthenticationError):
        identity.accept(invitation.token, PASSWORD)


def test_inviting_again_replaces_the_invitation_and_keeps_the_principal(identity: Identity) -> None:
    first = identity.invite(Role.OWNER, "olga@example.org", "Olga")
    second = identity.invite(Role.OWNER, "OLGA@example.org", "Olga")
    assert first.principal.id == second.principal.id
    with pytest.raises(AuthenticationError):
        identity.accept(first.token, PASSWORD)
    identity.accept(second.token, PASSWORD)


def test_an_account_in_use_is_not_invited_again(identity: Identity) -> None:
    join(identity)
    with pytest.raises(ConflictError):
        identity.invite(Role.RESEARCHER, "sam@stargate.net", "Sam")


def test_nobody_is_invited_as_a_runner(identity: Identity) -> None:
    with pytest.raises(InvalidRequestError):
        identity.invite(Role.RUNNER, "runner@example.org", "R")


@pytest.mark.parametrize("password", ["short", "aaaaaaaaaaaaaaaaaaaa", "x" * 2000])
def test_an_unfit_password_leaves_the_invitation_open(identity: Identity, password: str) -> None:
    invitation = identity.invite(Role.OWNER, "olga@example.org", "Olga")
    with pytest.raises(InvalidRequestError):
        identity.accept(invitation.token, password)
    identity.accept(invitation.token, PASSWORD)


def test_the_first_admin_gets_a_password_that_works(identity: Identity) -> None:
    principal, password = identity.create_admin("root@example.org", "Root")
    assert principal.id == identity.login("root@example.org", password, address=HOME).principal.id


def test_there_is_only_one_first_admin(identity: Identity) -> None:
    identity.create_admin("root@example.org", "Root")
    with pytest.raises(ConflictError):
        identity.create_admin("other@example.org", "Other")


def test_no_secret_is_stored_in_the_clear(identity: Identity, database: Database) -> None:
    join(identity)
    session = identity.login("sam@stargate.net", PASSWORD, address=HOME)
    credential = identity.create_runner_credential("r1")
    secrets = [PASSWORD, session.access_token, session.refresh_token, session.device_proof or "", credential.secret]
    with database.read() as connection:
        stored = [
            str(value)
            for table in identity_tables.IDENTITY_TABLES
            for row in connection.execute(sa.select(table))
            for value in row
        ]
    assert [] == [secret for secret in [*secrets, HOME] if any(secret in value for value in stored)]


def test_a_password_is_rehashed_when_the_parameters_change(
    identity: Identity, database: Database, clock: Clock, key: SigningKey
) -> None:
    join(identity)
    stronger = PasswordHasher(time_cost=2, memory_cost=128, parallelism=1)
    changed = Identity(database, Registry(database), key, clock=clock, hasher=stronger)
    changed.login("sam@stargate.net", PASSWORD, address=HOME)
    with database.read() as connection:
        stored = connection.scalar(sa.select(identity_tables.accounts.c.password_hash))
    assert stored is not None
    assert not stronger.check_needs_rehash(stored)
    assert "right" == guess(changed, PASSWORD)


# --- sessions ---


def test_an_access_token_tells_who_calls(identity: Identity) -> None:
    principal_id = join(identity)
    session = identity.login("sam@stargate.net", PASSWORD, address=HOME)
    assert principal_id == identity.authenticate(session.access_token).principal.id


def test_an_access_token_expires(identity: Identity, clock: Clock) -> None:
    join(identity)
    session = identity.login("sam@stargate.net", PASSWORD, address=HOME)
    clock.forward(minutes=15)
    with pytest.raises(AuthenticationError):
        identity.authenticate(session.access_token)


def test_a_refresh_rotates_the_token_within_the_session(identity: Identity) -> None:
    join(identity)
    first = identity.login("sam@stargate.net", PASSWORD, address=HOME)
    second = identity.refresh(first.refresh_token)
    third = identity.refresh(second.refresh_token)
    sessions = {identity.authenticate(one.access_token).session_id for one in (first, second, third)}
    assert (3, 1) == (len({first.refresh_token, second.refresh_token, third.refresh_token}), len(sessions))


def test_reusing_a_refresh_token_ends_the_whole_session(identity: Identity) -> None:
    join(identity)
    first = identity.login("sam@stargate.net", PASSWORD, address=HOME)
    second = identity.refresh(first.refresh_token)
    for attempt in (
        lambda: identity.refresh(first.refresh_token),
        lambda: identity.refresh(second.refresh_token),
        lambda: identity.authenticate(second.access_token),
    ):
        with pytest.raises(AuthenticationError):
            attempt()


def test_reuse_ends_no_other_session_of_the_same_person(identity: Identity) -> None:
    join(identity)
    stolen = identity.login("sam@stargate.net", PASSWORD, address=HOME)
    other = identity.login("sam@stargate.net", PASSWORD, address=HOME)
    identity.refresh(stolen.refresh_token)
    with pytest.raises(AuthenticationError):
        identity.refresh(stolen.refresh_token)
    assert other.principal == identity.refresh(other.refresh_token).principal


def test_of_many_refreshes_at_once_one_wins_and_the_session_ends(identity: Identity) -> None:
    join(identity)
    session = identity.login("sam@stargate.net", PASSWORD, address=HOME)
    answers = at_once(6, lambda: identity.refresh(session.refresh_token).refresh_token)
    won = [answer for answer in answers if not isinstance(answer, Exception)]
    assert 1 == len(won)
    with pytest.raises(AuthenticationError):
        identity.refresh(won[0])


def test_an_idle_session_ends(identity: Identity, clock: Clock) -> None:
    join(identity)
    session = identity.login("sam@stargate.net", PASSWORD, address=HOME)
    clock.forward(days=7)
    with pytest.raises(AuthenticationError):
        identity.refresh(session.refresh_token)


def test_a_busy_session_ends_after_thirty_days(identity: Identity, clock: Clock) -> None:
    join(identity)
    session = identity.login("sam@stargate.net", PASSWORD, address=HOME)
    for _ in range(5):
        clock.forward(days=5)
        session = identity.refresh(session.refresh_token)
    clock.forward(days=5)
    with pytest.raises(AuthenticationError):
        identity.refresh(session.refresh_token)


def test_logging_out_ends_the_session_at_once(identity: Identity) -> None:
    join(identity)
    session = identity.login("sam@stargate.net", PASSWORD, address=HOME)
    caller = identity.authenticate(session.access_token)
    identity.logout(caller)
    for attempt in (
        lambda: identity.authenticate(session.access_token),
        lambda: identity.refresh(session.refresh_token),
        lambda: identity.recheck(caller),
    ):
        with pytest.raises(AuthenticationError):
            attempt()


def test_disabling_somebody_ends_everything_they_hold(identity: Identity) -> None:
    principal_id = join(identity)
    session = identity.login("sam@stargate.net", PASSWORD, address=HOME)
    identity.disable(principal_id)
    for attempt in (
        lambda: identity.authenticate(session.access_token),
        lambda: identity.refresh(session.refresh_token),
        lambda: identity.login("sam@stargate.net", PASSWORD, address=HOME),
    ):
        with pytest.raises(AuthenticationError):
            attempt()


def test_setting_a_password_ends_the_sessions(identity: Identity) -> None:
    principal_id = join(identity)
    session = identity.login("sam@stargate.net", PASSWORD, address=HOME)
    identity.set_password(principal_id, "changethis")
    with pytest.raises(AuthenticationError):
        identity.authenticate(session.access_token)
    assert "right" == guess(identity, "changethis")


def test_the_last_admin_stays(identity: Identity) -> None:
    principal, _ = identity.create_admin("root@example.org", "Root")
    with pytest.raises(ConflictError):
        identity.disable(principal.id)


def test_of_two_admins_who_disable_each_other_one_stays(identity: Identity) -> None:
    first, _ = identity.create_admin("root@example.org", "Root")
    second = join(identity, "second@example.org", Role.ADMIN)
    ids = iter([first.id, second])
    answers = at_once(2, lambda: identity.disable(next(ids)))
    assert 1 == sum(isinstance(answer, ConflictError) for answer in answers)


def test_a_token_of_another_key_is_refused(identity: Identity, clock: Clock) -> None:
    principal_id = join(identity)
    session = identity.authenticate(identity.login("sam@stargate.net", PASSWORD, address=HOME).access_token)
    forged = SigningKey(b"x" * 32).sign_access(
        AccessClaims(principal_id, session.session_id or "", clock.now + timedelta(minutes=5)), clock.now
    )
    with pytest.raises(AuthenticationError):
        identity.authenticate(forged)


def test_a_session_is_not_another_persons(identity: Identity, clock: Clock, key: SigningKey) -> None:
    join(identity)
    admin, _ = identity.create_admin("root@example.org", "Root")
    session = identity.authenticate(identity.login("sam@stargate.net", PASSWORD, address=HOME).access_token)
    mixed = key.sign_access(AccessClaims(admin.id, session.session_id or "", clock.now + timedelta(hours=1)), clock.now)
    with pytest.raises(AuthenticationError):
        identity.authenticate(mixed)


# --- runners ---


def test_a_runner_credential_tells_the_runner(identity: Identity) -> None:
    credential = identity.create_runner_credential("gpu-1")
    assert Caller(credential.principal) == identity.authenticate(credential.secret)


def test_a_revoked_runner_credential_is_worth_nothing(identity: Identity) -> None:
    credential = identity.create_runner_credential("gpu-1")
    identity.revoke_runner_credential(credential.id)
    identity.revoke_runner_credential(credential.id)
    with pytest.raises(AuthenticationError):
        identity.authenticate(credential.secret)


def test_an_unknown_credential_is_not_revoked(identity: Identity) -> None:
    with pytest.raises(NotFoundError):
        identity.revoke_runner_credential("rcr_nothing")


# --- guessing ---


def test_the_fifth_failure_makes_one_wait_and_waiting_is_not_counted(identity: Identity, clock: Clock) -> None:
    join(identity)
    assert ["wrong"] * 5 + ["early"] * 20 == [guess(identity, "nope") for _ in range(25)]
    clock.forward(seconds=1)
    assert "right" == guess(identity, PASSWORD)


def test_the_wait_doubles_up_to_a_quarter_of_an_hour(identity: Identity, clock: Clock) -> None:
    join(identity)
    waits = []
    for _ in range(18):
        assert "wrong" == guess(identity, "nope")
        try:
            identity.login("sam@stargate.net", "nope", address=HOME)
        except ThrottledError as error:
            waits.append(error.facts["retry_after_s"])
            clock.forward(seconds=float(str(waits[-1])))
        except AuthenticationError:
            continue
    assert [1, 2, 4, 8] == waits[:4]
    assert 900 == waits[-1]


def test_guesses_at_once_are_all_counted(identity: Identity) -> None:
    join(identity)
    answers = at_once(12, lambda: guess(identity, "nope"))
    assert (5, 7) == (answers.count("wrong"), answers.count("early"))


def test_a_guesser_elsewhere_does_not_delay_the_owner_of_the_account(identity: Identity) -> None:
    join(identity)
    for host in range(60):
        guess(identity, "nope", address=f"203.0.113.{host}")
        guess(identity, "nope", address=f"203.0.113.{host}")
    assert "right" == guess(identity, PASSWORD, address=HOME)


def test_many_addresses_guessing_one_account_get_one_attempt_each(identity: Identity) -> None:
    join(identity)
    for host in range(20):
        guess(identity, "nope", address=f"203.0.113.{host}")
    assert ["wrong", "early"] == [guess(identity, "nope", address=ELSEWHERE) for _ in range(2)]


def test_one_address_spraying_accounts_gets_one_attempt_each(identity: Identity) -> None:
    for number in range(30):
        guess(identity, "nope", email=f"user{number}@example.org")
    answers = [guess(identity, "nope", email="another@example.org") for _ in range(2)]
    assert ["wrong", "early"] == answers


def test_a_door_that_succeeded_is_not_made_strict_by_others(identity: Identity) -> None:
    join(identity)
    assert "right" == guess(identity, PASSWORD, address=HOME)
    for host in range(30):
        guess(identity, "nope", address=f"203.0.113.{host}")
    assert ["wrong"] * 4 == [guess(identity, "nope", address=HOME) for _ in range(4)]


def test_a_device_that_logged_in_is_not_delayed_by_a_guesser_at_its_own_address(identity: Identity) -> None:
    join(identity)
    proof = identity.login("sam@stargate.net", PASSWORD, address=HOME).device_proof
    for _ in range(20):
        guess(identity, "nope", address=HOME)
    assert "early" == guess(identity, PASSWORD, address=HOME)
    session = identity.login("sam@stargate.net", PASSWORD, address=HOME, device_proof=proof)
    assert "sam@stargate.net" == session.principal.email


def test_a_device_proof_is_worth_nothing_for_another_account(identity: Identity) -> None:
    join(identity)
    join(identity, "mallory@example.org")
    proof = identity.login("mallory@example.org", PASSWORD, address=HOME).device_proof
    for _ in range(5):
        guess(identity, "nope", address=HOME)
    with pytest.raises(ThrottledError):
        identity.login("sam@stargate.net", "nope", address=HOME, device_proof=proof)


def test_a_stolen_device_proof_is_throttled_too(identity: Identity) -> None:
    join(identity)
    proof = identity.login("sam@stargate.net", PASSWORD, address=HOME).device_proof
    for _ in range(5):
        with pytest.raises(AuthenticationError):
            identity.login("sam@stargate.net", "nope", address=ELSEWHERE, device_proof=proof)
    with pytest.raises(ThrottledError):
        identity.login("sam@stargate.net", "nope", address=ELSEWHERE, device_proof=proof)


def test_unknown_accounts_are_throttled_like_known_ones(identity: Identity) -> None:
    join(identity)
    known = [guess(identity, "nope") for _ in range(8)]
    assert known == [guess(identity, "nope", email="nobody@example.org", address=ELSEWHERE) for _ in range(8)]


def test_an_unknown_account_costs_one_verification_like_a_known_one(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    join(identity)
    verified: list[str] = []
    verify = PasswordHasher.verify

    def counting(self: PasswordHasher, hash: str | bytes, password: str | bytes) -> bool:
        verified.append(str(hash).split("$p")[0])
        return verify(self, hash, password)

    monkeypatch.setattr(PasswordHasher, "verify", counting)
    guess(identity, "nope")
    guess(identity, "nope", email="nobody@example.org")
    assert 2 == len(verified)
    assert verified[0].split("$")[:4] == verified[1].split("$")[:4]


def test_pruning_keeps_what_still_delays(identity: Identity, clock: Clock, database: Database) -> None:
    join(identity)
    for _ in range(5):
        guess(identity, "nope")
    clock.forward(days=3)
    guess(identity, "nope", email="other@example.org")
    identity.prune()
    with database.read() as connection:
        assert 3 == connection.scalar(sa.select(sa.func.count()).select_from(identity_tables.login_attempts))


def test_tokens_are_looked_up_by_their_hash(identity: Identity, database: Database) -> None:
    join(identity)
    session = identity.login("sam@stargate.net", PASSWORD, address=HOME)
    with database.read() as connection:
        stored = connection.scalar(sa.select(identity_tables.refresh_tokens.c.token_hash))
    assert secret_hash(session.refresh_token) == stored


def at_once(count: int, work: Callable[[], Answer]) -> list[Answer | Exception]:
    """Starts ``count`` threads together and returns what each of them got."""
    answers: list[Answer | Exception] = []
    barrier = threading.Barrier(count)

    def one() -> None:
        barrier.wait()
        try:
            answers.append(work())
        except Exception as error:
            answers.append(error)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
