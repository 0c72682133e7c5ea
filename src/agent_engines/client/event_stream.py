"""Server-sent events, as far as we use them: id, event, data."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import msgspec

from agent_engines.ports.service import TaskEvent


async def task_events(lines: AsyncIterable[str]) -> AsyncIterator[TaskEvent]:
    """Events from the lines of a stream; comments, unknown fields and broken data are skipped (HTML standard, 9.2)."""
    name, last_id, data = "", "", list[str]()
    async for line in lines:
        if not line:
            event = _event(name, last_id, data)
            name, data = "", []
            if event is not None:
                yield event
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "id":
            last_id = value
        elif field == "data":
            data.append(value)


def _event(name: str, last_id: str, data: list[str]) -> TaskEvent | None:
    if not name or not data:
        return None
    try:
        content: Any = msgspec.json.decode("\n".join(data))
    except msgspec.DecodeError:
        return None
    return TaskEvent(id=last_id, event=name, data=content if isinstance(content, dict) else {"value": content})
