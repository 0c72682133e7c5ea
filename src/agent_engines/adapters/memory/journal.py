"""The journal in memory."""

from __future__ import annotations

from collections.abc import Sequence

from agent_engines.adapters import wire
from agent_engines.domain.errors import Conflict, QueueFull, TooLarge
from agent_engines.domain.journal import JournalEntry, LogState
from agent_engines.ports.bus import JournalDelivery
from agent_engines.ports.clock import Clock

from .queues import Held, LeasedQueue, LogInbox, Power


class MemoryJournal:
    """Implements ports.bus.Journal. `limit`: entries it holds that the ledger does not have."""

    def __init__(self, clock: Clock, power: Power, *, lease_seconds: float, limit: int, max_bytes: int) -> None:
        self._power = power
        self._limit = limit
        self._max_bytes = max_bytes
        self._queue = LeasedQueue(clock, lease_seconds=lease_seconds)
        self._entries: dict[str, bytes] = {}

    async def publish_entries(self, entries: Sequence[JournalEntry]) -> list[Exception | None]:
        self._power.check()
        return [self._publish(entry) for entry in entries]

    async def find(self, task_id: str) -> JournalEntry | None:
        self._power.check()
        raw = self._entries.get(wire.valid_task_id(task_id))
        return None if raw is None else wire.decode_entry(raw)

    async def open_journal(self) -> LogInbox[JournalDelivery]:
        self._power.check()
        return LogInbox(self._power, self._queue, _read)

    async def state(self) -> LogState:
        self._power.check()
        return LogState(last=len(self._queue))

    async def trim(self, before: int) -> None:
        """Nothing: a test ends before the memory does."""

    def _publish(self, entry: JournalEntry) -> Exception | None:
        raw = wire.encode(entry)
        try:
            wire.check_size(raw, self._max_bytes)
        except TooLarge as error:
            return error
        if entry.task.task_id in self._entries:
            return Conflict("the journal has an entry of this task")
        if len(self._queue) >= self._limit:
            return QueueFull(f"the journal holds {self._limit} tasks and takes no more")
        self._entries[entry.task.task_id] = raw
        self._queue.put(raw)
        return None


def _read(held: Held) -> JournalDelivery:
    return JournalDelivery(wire.decode_entry(held.raw), held.sequence)
