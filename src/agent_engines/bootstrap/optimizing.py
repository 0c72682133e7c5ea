"""The process of the optimizing engine: `engines run optimizing`. It reads the decision history."""

from __future__ import annotations

from agent_engines.config import Config
from agent_engines.engines.optimizing import OptimizingEngine

from .connect import connect_bus, telemetry_for
from .custom import adopt_settings
from .observer import observed
from .process import Hosted, run
from .routing import installed_policies
from .stores import with_ledger

POOL = 2
"""It reads the ledger once in a while, one query at a time."""


def run_optimizing(config: Config) -> int:
    """Host it until a signal comes; returns the exit code."""

    async def assemble() -> Hosted:
        engine = OptimizingEngine(policies=installed_policies())
        adopt_settings(engine, config)
        telemetry = telemetry_for(config, "optimizing")
        connections = await connect_bus(config, telemetry, engine.config.agent_id)
        connections = await with_ledger(connections, config, pool_min=1, pool_max=POOL)
        return observed(engine, connections, config, telemetry)

    return run(assemble)
