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


class InvalidCurveError(AccountantError):
    """A computed curve is not finite, not positive or decreases: nothing is charged from it."""

    def __init__(self, sampling_probability: float, noise_multiplier: float, why: str) -> None:
        super().__init__(
            f"curve of sampling_probability = {sampling_probability!r}, noise_multiplier = {noise_multiplier!r}: {why}"
        )
        self.sampling_probability = sampling_probability
        self.noise_multiplier = noise_multiplier
        self.why = why


class CurveDisagreementError(AccountantError):
    """The two computations of one curve differ by more than their known errors. An alarm: one of them is wrong."""

    def __init__(
        self, sampling_probability: float, noise_multiplier: float, order: float, own: float, library: float
    ) -> None:
        super().__init__(
            f"curve of sampling_probability = {sampling_probability!r}, noise_multiplier = {noise_multiplier!r} "
            f"at order {order!r}: own kernel {own!r}, dp_accounting {library!r}"
        )
        self.sampling_probability = sampling_probability
        self.noise_multiplier = noise_multiplier
        self.order = order
        self.own = own
        self.library = library
