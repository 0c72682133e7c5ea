"""Exploration: how often each kind would win if its value were drawn from what is believed of it, with a floor under all.

    draws -> share of wins -> mixed with a uniform floor -> the action is drawn from exactly this vector

The propensity that is logged is therefore exact, not estimated; a policy that always took the best one could never be judged
from its own history.
"""

from __future__ import annotations

import numpy as np

from .arrays import Floats, NDArrayInt

DRAWS = 32
TABLE = 1 << 16


class Draws:
    """A table of normals with mean `optimism` and deviation `jitter`, read from an offset that the seed decides.

    A decision makes no normals of its own.
    """

    def __init__(self, generator: np.random.Generator, *, optimism: float, jitter: float) -> None:
        self._generator = generator
        self._optimism, self._jitter = optimism, jitter
        self._table = self._made(TABLE)
        self._at = 0

    def take(self, kinds: int) -> Floats:
        """DRAWS times `kinds` numbers, to be read only."""
        wanted = DRAWS * kinds
        if 2 * wanted > len(self._table):
            self._table = self._made(2 * wanted)
        # A step without a common divisor with any row length, so that the same numbers seldom meet the same kinds.
        self._at = (self._at + wanted + 7919) % (len(self._table) - wanted)
        return self._table[self._at : self._at + wanted]

    def _made(self, size: int) -> Floats:
        return self._optimism + self._jitter * self._generator.standard_normal(size)


def winners(means: Floats, widths: Floats, draws: Floats) -> NDArrayInt:
    """Which kind wins in each row of draws: the largest mean + width * draw."""
    values = draws * widths
    values += means
    return values.argmax(axis=1)


def shares(won: NDArrayInt, kinds: int, floor: float, found: Floats | None = None) -> Floats:
    """How often each kind won, mixed with a uniform distribution of weight `floor`; written into `found` if there is one."""
    found = np.multiply(np.bincount(won, minlength=kinds), (1.0 - floor) / len(won), out=found)
    found += floor / kinds
    return found


def taken(won: NDArrayInt, kinds: int, floor: float, chance: float) -> int:
    """The kind that `chance`, uniform in 0..1, falls on: distributed exactly as `shares`."""
    if chance < floor:
        return min(int(chance / floor * kinds), kinds - 1)
    row = int((chance - floor) / (1.0 - floor) * len(won))
    return int(won[min(row, len(won) - 1)])
