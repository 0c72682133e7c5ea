"""Redrives: many dead letters sent on their way again, at a bounded rate."""

from __future__ import annotations

import math
from enum import StrEnum

import msgspec

from .errors import InvalidRequest

DEFAULT_RATE = 50.0
MAX_RATE = 1000.0
"""Dead letters a second; more would keep routers from what is new."""


class RedriveState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"


class RedriveOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters (those not redriven yet that match everything named) and how many a second.

    `reason`: a part of the reason; `since`: given up at or after, epoch seconds; `limit`: at most so many.
    """

    task_type: str | None = None
    agent: str | None = None
    reason: str | None = None
    since: float | None = None
    limit: int | None = None
    rate: float = DEFAULT_RATE


class Redrive(msgspec.Struct, frozen=True, kw_only=True):
    """One order and how far it got. `skipped`: somebody else took care of them, or what they were to do is forgotten."""

    id: str
    order: RedriveOrder
    state: RedriveState
    matched: int
    redriven: int = 0
    skipped: int = 0
    started_at: float
    """Letters that were given up later are not part of it."""
    updated_at: float
    last_error: str | None = None


def check_order(order: RedriveOrder) -> None:
    """Raises InvalidRequest naming the field."""
    if not math.isfinite(order.rate) or not 0 < order.rate <= MAX_RATE:
        raise InvalidRequest(f"rate must be above 0 and at most {MAX_RATE:g} a second", field="rate")
    if order.limit is not None and order.limit < 1:
        raise InvalidRequest("limit must be 1 or more", field="limit")
    for field in ("task_type", "agent", "reason"):
        value = getattr(order, field)
        if value is not None and ("\0" in value or not 1 <= len(value) <= 255):
            raise InvalidRequest(f"{field} must have 1 to 255 characters and no NUL", field=field)
