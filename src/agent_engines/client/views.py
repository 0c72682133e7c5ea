"""Tasks as the HTTP API writes them (ISO 8601) become TaskView (epoch seconds)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from agent_engines.domain.tasks import TaskView

_TIMES = ("submitted_at", "started_at", "completed_at", "deadline", "run_at")


def task_view(body: dict[str, Any]) -> TaskView:
    """Raises msgspec.ValidationError when it is no task."""
    known = dict(body)
    for name in _TIMES:
        known[name] = seconds(known.get(name))
    if known.get("submitted_at") is None:
        known["submitted_at"] = 0.0
    known["terms"] = {name: known[name] for name in ("tenant", "budget", "affinity") if known.get(name) is not None}
    return msgspec.convert(known, TaskView)


def seconds(value: Any) -> float | None:
    """Epoch seconds from ISO 8601 or a number; None for None."""
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return None if value is None else float(value)
