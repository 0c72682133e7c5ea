"""Hedges: when is a task so late that a second replica should be asked too? (Dean and Barroso, The Tail at Scale, 2013)

After the running 99th percentile of latency / prediction, at most for one task in twenty, and not when the fleet is nearly
full: there a second leg takes the place of somebody's first. And only where it pays. A task may be late because of where it
is (a hung connection, a slow replica): then the second leg wins. Or because it is long: then the second leg has all of it
before it too, the first one wins, and the longest tasks of all were done twice. Which of them it is the races tell.
"""

from __future__ import annotations

import math

SHARE = 0.99
STEP = 0.05
"""How far one outcome moves the logarithm of the percentile, at most."""
BUDGET = 0.05
BURST = 5.0
MOST_CREDIT = 10.0 * BURST
"""Hedges that may be sent before their share of decisions has come in."""
MOST_BUSY = 0.85
LEAST_RATIO = 1.2
WORTH, WORTH_AGAIN = 0.25, 0.4
"""Below the first share of races won by the second leg hedging stops, but for trials; from the second on it goes on.

Measured on a trace of language model calls: the second leg won 11 % of the races, and 1.5 % of hedged tasks made the median
of all 5 % worse, as they were the longest; it was 64 % where one call in fifty hangs.
"""
HOPE, NEWS = 0.5, 0.15
"""The share that is believed before any race, and the weight of one race."""
TRIAL = 0.001
"""Share of decisions that may still be hedged where it does not pay, to hear when that changes."""


class Hedges:
    """The percentile, followed by stochastic approximation, and the budget."""

    def __init__(self) -> None:
        self._log_ratio = math.log(3.0)
        self._credit = BURST
        self._trials = 0.0
        self._won = HOPE
        self.worthwhile = True
        """Whether second legs win often enough."""

    @property
    def credit(self) -> float:
        """Hedges that may be sent now."""
        return self._credit if self.worthwhile else min(self._credit, self._trials)

    def decided(self) -> None:
        """One more decision."""
        # Mostly both are full.
        if self._credit < MOST_CREDIT:
            self._credit = min(self._credit + BUDGET, MOST_CREDIT)
        if self._trials < 1.0:
            self._trials = min(self._trials + TRIAL, 1.0)

    def spent(self) -> None:
        """One hedge was sent."""
        self._credit -= 1.0
        self._trials = max(0.0, self._trials - 1.0)

    def raced(self, *, won: bool) -> None:
        """Both legs ran, and one has succeeded: `won` is whether it was the second."""
        self._won += NEWS * (won - self._won)
        self.worthwhile = self._won >= (WORTH if self.worthwhile else WORTH_AGAIN)

    def told(self, latency: float, predicted: float) -> None:
        """A task came back after `latency` seconds."""
        if predicted > 0.0:
            self._move(above=latency > predicted * math.exp(self._log_ratio))

    def outlasted(self) -> None:
        """A task was still away when its wait was over: if its first leg loses, nobody will tell how long it would have taken."""
        self._move(above=True)

    def _move(self, *, above: bool) -> None:
        self._log_ratio += STEP * (SHARE if above else SHARE - 1.0)

    def after(self, predicted: float) -> float | None:
        """Seconds to wait for a task that was predicted to take `predicted`; None when there is no budget."""
        if self.credit < 1.0:
            return None
        return predicted * max(LEAST_RATIO, math.exp(self._log_ratio))
