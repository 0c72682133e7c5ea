"""The agent of the comparison: an async handler that does nothing, with the settings of every agent."""

from __future__ import annotations

from typing import Any

from agent_engines import Engine

engine = Engine("noop")


@engine.task("noop", idempotent=True)
async def noop(payload: Any) -> None:
    """What it is given is thrown away."""
