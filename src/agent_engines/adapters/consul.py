"""Discovery by Consul: each process registers itself with a TTL check, and who wants follows the list.

Nothing waits for Consul: while it is away the last list stays, the loops try again, and everything else goes on.
"""

from __future__ import annotations

import asyncio
from random import Random

from agent_engines.domain.errors import Unavailable
from agent_engines.ports.clock import Clock
from agent_engines.ports.discovery import Instance
from agent_engines.ports.telemetry import Telemetry
from agent_engines.runtime.background import Background
from agent_engines.runtime.dependency import Dependency

from .consul_client import TTL_SECONDS, ConsulClient, next_index

RENEW_SECONDS = TTL_SECONDS / 3
AGAIN_SECONDS = 2.0
"""Pause after a failure, give or take a quarter, so that a fleet does not come back in one moment."""
CALM_SECONDS = 0.5
"""Between two answers of a blocking query: one that returns at once must not spin."""
GOODBYE_SECONDS = 1.0


class ConsulDiscovery:
    """Implements ports.discovery.Discovery."""

    def __init__(self, client: ConsulClient, *, clock: Clock, telemetry: Telemetry, rng: Random | None = None) -> None:
        self._client = client
        self._clock = clock
        self._log = telemetry.log("discovery")
        self._rng = rng or Random()
        self._dependency = Dependency("consul", clock=clock, telemetry=telemetry)
        self._background = Background(self._log)
        self._peers: tuple[Instance, ...] = ()
        self._announced: Instance | None = None
        self._keeping: asyncio.Task[None] | None = None

    def announce(self, instance: Instance) -> None:
        self._announced = instance
        self._keeping = self._background.keep("consul-keep", lambda: self._keep(instance))

    def follow(self) -> None:
        self._background.keep("consul-follow", self._follow)

    def peers(self) -> tuple[Instance, ...]:
        return self._peers

    async def withdraw(self) -> None:
        instance, self._announced = self._announced, None
        if instance is None:
            return
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._client.deregister(instance)
        except (TimeoutError, Unavailable) as error:
            self._log.info("Consul was not told of the end; the entry runs out", error=str(error))

    async def check(self) -> bool:
        if self._dependency.away:
            return False
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                return await self._client.leader()
        except (TimeoutError, Unavailable) as error:
            self._dependency.failed(type(error).__name__)
            return False

    async def close(self) -> None:
        await self._background.stop()
        await self._client.close()

    async def _keep(self, instance: Instance) -> None:
        """Registered, and renewed at a third of the TTL; registered again whenever a renewal fails for whatever reason."""
        known = False
        while True:
            try:
                await (self._client.passing(instance) if known else self._client.register(instance))
            except Unavailable as error:
                known = False
                await self._failed("Not registered with Consul", error)
                continue
            if not known:
                self._log.info("Registered with Consul", replica=instance.replica, port=instance.port)
            known = True
            self._dependency.worked()
            await self._clock.sleep(RENEW_SECONDS)

    async def _follow(self) -> None:
        index = 0
        while True:
            try:
                peers, now = await self._client.instances(index)
            except Unavailable as error:
                # Whatever answers next may be another server with another count.
                index = 0
                await self._failed("Consul's list could not be had, the last one stays", error)
                continue
            self._peers = peers
            self._dependency.worked()
            index = next_index(index, now)
            await self._clock.sleep(CALM_SECONDS)

    async def _failed(self, message: str, error: Unavailable) -> None:
        self._dependency.failed(error.detail.rpartition(": ")[2])
        self._log.debug(message, error=error.detail)
        await self._clock.sleep(AGAIN_SECONDS * (0.75 + self._rng.random() / 2))
