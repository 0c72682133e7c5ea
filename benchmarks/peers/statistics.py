"""Numbers from numbers: percentiles, and the middle and spread of repeated runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

PERCENTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile; None where no value lies beyond it, as p99.9 of 500 values (the middle always exists).

    `ordered`: ascending. `share`: more than 0, less than 1.
    """
    count = len(ordered)
    if count == 0 or (share > 0.5 and round(count * (1 - share), 6) < 1):
        return None
    return ordered[math.ceil(round(count * share, 6)) - 1]


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """`PERCENTILES` of `values`, in their unit."""
    ordered = sorted(values)
    return {name: percentile(ordered, share) for name, share in PERCENTILES.items()}


def median(values: Sequence[float]) -> float | None:
    """The middle value, or the mean of the two middle ones; None of none."""
    ordered = sorted(values)
    if not ordered:
        return None
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def spread(values: Sequence[float]) -> tuple[float, float] | None:
    """(least, most); None of none."""
    return (min(values), max(values)) if values else None
