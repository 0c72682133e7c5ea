"""The log of lessons in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from agent_engines.adapters import wire
from agent_engines.domain.journal import LogState

from .queues import Power


class MemoryLessons:
    """Implements ports.bus.LessonLog."""

    def __init__(self, power: Power, *, max_bytes: int) -> None:
        self._power = power
        self._max_bytes = max_bytes
        self._stored: list[bytes] = []
        self._ids: set[str] = set()
        self._followers: set[asyncio.Event] = set()

    async def publish(self, router: str, data: bytes, message_id: str) -> None:
        self._power.check()
        wire.check_size(data, self._max_bytes)
        if message_id in self._ids:
            return
        self._ids.add(message_id)
        self._stored.append(data)
        for follower in self._followers:
            follower.set()

    async def follow(self, after: int) -> AsyncGenerator[tuple[int, bytes], None]:
        self._power.check()
        news = asyncio.Event()
        self._followers.add(news)
        try:
            while True:
                news.clear()
                while after < len(self._stored):
                    after += 1
                    yield after, self._stored[after - 1]
                await news.wait()
        finally:
            self._followers.discard(news)

    async def identity(self) -> str:
        self._power.check()
        return "memory"

    async def state(self) -> LogState:
        self._power.check()
        return LogState(last=len(self._stored))
