"""The outcome feed: what this router has recorded, for everybody who learns from all outcomes.

Those who wait for a task hear of it at once (runtime/recorder.py). Other routers and the statistics can wait for a moment:
told together, a trickle of tasks wakes them fifty times a second instead of once for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agent_engines.domain.capability import Capabilities
from agent_engines.ports.bus import Bus
from agent_engines.ports.clock import Clock
from agent_engines.ports.telemetry import Log

from .background import Background
from .broadcasts import tell_learners
from .naps import nap
from .outcomes import Outcome

TOGETHER_SECONDS = 0.02
MOST_TOGETHER = 500


class OutcomeFeed:
    """Start it once per router; `put` what was recorded. What is lost on the way is healed by whoever needs it."""

    def __init__(self, bus: Bus, capabilities: Capabilities, *, router: str, clock: Clock, log: Log) -> None:
        self._bus = bus
        self._router = router
        self._seal = capabilities.seal
        self._clock = clock
        self._background = Background(log)
        self._untold: list[Outcome] = []
        self._some = asyncio.Event()
        self._many = asyncio.Event()

    async def start(self) -> None:
        self._background.keep("outcome-feed", self._tell_for_ever)

    async def stop(self) -> None:
        """Tell what is left. May be called twice."""
        await self._background.stop()
        await self._tell()

    def put(self, outcomes: Sequence[Outcome]) -> None:
        self._untold += outcomes
        self._some.set()
        if len(self._untold) >= MOST_TOGETHER:
            self._many.set()

    async def _tell_for_ever(self) -> None:
        while True:
            await self._some.wait()
            await nap(self._clock, TOGETHER_SECONDS, self._many)
            await self._tell()

    async def _tell(self) -> None:
        untold, self._untold = self._untold, []
        self._some.clear()
        self._many.clear()
        if untold:
            await tell_learners(self._bus, self._router, untold, self._seal)
