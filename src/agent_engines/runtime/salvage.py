"""What can be saved of a task message that nobody can read: at least which task it was."""

from __future__ import annotations

import re

import msgspec

from agent_engines.domain.messages import TaskMessage

_TEXT_FIELD = re.compile(rb'"(task_id|request_id|task_type|origin)"\s*:\s*"([^"\\\x00-\x1f]{1,255})"')
_GENERATION = re.compile(rb'"generation"\s*:\s*(\d{1,9})\b')
_CAPABILITY = re.compile(rb'"capability"\s*:\s*"([0-9a-f.]{1,255})"')


def salvaged(raw: bytes, agent: str) -> TaskMessage | None:
    """What unreadable bytes say about their task; None when not even its id is in them."""
    found: dict[str, str] = {}
    for name, value in _TEXT_FIELD.findall(raw):
        found.setdefault(name.decode(), value.decode("utf-8", "replace"))
    task_id = found.get("task_id")
    if task_id is None:
        return None
    generation = _GENERATION.search(raw)
    # The router's stands behind the payload, which may hold anything.
    capability = _CAPABILITY.findall(raw)
    return TaskMessage(
        task_id=task_id,
        request_id=found.get("request_id", task_id),
        task_type=found.get("task_type", "unknown"),
        agent=agent,
        generation=int(generation[1]) if generation else 1,
        origin=found.get("origin", ""),
        payload=msgspec.Raw(b"null"),
        capability=capability[-1].decode() if capability else "",
    )
