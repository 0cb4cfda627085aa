"""What the accountant refuses, each with its facts as attributes.

Invariants
- Every refusal of this package derives from ``AccountantError``; nothing foreign leaves it.
- Messages hold parameters of requests and budgets only; this package never sees anybody's data.
"""

from __future__ import annotations


class AccountantError(Exception):
    """Base of everything that the accountant refuses."""


class InvalidEventError(AccountantError):
    """An event's field is missing, of the wrong type or out of range."""

    def __init__(self, field: str, value: object, why: str) -> None:
        super().__init__(f"{field} = {value!r}: {why}")
        self.field = field
        self.value = value
        self.why = why


class UnknownEventError(AccountantError):
    """A stored or received event has a type or version that this release does not know. It is never guessed."""

    def __init__(self, type: object, version: object) -> None:
        super().__init__(f"unknown event type {type!r}, version {version!r}")
        self.type = type
        self.version = version


class NotCanonicalError(AccountantError):
    """A document has no RFC 8785 form: NaN, an infinity, an integer beyond 2**53, a key that is no text, a foreign
    type."""


class InvalidBudgetError(AccountantError):
    """A budget's epsilon, delta, orders, weights or neighbouring relation are unusable."""

    def __init__(self, field: str, value: object, why: str) -> None:
        super().__init__(f"{field} = {value!r}: {why}")
        self.field = field
        self.value = value
        self.why = why


class InvalidVectorError(AccountantError):
    """An amount is not an integer, is negative, leaves 127 bits, or belongs to another grid of orders."""


class NotComposableError(AccountantError):
    """An event cannot be accounted under a neighbouring relation. ``what_to_do`` says how to ask instead."""

    def __init__(self, event: str, relation: str, why: str, what_to_do: str) -> None:
        super().__init__(f"{event} cannot be charged to a population with the relation {relation}: {why}; {what_to_do}")
        self.event = event
        self.relation = relation
        self.why = why
        self.what_to_do = what_to_do


class InvalidCurveError(AccountantError):
    """A computed curve is not finite, not positive or decreases: nothing is charged from it."""

    def __init__(self, mechanism: object, why: str) -> None:
        super().__init__(f"curve of {mechanism}: {why}")
        self.mechanism = mechanism
        self.why = why


class CurveDisagreementError(AccountantError):
    """The two computations of one curve differ by more than their known errors. An alarm: one of them is wrong.

    ``own`` and ``other`` are the two values: of our kernel, and of dp_accounting or of the second programme.
    """

    def __init__(self, mechanism: object, order: float, own: float, other: float) -> None:
        super().__init__(f"curve of {mechanism} at order {order!r}: own kernel {own!r}, second computation {other!r}")
        self.mechanism = mechanism
        self.order = order
        self.own = own
        self.other = other
