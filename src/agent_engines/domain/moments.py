"""Moments a caller names: deadlines and times before which a task must not run."""

from __future__ import annotations

import math
from datetime import datetime

from .errors import InvalidRequest

LAST_MOMENT = 253_402_300_799
"""The end of the year 9999, which is as far as ISO 8601 texts and the ledger go."""
LONGEST_AHEAD = 366 * 86_400.0
"""How far ahead a task may be planned: a leap year, so that "the same day next year" always fits."""


def parsed_moment(field: str, value: float | str | None) -> float | None:
    """Epoch seconds of a number or an ISO 8601 text with an offset. Raises InvalidRequest naming `field`."""
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise InvalidRequest(f"{field} {value[:64]!r} is not an ISO 8601 time", field=field) from None
    if moment.tzinfo is None:
        raise InvalidRequest(f"{field} needs an offset, such as Z or +02:00", field=field)
    try:
        return moment.timestamp()
    except (OverflowError, ValueError):
        raise InvalidRequest(f"{field} is out of range", field=field) from None


def check_deadline(deadline: object, now: float) -> None:
    """Raises InvalidRequest unless it lies in the future."""
    if isinstance(deadline, bool) or not isinstance(deadline, int | float):
        raise InvalidRequest(f"deadline must be a number, not {type(deadline).__name__}", field="deadline")
    if not math.isfinite(deadline):
        raise InvalidRequest("deadline must be a finite number", field="deadline")
    if deadline <= now:
        raise InvalidRequest(f"deadline passed {now - deadline:.3f} seconds ago", field="deadline")
    if deadline > LAST_MOMENT:
        raise InvalidRequest("deadline is after the year 9999; it is in epoch seconds", field="deadline")


def check_run_at(run_at: object, deadline: float | None, now: float) -> None:
    """A time that has passed means now. Raises InvalidRequest unless it is at most a year ahead and before the deadline."""
    if isinstance(run_at, bool) or not isinstance(run_at, int | float):
        raise InvalidRequest(f"run_at must be a number, not {type(run_at).__name__}", field="run_at")
    if not math.isfinite(run_at) or run_at < 0:
        raise InvalidRequest("run_at must be a finite number of epoch seconds", field="run_at")
    if run_at > now + LONGEST_AHEAD:
        raise InvalidRequest("run_at is more than 366 days ahead", field="run_at")
    if deadline is not None and run_at >= deadline:
        raise InvalidRequest("run_at must lie before the deadline", field="run_at")
