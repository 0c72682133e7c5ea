"""Undivided: work in pieces that a stop waits for, instead of cancelling it between two steps that belong together."""

from __future__ import annotations

import asyncio
import contextlib


class Undivided:
    """`async with` it around each piece. After `close` nobody begins another one: who asks waits to be cancelled."""

    def __init__(self) -> None:
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    async def __aenter__(self) -> None:
        if self._closed:
            await asyncio.Event().wait()
        self._under_way += 1
        self._idle.clear()

    async def __aexit__(self, *_: object) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._idle.set()

    async def close(self, seconds: float) -> None:
        """Let no more begin and wait, at most so long, for those under way. May be called twice."""
        self._closed = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
