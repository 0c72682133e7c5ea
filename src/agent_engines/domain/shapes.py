"""The shape of data in the place of the data: what it is made of and how large it is, and nothing it says."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

PLAIN = frozenset(
    {
        "agent",
        "agent_id",
        "attempt",
        "attempts",
        "candidates",
        "completed_at",
        "confidence",
        "cost",
        "created_at",
        "deadline",
        "deterministic",
        "durability",
        "eligible",
        "error",
        "execution_time_ms",
        "explanation",
        "explored",
        "fallback",
        "generation",
        "hedge",
        "id",
        "max_attempts",
        "next_cursor",
        "policy_version",
        "priority",
        "propensity",
        "quality",
        "reason",
        "reasoning",
        "redriven_at",
        "rejected",
        "request_id",
        "selected_agent",
        "started_at",
        "state_sequence",
        "status",
        "strategy",
        "submitted_at",
        "task_id",
        "task_type",
        "tenant",
        "terms",
        "timeout_seconds",
        "trace_id",
        "updated_at",
    }
)
"""Fields of tasks, decisions and dead letters that say how it went. All others may be somebody's data."""
DEPTH = 6
MOST_FIELDS = 40


def shape(value: Any, depth: int = DEPTH) -> Any:
    """`{"name": "text of 12"}`, `["list of 3", "number"]`."""
    if isinstance(value, dict):
        # Names of fields are shown: they are the schema. Of very many (a map by customer) only how many there are.
        if depth == 0 or len(value) > MOST_FIELDS:
            return f"object of {len(value)}"
        return {str(name): shape(item, depth - 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [f"list of {len(value)}", *([shape(value[0], depth - 1)] if value and depth else [])]
    if isinstance(value, str):
        return f"text of {len(value)}"
    if value is None or isinstance(value, bool):
        return value
    return "number" if isinstance(value, int | float) else type(value).__name__


def outlined(record: Any, plain: Collection[str] = PLAIN) -> Any:
    """A record with its plain fields as they are and the shape of the rest; a page of records item by item."""
    if isinstance(record, dict) and isinstance(record.get("items"), list):
        return {**record, "items": [outlined(item, plain) for item in record["items"]]}
    if not isinstance(record, dict):
        return shape(record)
    return {name: _kept(name, value) if name in plain else shape(value) for name, value in record.items()}


def _kept(name: str, value: Any) -> Any:
    """A plain field as it is; of an error its words, not what else it may carry."""
    if name == "error" and isinstance(value, dict):
        return {key: item if key in ("type", "message", "retryable") else shape(item) for key, item in value.items()}
    return value
