"""Routing as the environment wants it, with the policies that installed packages offer."""

from __future__ import annotations

from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from agent_engines.config import Config
from agent_engines.domain.errors import ConfigurationError
from agent_engines.engines.routing import RoutingOptions
from agent_engines.learning.policy import ENTRY_POINT_GROUP, RoutingPolicy
from agent_engines.runtime.shipped_strategies import SHIPPED, PolicyMaker
from agent_engines.runtime.strategies import StrategyChoice


def routing_options(config: Config) -> RoutingOptions:
    """Raises ConfigurationError naming the variable and the strategies there are."""
    policies = installed_policies()
    by_task_type = dict(config.routing_strategies or {})
    known = sorted({*SHIPPED, *policies})
    wanted = [
        ("ROUTING_STRATEGY", config.routing_strategy),
        *(("ROUTING_STRATEGIES", name) for name in by_task_type.values()),
    ]
    problems = [
        f"{variable}={name!r} is not allowed: use {', '.join(known)}" for variable, name in wanted if name not in known
    ]
    if config.routing_fallback not in SHIPPED:
        problems.append(f"ROUTING_FALLBACK={config.routing_fallback!r} is not allowed: use {', '.join(SHIPPED)}")
    if problems:
        raise ConfigurationError(problems)
    return RoutingOptions(
        choice=StrategyChoice(
            default=config.routing_strategy, by_task_type=by_task_type, fallback=config.routing_fallback
        ),
        price=config.routing_price,
        texts=dict(config.routing_text or {}),
        policies=policies,
        hedging=config.routing_hedging,
        pacing=config.routing_pacing,
    )


def installed_policies() -> dict[str, PolicyMaker]:
    """What packages offer under `agent_engines.policies`; nothing is imported before it is wanted."""
    return {entry.name: partial(_made, entry) for entry in entry_points(group=ENTRY_POINT_GROUP)}


def _made(entry: EntryPoint, seed: int) -> RoutingPolicy:
    make: Any = entry.load()
    return make(seed)
