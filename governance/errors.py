"""Domain errors. They carry facts as attributes and know nothing of HTTP; ``api/problems.py`` maps each to one status.

Invariants
- ``code`` is stable: clients branch on it, so it never changes meaning.
- ``detail`` says what was wrong and what to do, and holds nothing computed from a person's data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar


class GovernanceError(Exception):
    """Base of every domain error."""

    code: ClassVar[str] = "governance_error"

    def __init__(self, detail: str, **facts: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.facts: Mapping[str, object] = facts


class NotFoundError(GovernanceError):
    """The thing does not exist, or the principal may not see it: the two look the same on purpose."""

    code = "not_found"


class ForbiddenError(GovernanceError):
    """The principal's role has no such right."""

    code = "forbidden"


class InvalidRequestError(GovernanceError):
    """The request is malformed. Nothing was written. ``problems`` lists each field with what is wrong and a hint."""

    code = "invalid_request"

    def __init__(self, detail: str, problems: Sequence[Mapping[str, str]] = (), **facts: object) -> None:
        super().__init__(detail, **facts)
        self.problems = tuple(problems)


class InvalidModelError(InvalidRequestError):
    """The model document is outside the allow-list or inconsistent."""

    code = "invalid_model"


class ConflictError(GovernanceError):
    """The state of the thing does not permit the operation."""

    code = "conflict"


class IdempotencyMismatchError(GovernanceError):
    """The idempotency key was used before with another body."""

    code = "idempotency_key_reused"


class ContentionError(GovernanceError):
    """Budget or policy kept changing underneath the admission; nothing was written; try again."""

    code = "contention"


class PolicyEngineError(GovernanceError):
    """No trustworthy policy decision could be had: the request is refused (fail closed)."""

    code = "policy_engine_error"


class PolicyUnreachableError(PolicyEngineError):
    code = "policy_engine_unreachable"


class PolicyTimeoutError(PolicyEngineError):
    code = "policy_engine_timeout"


class PolicyRevisionError(PolicyEngineError):
    """OPA answered from a bundle that is not the active one."""

    code = "policy_revision_mismatch"


class PolicyResultError(PolicyEngineError):
    """Undefined, of the wrong type, or with unknown keys."""

    code = "policy_result_invalid"


class FencingError(GovernanceError):
    """The grant's fencing token is stale, its lease has ended, or it was revoked: the holder must stop."""

    code = "grant_revoked"


class StorageError(GovernanceError):
    """The database refused or lost the write (disk full, connection lost). The transaction left nothing behind."""

    code = "storage_unavailable"


class LedgerClosedError(GovernanceError):
    """The ledger does not match its witness, or was restored: nothing is appended until it is reconciled.

    ``facts['reason']`` names what was found.
    """

    code = "ledger_closed"


class UnreconciledError(GovernanceError):
    """The ledger stays closed; the text says what is missing, and what to do."""

    code = "ledger_unreconciled"


class ConstraintError(GovernanceError):
    """A unique or check constraint refused the write. The caller knows which, and says it in the domain's words."""

    code = "conflict"


class AuthenticationError(GovernanceError):
    """Credentials are missing, wrong, expired or revoked. One answer for all, so that nothing is learned from it."""

    code = "unauthenticated"


class ThrottledError(GovernanceError):
    """Too many attempts; ``facts['retry_after_s']`` says when to come back."""

    code = "throttled"
