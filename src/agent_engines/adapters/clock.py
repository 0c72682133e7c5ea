"""The machine's own time."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """Wall clock for what is stored, monotonic clock for durations."""

    # Not methods of ours: they are asked several times for each task, and a Python frame costs more than the answer.
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
