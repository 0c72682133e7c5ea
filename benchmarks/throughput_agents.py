"""Agents that differ in nothing but their names, for `throughput.py --agents`: `throughput_agents:agent_3`."""

from __future__ import annotations

from typing import Any

from agent_engines import AgentConfig, Engine


def __getattr__(name: str) -> Engine:
    if not name.startswith("agent_"):
        raise AttributeError(name)
    engine = Engine(AgentConfig(agent_id=name.replace("_", "-")), metadata={"cost_per_task": 0.001})

    @engine.task("bench", idempotent=True)
    async def bench(payload: dict[str, Any]) -> dict[str, Any]:
        return payload

    return engine
