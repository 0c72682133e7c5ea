"""Hedges: when is a task so late that a second replica should be asked too? (Dean and Barroso, The Tail at Scale, 2013)

After the running 99th percentile of latency / prediction, at most for one task in twenty, and not when the fleet is nearly
full: there a second leg takes the place of somebody's first.
"""

from __future__ import annotations

import math

SHARE = 0.99
STEP = 0.05
"""How far one outcome moves the logarithm of the percentile, at most."""
BUDGET = 0.05
BURST = 5.0
"""Hedges that may be sent before their share of decisions has come in."""
MOST_BUSY = 0.85
LEAST_RATIO = 1.2


class Hedges:
    """The percentile, followed by stochastic approximation, and the budget."""

    def __init__(self) -> None:
        self._log_ratio = math.log(3.0)
        self._credit = BURST

    @property
    def credit(self) -> float:
        """Hedges that may be sent now."""
        return self._credit

    def decided(self) -> None:
        """One more decision."""
        self._credit = min(self._credit + BUDGET, 10.0 * BURST)

    def spent(self) -> None:
        """One hedge was sent."""
        self._credit -= 1.0

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
        if self._credit < 1.0:
            return None
        return predicted * max(LEAST_RATIO, math.exp(self._log_ratio))
