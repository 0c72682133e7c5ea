"""Percentiles of measured values by nearest rank: every one that is told occurred."""

from __future__ import annotations

import math
from collections.abc import Sequence


def nearest_rank(ordered: Sequence[float], share: float) -> float | None:
    """The least value that `share` of them are not above; None of none. `ordered`: ascending. `share`: in (0, 1]."""
    # Rounded, because 0.95 of 20 is 19, whatever floating point makes of it.
    return ordered[max(1, math.ceil(round(len(ordered) * share, 6))) - 1] if ordered else None


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The same, but None where no value lies beyond it, as p99.9 of 500 values (the middle always exists)."""
    if share > 0.5 and round(len(ordered) * (1 - share), 6) < 1:
        return None
    return nearest_rank(ordered, share)
