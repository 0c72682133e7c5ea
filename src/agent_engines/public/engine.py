"""The engine users write handlers for."""

from __future__ import annotations

from agent_engines.runtime.agent_config import AgentConfig
from agent_engines.runtime.context import TaskContext

from .self_connecting import SelfConnecting

__all__ = ["AgentConfig", "Engine", "TaskContext"]


class Engine(SelfConnecting):
    """Hosts handlers. `Engine("hello")` is short for `Engine(AgentConfig(agent_id="hello"))`. Raises InvalidRequest."""
