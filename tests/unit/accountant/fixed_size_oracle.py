"""The bound of Wang, Balle and Kasiviswanathan (2019, theorem 27) with as many digits as its differences cancel."""

from __future__ import annotations

import math
from functools import lru_cache

import mpmath
from mpmath import mpf

EXACT_UP_TO = 256  # above it dp_accounting takes the simpler bound for all but the first term


def exact_log_power(population: int, sample: int, z: float, order: int) -> mpf:
    """log A at a whole order: the moments as differences of e^{i(i−1)/2z²}, which is how the paper writes them."""
    top = order if order <= EXACT_UP_TO else 2
    with mpmath.workdps(_digits(z, top)):
        q, growth, moment = mpf(sample) / population, *_moments(z, top)
        total = mpf(1)
        for j in range(2, order + 1):
            simple = 2 * (growth[j] if j < len(growth) else _growth(z, j))
            if j == 2 or order <= EXACT_UP_TO:
                simple = min(simple, 4 * mpmath.sqrt(moment[j // 2 * 2] * moment[-(-j // 2) * 2]))
            total += math.comb(order, j) * q**j * simple
        return mpmath.log(total)


@lru_cache(maxsize=8)
def _moments(z: float, top: int) -> tuple[list[mpf], dict[int, mpf]]:
    with mpmath.workdps(_digits(z, top)):
        growth = [_growth(z, i) for i in range(top + 2)]
        return growth, {
            power: sum((-1) ** (power - i) * math.comb(power, i) * growth[i] for i in range(power + 1))
            for power in range(2, top + 2, 2)
        }


def _growth(z: float, i: int) -> mpf:
    return mpmath.exp(mpf(i * i - i) / (2 * mpf(z) ** 2))


def _digits(z: float, top: int) -> int:
    return 50 + math.ceil(top * (math.log10(z + 1) + 1))
