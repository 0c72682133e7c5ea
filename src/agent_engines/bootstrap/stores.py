"""Ledger and cache, for the processes that have them."""

from __future__ import annotations

from dataclasses import replace

from agent_engines.adapters.postgres.ledger import PostgresLedger
from agent_engines.adapters.redis_cache import connect_cache
from agent_engines.config import Config
from agent_engines.ports.connections import Connections
from agent_engines.runtime.dependency import Dependency


async def with_ledger(connections: Connections, config: Config, *, pool_min: int, pool_max: int) -> Connections:
    """Open the ledger; the bus is closed again if that fails. Raises ConfigurationError, Unavailable."""
    try:
        config.require("POSTGRES_URL")
        log = connections.telemetry.log("ledger")
        dependency = Dependency("postgres", clock=connections.clock, telemetry=connections.telemetry)
        ledger = await PostgresLedger.connect(
            config.postgres_url, pool_min=pool_min, pool_max=pool_max, log=log, dependency=dependency
        )
    except BaseException:
        await connections.bus.close()
        raise
    try:
        await ledger.require_schema()
    except BaseException:
        await ledger.close()
        await connections.bus.close()
        raise
    return replace(connections, ledger=ledger)


def with_cache(connections: Connections, config: Config) -> Connections:
    """Add the cache if one is configured; it connects on first use and may be away for ever."""
    if not config.redis_url:
        return connections
    telemetry = connections.telemetry
    cache = connect_cache(config.redis_url, log=telemetry.log("cache"), clock=connections.clock, telemetry=telemetry)
    return replace(connections, cache=cache)
