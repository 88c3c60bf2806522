"""Repeatable chance: a draw depends on the seed and on its purpose, never on the order of arrival."""

import math
from hashlib import blake2b
from statistics import NormalDist

from understudy.worker.mock.config import Lognormal, Spread, Uniform

_NORMAL = NormalDist()


def roll(seed: int, *parts: object) -> float:
    """A number in (0, 1), equal for equal arguments."""
    digest = blake2b("|".join(map(str, (seed, *parts))).encode(), digest_size=6).digest()
    return (int.from_bytes(digest) + 0.5) / (1 << 48)


def draw(spread: Spread, chance: float) -> float:
    """The value of the distribution at `chance` (0 to 1)."""
    match spread:
        case Lognormal():
            return spread.median * math.exp(spread.sigma * _NORMAL.inv_cdf(chance))
        case Uniform():
            return spread.low + (spread.high - spread.low) * chance
        case _:
            return spread
