"""What every ledger derives the same way when it shows a task."""

from __future__ import annotations

from agent_engines.domain.tasks import TaskStatus


def attempts_made(status: TaskStatus, *, attempt: int | None, last: int | None, delivery: int | None) -> int:
    """Attempts that were started: `last` is the outcome's attempt, whose delivery is 0 when nobody ran it."""
    if last is not None:
        return last if delivery else last - 1
    return (attempt or 1) - 1 if status is TaskStatus.QUEUED else attempt or 1


def trace_id(traceparent: str | None) -> str | None:
    """The second field of a W3C traceparent (`00-<trace>-<span>-<flags>`)."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) >= 4 else None
