"""Times for the outside: ISO 8601 UTC with milliseconds and Z. Inside they are epoch seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

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


def with_iso_times(data: Mapping[str, Any]) -> dict[str, Any]:
    """A document of the bus for the outside: its own fields that name a moment (`..._at`, `at`, `deadline`) as ISO 8601."""
    return {name: iso(value) if _is_moment(name, value) else value for name, value in data.items()}


def _is_moment(name: str, value: Any) -> bool:
    return isinstance(value, int | float) and (name.endswith("_at") or name in ("at", "deadline"))
