"""Numbers from numbers: percentiles, and the middle and spread of repeated runs."""

from __future__ import annotations

from collections.abc import Sequence

from agent_engines.domain.percentiles import percentile

PERCENTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}


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
