"""Thinning: a busy router learns from a random part of its outcomes, so that learning costs the same at any load.

Which outcomes are taken has nothing to do with how they ended, so what is learned is the same, only from fewer of them.
"""

from __future__ import annotations

from random import Random

MOST_A_SECOND = 200.0
"""Outcomes a second that are learned from: a thousand kinds and task types hear of themselves every five seconds."""


class Thinning:
    """Ask `takes` once for each outcome. `most`: how many a second are taken, about."""

    def __init__(self, rng: Random, *, most: float = MOST_A_SECOND) -> None:
        self._rng = rng
        self._most = most
        self._share = 1.0
        self._since = 0.0
        self._count = 0

    def takes(self, now: float) -> bool:
        """Whether to learn from this one; `now`: seconds of any clock."""
        self._count += 1
        passed = now - self._since
        if passed >= 1.0 or passed < 0.0 or self._count > 2.0 * self._most / self._share:
            # Of a rate that rises at once a little more than wanted is taken, until it is known.
            self._share = min(1.0, self._most * max(passed, 0.01) / self._count)
            self._since, self._count = now, 0
        return self._share >= 1.0 or self._rng.random() < self._share
