"""What the processes without an API of their own have in common: probes, metrics, and an orderly end."""

from __future__ import annotations

import asyncio

from agent_engines.adapters.http_server import HttpServer
from agent_engines.adapters.telemetry.telemetry import ProcessTelemetry
from agent_engines.api.edge import Edge
from agent_engines.api.ops import create_ops_app
from agent_engines.config import Config
from agent_engines.ports.connections import Connections
from agent_engines.runtime.engine import Engine

from .discovery import instance_of
from .process import Hosted


def observed(engine: Engine, connections: Connections, config: Config, telemetry: ProcessTelemetry) -> Hosted:
    """An engine behind /health, /ready, /livez and /metrics."""
    app = create_ops_app(engine, metrics=telemetry.render_metrics, telemetry=telemetry)
    return hosted(engine, connections, config, app, telemetry)


def hosted(engine: Engine, connections: Connections, config: Config, app: Edge, telemetry: ProcessTelemetry) -> Hosted:
    """An engine behind any application; closing releases cache, ledger and bus, then flushes what was told."""
    server = HttpServer(app, host=config.agent_http_host, port=config.agent_http_port, drain=app.begin_drain)

    def announce() -> None:
        if connections.discovery is not None:
            connections.discovery.announce(instance_of(engine, config.agent_http_host, server.port))

    async def close() -> None:
        if connections.discovery is not None:
            await connections.discovery.close()
        if connections.cache is not None:
            await connections.cache.close()
        if connections.ledger is not None:
            await connections.ledger.close()
        await connections.bus.close()
        # In a thread: the last spans go out over blocking HTTP.
        await asyncio.to_thread(telemetry.shutdown)

    return Hosted(engine, connections, server, close, announce)
