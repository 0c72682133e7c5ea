"""Looks whether the server is there: while it is away about once a second, else only when calls get no answer.

Probes have a connection of their own: a pool whose connections all wait for locks is not a server that is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from agent_engines.runtime.background import Background
from agent_engines.runtime.dependency import Dependency
from agent_engines.runtime.plain_log import PlainLog

LOOK_SECONDS = 0.25
SILENT_SECONDS = 2.0
"""Calls are under way and none has been answered for this long: worth a probe."""
PROBE_SECONDS = 2.0


class Keeper:
    """Tell it when calls begin and end; it tells the dependency what its probes find. `back` is called after an absence."""

    def __init__(
        self, dependency: Dependency, probe: Callable[[], Awaitable[None]], *, back: Callable[[], Awaitable[None]]
    ) -> None:
        self._dependency = dependency
        self._probe = probe
        self._back = back
        self._waiting = 0
        self._heard = 0.0
        self._background = Background(PlainLog("ledger"))

    def start(self) -> None:
        self._background.keep("postgres-keeper", self._keep)

    async def stop(self) -> None:
        await self._background.stop()

    def began(self) -> None:
        """A call is under way."""
        if self._waiting == 0:
            self._heard = asyncio.get_running_loop().time()
        self._waiting += 1

    def ended(self, *, answered: bool) -> None:
        """It is over; `answered`: the server said something, if only an error."""
        self._waiting -= 1
        if answered:
            self._heard = asyncio.get_running_loop().time()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            permit = self._dependency.probe()
            if permit is not None:
                trouble = await self._asked()
                self._dependency.probed(permit, not trouble, trouble)
                if not trouble:
                    await self._back()
            elif not self._dependency.away and self._silent():
                trouble = await self._asked()
                if not trouble:
                    self._heard = asyncio.get_running_loop().time()
                elif self._silent():
                    self._dependency.silent(trouble)

    def _silent(self) -> bool:
        return self._waiting > 0 and asyncio.get_running_loop().time() - self._heard > SILENT_SECONDS

    async def _asked(self) -> str:
        """What is wrong; empty when the server answers."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._probe()
        except Exception as error:
            # Whatever it is: a server that cannot be asked this is not there for anybody.
            return type(error).__name__
        return ""
