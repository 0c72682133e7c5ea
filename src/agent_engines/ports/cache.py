"""The cache: fast, shared, losable. Nothing in it is needed for a right answer."""

from __future__ import annotations

from typing import Protocol


class Cache(Protocol):
    """Never raises for trouble of its own: a cache that is down answers None and False."""

    async def get(self, key: str) -> bytes | None: ...

    async def set(self, key: str, value: bytes, ttl_seconds: float) -> None: ...

    async def delete(self, key: str) -> None: ...

    async def check(self) -> bool:
        """A real round trip within its deadline (100 ms)."""
        ...

    async def close(self) -> None: ...
