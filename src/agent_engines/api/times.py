"""Times at the edge: ISO 8601 UTC with milliseconds and Z outside, epoch seconds inside."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from agent_engines.domain.errors import InvalidRequest
from agent_engines.domain.iso_times import LAST, iso


def iso_always(seconds: float) -> str:
    return iso(seconds) or ""


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


def _from_iso(text: str, field: str) -> float:
    # A '+' of a zone arrives as a blank when the caller did not encode it.
    try:
        moment = datetime.fromisoformat(text.strip().replace(" ", "+") if "T" in text else text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{field} is not a time: use ISO 8601 as in 2030-01-31T12:00:00Z, or epoch seconds", field=field
        ) from None
