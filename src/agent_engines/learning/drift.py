"""Drift: has a kind become better or worse than what is believed of it? Page-Hinkley (Page 1954; Hinkley 1971), both ways.

Residuals are outcome minus what was told; the sum of those beyond ALLOWED, never under 0, raises the alarm at LIMIT times the
variance of one outcome, which makes false alarms equally rare for kinds that nearly always succeed and for those that do not:
exp(-2 * ALLOWED * LIMIT) = 0.002 for each time the sum leaves 0. A drop of 0.2 from 0.85 is noticed after about 50 lessons.
"""

from __future__ import annotations

import msgspec

ALLOWED = 0.05
LIMIT = 64.0
LEAST_VARIANCE = 0.02


class DriftState(msgspec.Struct, frozen=True):
    below: float
    above: float
    lessons: int


class Drift:
    """One kind's two sums, and how many lessons it has had since its last alarm."""

    __slots__ = ("_above", "_below", "lessons")

    def __init__(self) -> None:
        self._below, self._above = 0.0, 0.0
        self.lessons = 0

    def told(self, residual: float, variance: float) -> bool:
        """True when this residual, of an outcome with this variance, raises the alarm; the sums then start again."""
        self.lessons += 1
        self._below = max(0.0, self._below - residual - ALLOWED)
        self._above = max(0.0, self._above + residual - ALLOWED)
        if max(self._below, self._above) < LIMIT * max(variance, LEAST_VARIANCE):
            return False
        self._below, self._above = 0.0, 0.0
        return True

    def state(self) -> DriftState:
        return DriftState(self._below, self._above, self.lessons)

    @classmethod
    def of(cls, state: DriftState) -> Drift:
        made = cls()
        made._below, made._above, made.lessons = state.below, state.above, state.lessons
        return made
