"""Estimates: what experience says about one agent and one task type."""

from __future__ import annotations

import math

import msgspec

JEFFREYS = 0.5
"""Prior pseudo-counts of success and failure: Jeffreys' Beta(1/2, 1/2)."""
FORGETTING = 0.997
"""Weight an outcome keeps after each later one: about 330 outcomes of memory."""
HOPED_QUALITY = 1.0
"""What an agent's work is taken for before it was judged: one imagined perfect judgement, so that newcomers are tried."""
SMOOTHING = 0.1
"""Weight of the newest sample in moving averages, after the first ten."""


class Track(msgspec.Struct, kw_only=True):
    """Running estimates for one (agent, task type); `learn`, `time` and `judge` are the only ways it changes."""

    successes: float = 0.0
    failures: float = 0.0
    success: float = 0.5
    """Posterior mean probability of success, in (0, 1)."""
    doubt: float = math.sqrt(0.125)
    """Posterior standard deviation of `success`."""
    service_ms: float | None = None
    quality: float | None = None
    """Mean judged quality, one imagined perfect judgement included; None before the first."""
    outcomes: int = 0
    timed: int = 0
    judged: float = 0.0
    """Weight of the judgements, older ones forgotten like outcomes."""

    def learn(self, success: bool, service_ms: float | None = None, quality: float | None = None) -> None:
        """Take in one outcome; older ones weigh `FORGETTING` less. `service_ms`: handler time in milliseconds."""
        successes, failures = self.successes * FORGETTING, self.failures * FORGETTING
        if success:
            successes += 1.0
        else:
            failures += 1.0
        # Kept rather than derived: every decision reads them, only an outcome changes them.
        total = successes + failures + 2 * JEFFREYS
        share = (successes + JEFFREYS) / total
        self.successes, self.failures, self.success = successes, failures, share
        self.doubt = math.sqrt(share * (1.0 - share) / (total + 1.0))
        self.outcomes += 1
        self.time(service_ms)
        if quality is not None:
            self.judge(quality)

    def time(self, service_ms: float | None) -> None:
        """Take in one handler time, milliseconds; anything that is none is passed over."""
        if service_ms is not None and 0.0 <= service_ms < math.inf:
            self.timed += 1
            self.service_ms = moved(self.service_ms, service_ms, self.timed)

    def judge(self, quality: float) -> None:
        """Take in one judgement of finished work, 0..1; anything else is no judgement."""
        if 0 <= quality <= 1:
            before = HOPED_QUALITY if self.quality is None else self.quality
            kept = self.judged * FORGETTING
            earned = before * (self.judged + 1.0) - HOPED_QUALITY
            self.judged = kept + 1.0
            self.quality = (earned * FORGETTING + quality + HOPED_QUALITY) / (self.judged + 1.0)


def moved(average: float | None, sample: float, count: int) -> float:
    """Moving average: the plain mean of the first ten samples, then exponential. `count` includes this sample."""
    if average is None:
        return sample
    return average + max(SMOOTHING, 1.0 / count) * (sample - average)


def completion_ms(service_ms: float, in_flight: int, slots: int, loop_lag_ms: float = 0.0) -> float:
    """Expected milliseconds until one more task is done.

    A task that finds a free slot takes its service time; one that does not waits for its share of those before it. A
    late event loop makes everything late: 100 ms of lag doubles it.
    """
    lag = 1.0 + loop_lag_ms / 100.0
    if in_flight < slots:
        return service_ms * lag
    return service_ms * (1.0 + (in_flight + 1 - slots) / slots) * lag
