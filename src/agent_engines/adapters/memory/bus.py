"""The whole bus in one process: for tests, notebooks and the profile without servers."""

from __future__ import annotations

from agent_engines.adapters.clock import SystemClock
from agent_engines.ports.clock import Clock
from agent_engines.ports.telemetry import Log
from agent_engines.runtime.plain_log import PlainLog

from .journal import MemoryJournal
from .lessons import MemoryLessons
from .queues import Power
from .reports import MemoryReports
from .settings import MemorySettings
from .signals import MemorySignals
from .tasks import MemoryTasks


class MemoryBus:
    """Implements ports.bus.Bus. Messages travel as bytes, exactly as over the real bus.

    `safe`: pretend that it survives a power cut, so that routers use its journal. `switch(False)` makes every call raise Unavailable until `switch(True)`: an outage without a server.
    """

    def __init__(
        self,
        *,
        lease_seconds: float = 30.0,
        max_tasks_per_class: int = 2_000_000,
        max_message_bytes: int = 8 << 20,
        max_journal_entries: int = 1_000_000,
        safe: bool = False,
        clock: Clock | None = None,
        log: Log | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self._power = Power()
        self._max_message_bytes = max_message_bytes
        self._closed = False
        self.tasks = MemoryTasks(
            clock, self._power, lease_seconds=lease_seconds, limit=max_tasks_per_class, max_bytes=max_message_bytes
        )
        self.reports = MemoryReports(clock, self._power, lease_seconds=lease_seconds, max_bytes=max_message_bytes)
        self.journal = MemoryJournal(
            clock, self._power, lease_seconds=lease_seconds, limit=max_journal_entries, max_bytes=max_message_bytes
        )
        self.lessons = MemoryLessons(self._power, max_bytes=max_message_bytes)
        self._safe = safe
        self.signals = MemorySignals(self._power, log or PlainLog("bus"))
        self.settings = MemorySettings(clock, self._power)

    @property
    def safe(self) -> bool:
        return self._safe

    @property
    def connected(self) -> bool:
        return self._power.on

    @property
    def max_message_bytes(self) -> int:
        return self._max_message_bytes

    def switch(self, on: bool) -> None:
        """Take the bus away, or bring it back with everything it held."""
        self._power.on = on and not self._closed

    async def check(self) -> bool:
        return self._power.on

    async def provision(self) -> None:
        self._power.check()

    async def close(self) -> None:
        self._closed = True
        self._power.on = False
        await self.signals.close()
        await self.settings.close()
