"""The process of the router: `engines run intelligence`."""

from __future__ import annotations

from importlib.metadata import version

from agent_engines.api.app import create_app
from agent_engines.api.limits import ApiLimits
from agent_engines.config import Config
from agent_engines.dashboard import STATIC
from agent_engines.engines.intelligence import IntelligenceEngine

from .connect import connect_bus, telemetry_for
from .custom import adopt_settings
from .observer import hosted
from .process import Hosted, run
from .routing import routing_options
from .stores import with_cache, with_ledger


def run_intelligence(config: Config) -> int:
    """Host the router with its HTTP API until a signal comes; returns the exit code."""

    async def assemble() -> Hosted:
        engine = IntelligenceEngine(
            retention_days=config.engines_retention_days,
            routing=routing_options(config),
            capability_keys=config.engines_capability_key.split(",") if config.engines_capability_key else (),
        )
        adopt_settings(engine, config)
        telemetry = telemetry_for(config, "intelligence")
        connections = await connect_bus(config, telemetry, engine.config.agent_id)
        connections = await with_ledger(
            connections, config, pool_min=config.postgres_pool_min, pool_max=config.postgres_pool_max
        )
        connections = with_cache(connections, config)
        if connections.discovery is not None:
            connections.discovery.follow()
        app = create_app(
            engine,
            limits=ApiLimits(body_bytes=config.engines_max_body_bytes),
            metrics=telemetry.render_metrics,
            telemetry=telemetry,
            clock=connections.clock,
            version=version("agent-engines"),
            dashboard=STATIC,
        )
        return hosted(engine, connections, config, app, telemetry)

    return run(assemble)
