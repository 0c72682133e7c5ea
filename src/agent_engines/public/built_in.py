"""The three built-in engines for programs that host them themselves."""

from __future__ import annotations

from agent_engines.bootstrap.routing import installed_policies, routing_options
from agent_engines.bootstrap.stores import with_cache, with_ledger
from agent_engines.config import Config
from agent_engines.engines import intelligence, optimizing, performance
from agent_engines.ports.connections import Connections

from .self_connecting import SelfConnecting


class IntelligenceEngine(SelfConnecting, intelligence.IntelligenceEngine):
    """Routes every task; see `engines.intelligence`."""

    async def connect(self, config: Config) -> Connections:
        if self.routing is None:
            self.routing = routing_options(config)
        connections = await super().connect(config)
        connections = await with_ledger(
            connections, config, pool_min=config.postgres_pool_min, pool_max=config.postgres_pool_max
        )
        return with_cache(connections, config)


class PerformanceEngine(SelfConnecting, performance.PerformanceEngine):
    """Watches; see `engines.performance`."""


class OptimizingEngine(SelfConnecting, optimizing.OptimizingEngine):
    """Judges policies; see `engines.optimizing`."""

    async def connect(self, config: Config) -> Connections:
        self.judges(installed_policies())
        return await with_ledger(await super().connect(config), config, pool_min=1, pool_max=2)
