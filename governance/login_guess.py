"""One login attempt and its three counters (``throttle.py``) in the database.

Invariants
- ``count`` commits before the password is looked at; only ``take_back`` undoes it, in the transaction that logs in.
- Counters are keyed by hashes under the signing key: the table names neither an account nor an address.

This module does not: look at passwords, or decide how long to wait.
"""

from __future__ import annotations

import math
from datetime import datetime

from governance import throttle
from governance.errors import ThrottledError
from governance.ledger import identity_store as store
from governance.ledger.database import Connection, Database
from governance.tokens import SigningKey


class Guess:
    """``device_id`` is set where the caller proved that this device logged in to this very account before."""

    def __init__(
        self, database: Database, key: SigningKey, email: str, address: str, device_proof: str | None, now: datetime
    ) -> None:
        self._database, self._now = database, now
        self.device_id = _proven_device(database, key, email, device_proof, now)
        group = throttle.address_group(address)
        door = ("device", self.device_id) if self.device_id else ("address", group)
        self._door = key.keyed_hash("door", email, *door)
        self._account = key.keyed_hash("account", email)
        self._address = key.keyed_hash("address", group)
        self._trusted = False

    def count(self) -> None:
        """Raises ``ThrottledError``, and then nothing was counted; otherwise the attempt counts as a failure."""
        with self._database.write() as connection:
            counters = store.lock_counters(connection, (self._door, self._account, self._address), self._now)
            attempt = throttle.begin(
                counters[self._door],
                counters[self._account],
                counters[self._address],
                self._now,
                device=self.device_id is not None,
            )
            if not attempt.wait:
                self._save(connection, attempt)
        if attempt.wait:
            seconds = math.ceil(attempt.wait.total_seconds())
            raise ThrottledError("too many failed logins; wait before the next one", retry_after_s=seconds)
        self._trusted = attempt.trusted

    def take_back(self, connection: Connection, now: datetime) -> None:
        """The password was right."""
        counters = store.lock_counters(connection, (self._door, self._account, self._address), now)
        account, address = counters[self._account], counters[self._address]
        self._save(connection, throttle.succeed(account, address, now, trusted=self._trusted))

    def _save(self, connection: Connection, attempt: throttle.Attempt) -> None:
        store.save_counter(connection, self._door, attempt.door)
        store.save_counter(connection, self._account, attempt.account)
        store.save_counter(connection, self._address, attempt.address)


def _proven_device(
    database: Database, key: SigningKey, email: str, device_proof: str | None, now: datetime
) -> str | None:
    """A proof counts only for the account that it was given for."""
    proof = key.read_device(device_proof, now)
    if proof is None:
        return None
    principal_id, device_id = proof
    with database.read() as connection:
        account = store.account_by_id(connection, principal_id)
    return device_id if account is not None and account.principal.email == email else None
