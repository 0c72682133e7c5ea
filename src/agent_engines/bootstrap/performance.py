"""The process of the performance engine: `engines run performance`. It needs the bus only."""

from __future__ import annotations

from agent_engines.config import Config
from agent_engines.engines.performance import PerformanceEngine

from .connect import connect_bus, telemetry_for
from .custom import adopt_settings
from .observer import observed
from .process import Hosted, run


def run_performance(config: Config) -> int:
    """Host it until a signal comes; returns the exit code."""

    async def assemble() -> Hosted:
        engine = PerformanceEngine()
        adopt_settings(engine, config)
        telemetry = telemetry_for(config, "performance")
        connections = await connect_bus(config, telemetry, engine.config.agent_id)
        return observed(engine, connections, config, telemetry)

    return run(assemble)
