"""What a quarantine may be resolved on. Pure.

Invariants
- Only ends that nothing private decided are evidence (privacy rule 12): a crash that may depend on data is not.
- The entry keeps a salted digest; the words themselves lie in a side table that may be erased.

This module does not: judge whether the words are true; whoever gives them is named in the entry.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

from governance.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why a quarantined run ended, from outside the data: what allows its undebited rounds to be given back.

    ``kind`` is one of ``KINDS``; ``statement`` is a person's or a runner's own words. Raises ``InvalidRequestError``.
    """

    KINDS: ClassVar[tuple[str, ...]] = ("host_lost", "power_loss", "process_killed", "network_lost", "operator_stopped")

    kind: str
    statement: str

    def __post_init__(self) -> None:
        if self.kind not in self.KINDS:
            hint = f"one of {', '.join(self.KINDS)}; an end that may depend on the data stays in quarantine"
            problem = {
                "path": "kind",
                "message": "is not evidence of an end that nothing private decided",
                "hint": hint,
            }
            raise InvalidRequestError(f"{self.kind!r} is not a kind of evidence: {hint}", [problem])
        if not 10 <= len(self.statement.strip()) <= 2000:
            hint = "10 to 2000 characters: what happened, when, and how you know"
            problem = {"path": "statement", "message": "is too short or too long", "hint": hint}
            raise InvalidRequestError(f"the statement must be {hint}", [problem])

    def digest(self, salt: bytes) -> str:
        return hashlib.sha256(salt + self.kind.encode() + b"\x00" + self.statement.encode()).hexdigest()
