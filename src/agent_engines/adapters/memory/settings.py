"""Shared settings in memory: revisions, compare-and-set, expiry, watchers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from agent_engines.domain.errors import Conflict
from agent_engines.ports.clock import Clock

from .queues import Power

Change = tuple[str, bytes | None]


class MemorySettings:
    """Implements ports.bus.Settings."""

    def __init__(self, clock: Clock, power: Power) -> None:
        self._clock = clock
        self._power = power
        self._values: dict[str, tuple[bytes, int]] = {}
        self._revision = 0
        self._watchers: dict[asyncio.Queue[Change], str] = {}
        self._expiries: set[asyncio.Task[None]] = set()

    async def get(self, key: str) -> tuple[bytes, int] | None:
        self._power.check()
        return self._values.get(key)

    async def put(self, key: str, value: bytes, *, revision: int | None = None, ttl: float | None = None) -> int:
        self._power.check()
        stored = self._values.get(key)
        if revision is not None and revision != (stored[1] if stored else 0):
            raise Conflict(f"the setting {key} changed meanwhile")
        self._revision += 1
        self._values[key] = (value, self._revision)
        self._tell(key, value)
        if ttl is not None:
            task = asyncio.get_running_loop().create_task(self._expire(key, self._revision, ttl))
            self._expiries.add(task)
            task.add_done_callback(self._expiries.discard)
        return self._revision

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        self._power.check()
        stored = self._values.get(key)
        if revision is not None and revision != (stored[1] if stored else 0):
            raise Conflict(f"the setting {key} changed meanwhile")
        if self._values.pop(key, None) is not None:
            self._revision += 1
            self._tell(key, None)

    async def watch(self, prefix: str) -> AsyncGenerator[Change, None]:
        self._power.check()
        changes: asyncio.Queue[Change] = asyncio.Queue()
        for key, (value, _) in self._values.items():
            if key.startswith(prefix):
                changes.put_nowait((key, value))
        self._watchers[changes] = prefix
        try:
            while True:
                yield await changes.get()
        finally:
            del self._watchers[changes]

    async def close(self) -> None:
        for task in list(self._expiries):
            task.cancel()
        await asyncio.gather(*self._expiries, return_exceptions=True)

    async def _expire(self, key: str, revision: int, ttl: float) -> None:
        await self._clock.sleep(ttl)
        stored = self._values.get(key)
        if stored is not None and stored[1] == revision:
            del self._values[key]
            self._tell(key, None)

    def _tell(self, key: str, value: bytes | None) -> None:
        for changes, prefix in self._watchers.items():
            if key.startswith(prefix):
                changes.put_nowait((key, value))
