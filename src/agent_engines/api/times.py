"""Times at the edge: ISO 8601 UTC with milliseconds and Z outside, epoch seconds inside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from agent_engines.domain.errors import InvalidRequest

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST = datetime(9999, 12, 31, tzinfo=UTC).timestamp()


def iso(seconds: float | None) -> str | None:
    """`1970-01-01T00:00:00.000Z` for 0.0; None for None. Times before 1970 or past the year 9999 are cut to those ends.

    Never later than the moment itself, so that `?since=` with a time we wrote finds what it was written for; the
    microsecond of tolerance makes up for how epoch seconds are kept in a double.
    """
    if seconds is None:
        return None
    whole = EPOCH + timedelta(milliseconds=math.floor(min(max(seconds, 0.0), LAST) * 1000 + 0.001))
    return whole.isoformat(timespec="milliseconds")[:-6] + "Z"


def iso_always(seconds: float) -> str:
    return iso(seconds) or ""


def with_iso_times(data: Mapping[str, Any]) -> dict[str, Any]:
    """A document of the bus for the outside: its own fields that name a moment (`..._at`, `at`, `deadline`) as ISO 8601."""
    return {name: iso(value) if _is_moment(name, value) else value for name, value in data.items()}


def parsed_time(text: str, *, field: str) -> float:
    """Epoch seconds from ISO 8601 (UTC when it names no zone) or from a plain number of epoch seconds.

    Raises InvalidRequest naming `field`.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = _from_iso(text, field)
    if math.isfinite(seconds) and 0.0 <= seconds <= LAST:
        return seconds
    raise InvalidRequest(f"{field} must lie between 1970 and 9999", field=field)


def _is_moment(name: str, value: Any) -> bool:
    return isinstance(value, int | float) and (name.endswith("_at") or name in ("at", "deadline"))


def _from_iso(text: str, field: str) -> float:
    # A '+' of a zone arrives as a blank when the caller did not encode it.
    try:
        moment = datetime.fromisoformat(text.strip().replace(" ", "+") if "T" in text else text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{field} is not a time: use ISO 8601 as in 2030-01-31T12:00:00Z, or epoch seconds", field=field
        ) from None
