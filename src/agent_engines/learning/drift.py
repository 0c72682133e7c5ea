"""Drift: has a kind become better or worse than what is believed of it? A CUSUM of likelihood ratios (Page 1954), both ways.

Each direction bets on a shift by SHIFT: its stake grows by 1 + residual * shift / variance, where residual is outcome minus what
was told and variance that of one such outcome, and is never below 1 before a bet. While what is told is right, each bet is
fair, however different the predictions are, so a stake reaches LIMIT at most once in LIMIT lessons on average (e-detectors:
Shin, Ramdas and Rinaldo 2023). Products only: the same bits everywhere. A drop of 0.2 from 0.85 is noticed after about 60 lessons.
"""

from __future__ import annotations

import msgspec

from .calibration import EDGE, MOST

SHIFT = 0.2
"""What is bet on, at most half of what there is to lose: smaller errors of what is told are not taken for a change."""
LIMIT = 1000.0
QUIET = 100
"""Lessons of a kind, from its first one or its last alarm, before bets begin: so long it is still being learned what it is like."""


class DriftState(msgspec.Struct, frozen=True):
    below: float
    above: float
    lessons: int


class Drift:
    """One kind's two stakes, and how many lessons it has had since its last alarm."""

    __slots__ = ("_above", "_below", "lessons")

    def __init__(self, lessons: int = 0) -> None:
        self._below, self._above = 1.0, 1.0
        self.lessons = lessons

    def told(self, outcome: float, expected: float) -> bool:
        """True when this outcome, 0..1, where `expected` was told, raises the alarm; the stakes then start again."""
        self.lessons += 1
        if self.lessons <= QUIET:
            return False
        expected = min(max(expected, EDGE), MOST)
        residual = (outcome - expected) / (expected * (1.0 - expected))
        self._below = max(self._below, 1.0) * (1.0 - residual * min(SHIFT, expected / 2.0))
        self._above = max(self._above, 1.0) * (1.0 + residual * min(SHIFT, (1.0 - expected) / 2.0))
        if max(self._below, self._above) < LIMIT:
            return False
        self._below, self._above = 1.0, 1.0
        return True

    def state(self) -> DriftState:
        return DriftState(self._below, self._above, self.lessons)

    @classmethod
    def of(cls, state: DriftState) -> Drift:
        made = cls(state.lessons)
        made._below, made._above = state.below, state.above
        return made
