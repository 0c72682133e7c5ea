"""Time as an argument."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Epoch seconds: for what is stored and sent."""
        ...

    def monotonic(self) -> float:
        """Seconds that never jump: for durations."""
        ...

    async def sleep(self, seconds: float) -> None: ...
