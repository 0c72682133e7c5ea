"""Is this interval unlike this agent's own recent past?

Two one-sided tests for each agent and task type, on closed intervals of a few seconds:

- latency: robust z-score of the interval's median on a log scale, (x - median) / (1.4826 * MAD), over 3.5
  (Iglewicz and Hoaglin 1993). The spread has a floor of 10 %, so a very steady past does not cry at noise;
- errors: z-score of the count against a binomial with the past's (smoothed) rate, over 3.5 and at least 3 errors.

Every interval joins the past afterwards, so a lasting change stops being an anomaly when it fills half of it.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

import msgspec

THRESHOLD = 3.5
MAD_TO_SIGMA = 1.4826
LEAST_SPREAD = 0.10
LEAST_PAST = 8
LEAST_COUNT = 5
LEAST_ERRORS = 3


class Interval(msgspec.Struct, frozen=True):
    """One closed slice of time of one agent and task type."""

    count: int
    errors: int
    median_ms: float | None


class Anomaly(msgspec.Struct, frozen=True, kw_only=True):
    """`signal` is "latency" (values in milliseconds) or "errors" (values are shares, 0..1)."""

    signal: str
    value: float
    usual: float
    z: float


class Baseline:
    """What has been normal lately: the last `size` intervals with enough tasks to say anything."""

    __slots__ = ("_past",)

    def __init__(self, size: int = 36) -> None:
        self._past: deque[Interval] = deque(maxlen=size)

    def observe(self, interval: Interval) -> tuple[Anomaly, ...]:
        """Judge one interval against the past, then add it. Intervals of fewer than LEAST_COUNT tasks are ignored."""
        if interval.count < LEAST_COUNT:
            return ()
        found = ()
        if len(self._past) >= LEAST_PAST:
            found = tuple(a for a in (self._latency(interval), self._errors(interval)) if a is not None)
        self._past.append(interval)
        return found

    def _latency(self, interval: Interval) -> Anomaly | None:
        logs = [math.log(i.median_ms) for i in self._past if i.median_ms]
        if not interval.median_ms or len(logs) < LEAST_PAST:
            return None
        middle = median(logs)
        spread = max(LEAST_SPREAD, MAD_TO_SIGMA * median(abs(x - middle) for x in logs))
        z = (math.log(interval.median_ms) - middle) / spread
        if z <= THRESHOLD:
            return None
        return Anomaly(signal="latency", value=interval.median_ms, usual=math.exp(middle), z=z)

    def _errors(self, interval: Interval) -> Anomaly | None:
        tasks = sum(i.count for i in self._past)
        usual = (sum(i.errors for i in self._past) + 0.5) / (tasks + 1)
        expected = interval.count * usual
        # The smoothing keeps the rate below 1 unless everything failed always; then nothing can be worse.
        z = (interval.errors - expected) / math.sqrt(max(1e-9, expected * (1 - usual)))
        if interval.errors < LEAST_ERRORS or z <= THRESHOLD:
            return None
        return Anomaly(signal="errors", value=interval.errors / interval.count, usual=usual, z=z)
