"""A bounded cache in memory: the least recently used goes first."""

from __future__ import annotations

from collections import OrderedDict

from agent_engines.adapters.clock import SystemClock
from agent_engines.ports.clock import Clock


class MemoryCache:
    """Implements ports.cache.Cache for one process."""

    def __init__(self, *, max_entries: int = 10_000, clock: Clock | None = None) -> None:
        self._max_entries = max_entries
        self._clock = clock or SystemClock()
        self._entries: OrderedDict[str, tuple[bytes, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, key: str) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, expires = entry
        if expires <= self._clock.monotonic():
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return value

    async def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        if ttl_seconds <= 0:
            self._entries.pop(key, None)
            return
        self._entries[key] = (value, self._clock.monotonic() + ttl_seconds)
        self._entries.move_to_end(key)
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)

    async def delete(self, key: str) -> None:
        self._entries.pop(key, None)

    async def check(self) -> bool:
        return True

    async def close(self) -> None:
        self._entries.clear()
