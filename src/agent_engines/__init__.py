"""Agent Engines: a production runtime for fleets of agents.

Public names are loaded on first use, so that an agent's process loads no database driver and no HTTP client
(docs/adr/0006). Everything not listed in `__all__` is private.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_engines.domain.agents import AgentState
    from agent_engines.domain.decisions import Decision, DecisionContext, Recommendation
    from agent_engines.domain.errors import AgentEnginesError, PermanentFailure, RetryLater, TaskFailed
    from agent_engines.domain.tasks import TaskRequest, TaskStatus
    from agent_engines.learning.policy import HedgingPolicy, RoutingPolicy
    from agent_engines.public.built_in import IntelligenceEngine, OptimizingEngine, PerformanceEngine
    from agent_engines.public.client import Client, SyncClient
    from agent_engines.public.engine import AgentConfig, Engine, TaskContext

__all__ = [
    "AgentConfig",
    "AgentEnginesError",
    "AgentState",
    "Client",
    "Decision",
    "DecisionContext",
    "Engine",
    "HedgingPolicy",
    "IntelligenceEngine",
    "OptimizingEngine",
    "PerformanceEngine",
    "PermanentFailure",
    "Recommendation",
    "RetryLater",
    "RoutingPolicy",
    "SyncClient",
    "TaskContext",
    "TaskFailed",
    "TaskRequest",
    "TaskStatus",
]

_HOMES = {
    "domain.agents": ("AgentState",),
    "domain.decisions": ("Decision", "DecisionContext", "Recommendation"),
    "domain.errors": ("AgentEnginesError", "PermanentFailure", "RetryLater", "TaskFailed"),
    "domain.tasks": ("TaskRequest", "TaskStatus"),
    "learning.policy": ("HedgingPolicy", "RoutingPolicy"),
    "public.built_in": ("IntelligenceEngine", "OptimizingEngine", "PerformanceEngine"),
    "public.client": ("Client", "SyncClient"),
    "public.engine": ("AgentConfig", "Engine", "TaskContext"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
