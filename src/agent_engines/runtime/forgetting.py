"""Forgetting: what ended longer ago than the retention is deleted, a little at a time, by the router that leads."""

from __future__ import annotations

from collections.abc import Callable

from agent_engines.ports.clock import Clock
from agent_engines.ports.retention import Retention
from agent_engines.ports.telemetry import Log

from .background import Background

DAY = 86_400.0
FIRST_SECONDS = 300.0
"""Not in the first minutes, when a restarted router has better things to do."""
PERIOD_SECONDS = 3600.0


class Forgetting:
    """Runs in the background from `start` to `stop`."""

    def __init__(
        self, retention: Retention, clock: Clock, log: Log, *, days: float, leads: Callable[[], bool] = lambda: True
    ) -> None:
        self._retention = retention
        self._clock = clock
        self._log = log
        self._days = days
        self._leads = leads
        self._background = Background(log)

    async def start(self) -> None:
        self._background.keep("forgetting", self._forget_for_ever, pause=PERIOD_SECONDS)

    async def stop(self) -> None:
        """May be called twice."""
        await self._background.stop()

    async def _forget_for_ever(self) -> None:
        await self._clock.sleep(FIRST_SECONDS)
        while True:
            if not self._leads():
                await self._clock.sleep(FIRST_SECONDS)
                continue
            gone = await self._retention.purge(self._clock.now() - self._days * DAY)
            if gone.tasks or gone.results or gone.decisions:
                self._log.info("Old rows deleted", tasks=gone.tasks, results=gone.results, decisions=gone.decisions)
            await self._clock.sleep(PERIOD_SECONDS)
