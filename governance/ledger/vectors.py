"""Vectors of budget amounts to and from bytes: 16 big-endian bytes an order, so nothing wraps and nothing rounds.

This module does not: know orders, budgets or the database.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

_WIDTH = 16
_LIMIT = 1 << 127  # privacy rule 13: range-checked to 127 bits


def encode(vector: Sequence[int]) -> bytes:
    """Raises ``OverflowError`` for a negative amount or one of 128 bits and more."""
    for amount in vector:
        if not 0 <= amount < _LIMIT:
            raise OverflowError("an amount of budget is outside 0 … 2^127: refused")
    return b"".join(amount.to_bytes(_WIDTH, "big") for amount in vector)


def decode(blob: bytes) -> tuple[int, ...]:
    """Raises ``ValueError`` if the blob is not whole amounts."""
    if len(blob) % _WIDTH:
        raise ValueError("a stored budget vector is damaged: its length is not a multiple of 16")
    halves = struct.unpack(f">{len(blob) // 8}Q", blob)
    return tuple([(high << 64) | low for high, low in zip(halves[::2], halves[1::2], strict=True)])
