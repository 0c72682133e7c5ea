"""How fast something grows, robustly: Theil-Sen over the floor of each minute, with what is not known about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import median
from typing import NamedTuple

CONFIDENCE = 1.96
"""95 %, two-sided."""


class Slope(NamedTuple):
    """Per hour; the truth lies between `low` and `high` in 95 of 100 runs."""

    middle: float
    low: float
    high: float


def floors(samples: Sequence[tuple[float, float]], *, width: float = 60.0) -> list[tuple[float, float]]:
    """The lowest sample of each `width` seconds: garbage that waits for its collection is no growth."""
    lowest: dict[int, tuple[float, float]] = {}
    for at, value in samples:
        minute = int(at // width)
        if minute not in lowest or value < lowest[minute][1]:
            lowest[minute] = at, value
    return [lowest[minute] for minute in sorted(lowest)]


def slope(samples: Sequence[tuple[float, float]]) -> Slope:
    """Theil-Sen: the median of the slopes of all pairs; its interval by Kendall's statistic (Sen 1968).

    `samples`: (seconds, value). A step in one minute does not move the median, a steady leak does. Raises ValueError for
    fewer than five samples.
    """
    count = len(samples)
    if count < 5:
        raise ValueError(f"five samples are needed, there are {count}")
    slopes = sorted((b[1] - a[1]) / (b[0] - a[0]) * 3600.0 for a, b in combinations(samples, 2) if b[0] != a[0])
    spread = CONFIDENCE * math.sqrt(count * (count - 1) * (2 * count + 5) / 18.0)
    low = int(max(0, math.floor((len(slopes) - spread) / 2)))
    high = int(min(len(slopes) - 1, math.ceil((len(slopes) + spread) / 2)))
    return Slope(median(slopes), slopes[low], slopes[high])
