"""Engines that connect by themselves: `start()` without connections opens those the environment describes."""

from __future__ import annotations

import asyncio

from agent_engines.adapters.telemetry.telemetry import ProcessTelemetry
from agent_engines.bootstrap.connect import connect_bus, telemetry_for
from agent_engines.config import Config, load_config
from agent_engines.ports.connections import Connections
from agent_engines.runtime.engine import Engine


class SelfConnecting(Engine):
    """To be mixed in before an engine class. What it opened it closes; connections that were given stay open."""

    _own: Connections | None = None

    async def start(self, connections: Connections | None = None) -> None:
        """Connect and take work. Raises ConfigurationError, Unavailable (try again), Conflict (started already)."""
        if connections is not None:
            await super().start(connections)
            return
        opened = await self.connect(load_config())
        try:
            await super().start(opened)
        except BaseException:
            # Its own only: what an engine that runs already works with stays open.
            await _closed(opened)
            raise
        self._own = opened

    async def stop(self, grace: float | None = None) -> None:
        await super().stop(grace)
        own, self._own = self._own, None
        if own is not None:
            await _closed(own)

    async def connect(self, config: Config) -> Connections:
        """The connections this kind of engine needs."""
        return await connect_bus(config, telemetry_for(config, self.agent_type), self.config.agent_id)


async def _closed(own: Connections) -> None:
    """Let go of everything, then send off what was told: the last spans leave only now."""
    if own.discovery is not None:
        await own.discovery.close()
    if own.cache is not None:
        await own.cache.close()
    if own.ledger is not None:
        await own.ledger.close()
    await own.bus.close()
    if isinstance(own.telemetry, ProcessTelemetry):
        # In a thread: the last spans go out over blocking HTTP.
        await asyncio.to_thread(own.telemetry.shutdown)
