"""Suspicion: has this replica broken down, or was that error one of those that always happen?

Two explanations for an error: the replica is broken (then nearly every call fails), or it is sound and the call failed at the
fleet's usual rate. Each error multiplies the odds of "broken" by the ratio of both; so one error is enough where errors are rare
and it takes several where they are not. Broken replicas recover: the longer it has lasted, the longer it will (Lindy), and
the odds fade accordingly; a success ends the matter.
"""

from __future__ import annotations

BREAKS = 0.01
"""Odds that a replica broke down since its last call."""
LEAST_RATE, MOST_RATE = 0.002, 0.5
RATE_WEIGHT = 0.002
SUCCESS_RATIO = 0.02
"""How much less likely a success is when the replica is broken."""
MOST_ODDS = 1000.0
LASTS_SECONDS = 10.0
"""A breakdown that was just noticed is expected to last about this long."""


class Base:
    """The rate of errors of replicas that are not under suspicion."""

    def __init__(self) -> None:
        self.rate = LEAST_RATE

    def told(self, failed: bool) -> None:
        self.rate += RATE_WEIGHT * (float(failed) - self.rate)

    def ratio(self) -> float:
        """How much more likely an error is when the replica is broken."""
        return 1.0 / min(max(self.rate, LEAST_RATE), MOST_RATE)


class Suspicion:
    """One replica's, from its first error until it is cleared."""

    __slots__ = ("_first", "_last", "_odds", "_trial_until")

    def __init__(self) -> None:
        self._odds = BREAKS
        self._first = -1.0
        self._last = 0.0
        self._trial_until = 0.0

    def failed(self, base: Base, now: float) -> None:
        """Another error."""
        if self._odds < 1.0:
            base.told(True)
        self._odds = min(MOST_ODDS, max(self.odds(now), BREAKS) * base.ratio())
        if self._first < 0.0:
            self._first = now
        self._last = now
        self._trial_until = 0.0

    def tried(self, now: float) -> None:
        """A task goes there although it is suspected: until it is back, or some seconds, nobody else follows."""
        if self._odds > 1.0:
            self._trial_until = now + LASTS_SECONDS

    def cleared(self, sent_at: float) -> bool:
        """A success of a task sent at `sent_at`: True when nothing of the suspicion is left.

        What was sent before the last error says nothing: a replica that turns new tasks away still ends those it has.
        """
        if sent_at <= self._last:
            return False
        self._odds *= SUCCESS_RATIO
        self._trial_until = 0.0
        return self._odds <= BREAKS

    def odds(self, now: float) -> float:
        """Odds that it is broken now."""
        if now < self._trial_until:
            return MOST_ODDS
        lasted = LASTS_SECONDS + self._last - self._first
        chance = self._odds / (1.0 + self._odds) * lasted / (lasted + max(0.0, now - self._last))
        return chance / (1.0 - chance)
