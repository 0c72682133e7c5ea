"""Engines that connect by themselves: `start()` without connections opens those the environment describes."""

from __future__ import annotations

from agent_engines.bootstrap.connect import connect_bus, telemetry_for
from agent_engines.config import Config, load_config
from agent_engines.ports.connections import Connections
from agent_engines.runtime.engine import Engine


class SelfConnecting(Engine):
    """To be mixed in before an engine class. What it opened it closes; connections that were given stay open."""

    _own: Connections | None = None

    async def start(self, connections: Connections | None = None) -> None:
        """Connect and take work. Raises ConfigurationError, Unavailable (try again), Conflict (started already)."""
        if connections is None:
            connections = self._own = await self.connect(load_config())
        try:
            await super().start(connections)
        except BaseException:
            await self._disconnect()
            raise

    async def stop(self, grace: float | None = None) -> None:
        await super().stop(grace)
        await self._disconnect()

    async def connect(self, config: Config) -> Connections:
        """The connections this kind of engine needs."""
        return await connect_bus(config, telemetry_for(config, self.agent_type), self.config.agent_id)

    async def _disconnect(self) -> None:
        own, self._own = self._own, None
        if own is None:
            return
        if own.cache is not None:
            await own.cache.close()
        if own.ledger is not None:
            await own.ledger.close()
        await own.bus.close()
