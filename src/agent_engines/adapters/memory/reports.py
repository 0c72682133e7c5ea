"""The report log and task progress in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence

from agent_engines.adapters import wire
from agent_engines.domain.agents import validated_agent_id
from agent_engines.domain.journal import LogState
from agent_engines.domain.messages import Progress, Report
from agent_engines.ports.bus import ReportDelivery
from agent_engines.ports.clock import Clock

from .queues import Held, LeasedQueue, LogInbox, Power

MAX_PROGRESS = 100_000
"""Progress messages kept; the oldest go first."""


class MemoryReports:
    """Implements ports.bus.ReportBus."""

    def __init__(self, clock: Clock, power: Power, *, lease_seconds: float, max_bytes: int) -> None:
        self._power = power
        self._max_bytes = max_bytes
        self._queue = LeasedQueue(clock, lease_seconds=lease_seconds)
        self._progress: deque[tuple[int, str, bytes]] = deque(maxlen=MAX_PROGRESS)
        self._sequence = 0
        self._followers: set[asyncio.Event] = set()

    async def publish_reports(self, agent: str, reports: Sequence[Report]) -> None:
        self._power.check()
        validated_agent_id(agent)
        for message_id, raw in wire.report_messages(reports, self._max_bytes // 2):
            wire.check_size(raw, self._max_bytes)
            self._queue.put(raw, message_id)

    async def open_reports(self) -> LogInbox[ReportDelivery]:
        self._power.check()
        return LogInbox(self._power, self._queue, _read)

    async def state(self) -> LogState:
        """What is recorded is gone, so all that is there waits."""
        self._power.check()
        return LogState(last=len(self._queue))

    async def trim(self, before: int) -> None:
        """Nothing: what is recorded is gone already."""

    async def publish_progress(self, progress: Progress) -> None:
        self._power.check()
        wire.valid_task_id(progress.task_id)
        raw = wire.encode(progress)
        wire.check_size(raw, self._max_bytes)
        self._sequence += 1
        self._progress.append((self._sequence, progress.task_id, raw))
        for follower in self._followers:
            follower.set()

    async def follow_progress(self, task_id: str, after: int = 0) -> AsyncGenerator[tuple[int, Progress], None]:
        self._power.check()
        wire.valid_task_id(task_id)
        news = asyncio.Event()
        self._followers.add(news)
        try:
            while True:
                news.clear()
                stored = [entry for entry in self._progress if entry[1] == task_id and entry[0] > after]
                for sequence, _, raw in stored:
                    after = sequence
                    yield sequence, wire.decode_progress(raw)
                if not stored:
                    await news.wait()
        finally:
            self._followers.discard(news)

    @property
    def followers(self) -> int:
        """How many iterators are open."""
        return len(self._followers)


def _read(held: Held) -> ReportDelivery:
    return ReportDelivery(wire.decode_reports(held.raw), held.sequence)
