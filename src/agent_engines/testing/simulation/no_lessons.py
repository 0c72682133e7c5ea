"""The simulated routers share no lessons: what they learn is not what the simulation looks at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from agent_engines.domain.errors import Unavailable
from agent_engines.domain.journal import LogState


class NoLessons:
    """Implements ports.bus.LessonLog by refusing, and by never telling anything."""

    async def publish(self, router: str, data: bytes, message_id: str) -> None:
        raise Unavailable("lessons are not simulated")

    async def follow(self, after: int) -> AsyncGenerator[tuple[int, bytes], None]:
        await asyncio.get_running_loop().create_future()
        yield 0, b""

    async def identity(self) -> str:
        return "none"

    async def state(self) -> LogState:
        return LogState()
