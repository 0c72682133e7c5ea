"""Sliding windows: what happened in the last minute, in bounded memory and without a clock of their own.

A window is a ring of small buckets. Each holds counts and a quantile sketch (DDSketch: Masson, Rim, Lee, VLDB 2019),
so percentiles are within 1 % of the exact ones and windows of several agents can be merged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec
from ddsketch import DDSketch

RELATIVE_ACCURACY = 0.01
LONGEST_MS = 1e9
"""Longer times are counted as this (11 days): it bounds the sketch, whatever is reported."""


class WindowSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a window held at one moment. Percentiles and means are None when nothing was measured."""

    count: int = 0
    errors: int = 0
    seconds: float = 0.0
    """The time the counts cover: shorter than the window while it is young."""
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    quality: float | None = None
    cost: float | None = None
    """Mean quality (0..1) and mean cost of the outcomes that told one."""

    @property
    def rate_per_s(self) -> float:
        return self.count / self.seconds if self.seconds > 0 else 0.0

    @property
    def error_rate(self) -> float:
        return self.errors / self.count if self.count else 0.0


class Mean:
    """A sum and how many values it has."""

    __slots__ = ("count", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value

    def merge(self, other: Mean) -> None:
        self.count += other.count
        self.total += other.total

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


class Bucket:
    """One slice of time."""

    __slots__ = ("cost", "count", "epoch", "errors", "quality", "sketch")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.count = 0
        self.errors = 0
        self.quality = Mean()
        self.cost = Mean()
        self.sketch: DDSketch | None = None

    def observe(self, milliseconds: float | None) -> None:
        """Take one duration; what is no time at all (negative, NaN) is left out."""
        if milliseconds is None or not milliseconds >= 0.0:
            return
        if self.sketch is None:
            self.sketch = DDSketch(RELATIVE_ACCURACY)
        self.sketch.add(min(milliseconds, LONGEST_MS))

    def merge(self, other: Bucket) -> None:
        self.count += other.count
        self.errors += other.errors
        self.quality.merge(other.quality)
        self.cost.merge(other.cost)
        if other.sketch is not None:
            if self.sketch is None:
                self.sketch = DDSketch(RELATIVE_ACCURACY)
            self.sketch.merge(other.sketch)

    def quantile(self, share: float) -> float | None:
        return None if self.sketch is None else self.sketch.get_quantile_value(share)

    def summary(self, seconds: float) -> WindowSummary:
        return WindowSummary(
            count=self.count,
            errors=self.errors,
            seconds=seconds,
            p50_ms=self.quantile(0.50),
            p95_ms=self.quantile(0.95),
            p99_ms=self.quantile(0.99),
            quality=self.quality.value,
            cost=self.cost.value,
        )


class SlidingWindow:
    """Counts, errors and times of the last `span_seconds`; `now` is any clock that is the same for all calls."""

    __slots__ = ("_born", "_ring", "_size", "width")

    def __init__(self, span_seconds: float = 60.0, buckets: int = 12) -> None:
        if not (span_seconds > 0 and buckets >= 2):
            raise ValueError("a window needs a positive span and at least two buckets")
        self.width = span_seconds / buckets
        self._size = buckets
        self._ring: list[Bucket | None] = [None] * buckets
        self._born: float | None = None

    def add(
        self,
        now: float,
        milliseconds: float | None,
        *,
        error: bool = False,
        quality: float | None = None,
        cost: float | None = None,
    ) -> None:
        """Count one outcome; one that comes later than the window is long is dropped."""
        bucket = self._bucket(now)
        if bucket is None:
            return
        bucket.count += 1
        if error:
            bucket.errors += 1
        if quality is not None:
            bucket.quality.add(quality)
        if cost is not None:
            bucket.cost.add(cost)
        bucket.observe(milliseconds)

    def count(self, now: float, count: int, errors: int) -> None:
        """Count many outcomes at once, without their times."""
        bucket = self._bucket(now)
        if bucket is not None:
            bucket.count += count
            bucket.errors += errors

    def summary(self, now: float) -> WindowSummary:
        return merged([self], now)

    def bucket(self, epoch: int) -> Bucket | None:
        """The slice with number `epoch` (time // width), None when it is empty or gone."""
        found = self._ring[epoch % self._size]
        return found if found is not None and found.epoch == epoch else None

    def epoch(self, now: float) -> int:
        return math.floor(now / self.width)

    def live(self, now: float) -> list[Bucket]:
        """The slices that still count at `now`."""
        newest = self.epoch(now)
        return [b for b in self._ring if b is not None and newest - self._size < b.epoch <= newest]

    def covered(self, now: float) -> float:
        """Seconds that the live slices stand for at `now`; a young window covers only its own age."""
        if self._born is None:
            return 0.0
        oldest = (self.epoch(now) - self._size + 1) * self.width
        return max(self.width, now - max(oldest, self._born))

    def _bucket(self, now: float) -> Bucket | None:
        epoch = self.epoch(now)
        found = self._ring[epoch % self._size]
        if found is None or found.epoch < epoch:
            found = self._ring[epoch % self._size] = Bucket(epoch)
            if self._born is None or now < self._born:
                self._born = now
        return found if found.epoch == epoch else None


def merged(windows: Iterable[SlidingWindow], now: float) -> WindowSummary:
    """One summary over several windows; the counts cover the longest time any of them covers."""
    total = Bucket(0)
    seconds = 0.0
    for window in windows:
        seconds = max(seconds, window.covered(now))
        for bucket in window.live(now):
            total.merge(bucket)
    return total.summary(seconds)


def counted(windows: Iterable[SlidingWindow], now: float) -> WindowSummary:
    """Counts and errors only, over several windows: a fraction of what merging the sketches costs."""
    count = errors = 0
    seconds = 0.0
    for window in windows:
        seconds = max(seconds, window.covered(now))
        for bucket in window.live(now):
            count += bucket.count
            errors += bucket.errors
    return WindowSummary(count=count, errors=errors, seconds=seconds)
