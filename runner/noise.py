"""The runner's randomness: who takes part, in which order a unit's examples are seen, and the noise.

Invariants
- One secret seed of 256 bits per run, from the operating system. It is never logged, stored, published or shown by
  ``repr``.
- Every use has a stream of its own: a ChaCha20 generator whose 256-bit key is HMAC-SHA256(seed, purpose | round).
  Streams are independent of one another as far as HMAC-SHA256 is a pseudo-random function, so how much one of them
  is read (which depends on private data) never shifts another.
- Normals are float64 from numpy's ziggurat, which continues into an exact exponential tail: nothing is cut where it
  could be seen (TensorFlow's Box–Muller ends at 5.68 standard deviations). They are scaled in float64; casts come
  later.

Why not TFF's own noise: docs/adr/0004. This module does not: know a model, train, or account.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import randomgen

GENERATOR: Final = f"chacha20-hmac-sha256/1 (randomgen {randomgen.__version__}, numpy {np.__version__} ziggurat)"
SEED_BYTES: Final = 32
_CHACHA_ROUNDS: Final = 20

Float64Array = npt.NDArray[np.float64]


class Streams:
    """All randomness of one run, reproducible from its sealed seed. Give a seed only in tests."""

    __slots__ = ("__seed",)

    def __init__(self, seed: bytes | None = None) -> None:
        if seed is not None and len(seed) != SEED_BYTES:
            raise ValueError(f"a seed has {SEED_BYTES} bytes")
        self.__seed = secrets.token_bytes(SEED_BYTES) if seed is None else seed

    def __repr__(self) -> str:
        return "Streams(<sealed>)"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a run's randomness is not copied or stored")

    def pool(self) -> np.random.Generator:
        """Who belongs to the run's pool: read once, one number for every unit."""
        return self._stream("pool", 0)

    def cohort(self, round_number: int) -> np.random.Generator:
        """Who takes part in this round: one number for every unit."""
        return self._stream("cohort", round_number)

    def local(self, round_number: int) -> np.random.Generator:
        """The units' own randomness: the order of their examples, and what dropout drops."""
        return self._stream("local", round_number)

    def noise(self, round_number: int) -> np.random.Generator:
        """The Gaussian noise of this round's sum."""
        return self._stream("noise", round_number)

    def _stream(self, purpose: str, round_number: int) -> np.random.Generator:
        if round_number < 0:
            raise ValueError("rounds count from zero")
        label = f"pysytff.streams/1|{purpose}|{round_number}".encode()
        key = int.from_bytes(hmac.new(self.__seed, label, hashlib.sha256).digest(), "little")
        return np.random.Generator(randomgen.ChaCha(key=key, rounds=_CHACHA_ROUNDS))


def gaussian(
    generator: np.random.Generator, shapes: Sequence[tuple[int, ...]], standard_deviation: float
) -> list[Float64Array]:
    """Independent normals of this standard deviation for every number of a sum, float64."""
    if not 0.0 < standard_deviation < np.inf:
        raise ValueError("noise needs a positive, finite standard deviation")
    drawn = [generator.standard_normal(shape, dtype=np.float64) for shape in shapes]
    for part in drawn:
        part *= standard_deviation
    return drawn
