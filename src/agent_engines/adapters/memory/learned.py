"""Snapshots of what the routers have learned, in memory."""

from __future__ import annotations

from agent_engines.ports.learned import LearnedSnapshot


class MemoryLearned:
    """See ports/learned.py: LearnedStore."""

    def __init__(self) -> None:
        self._saved: list[LearnedSnapshot] = []

    async def save(self, snapshot: LearnedSnapshot, now: float) -> None:
        self._saved.append(snapshot)
        del self._saved[:-3]

    async def newest(self, prefix: str) -> LearnedSnapshot | None:
        return next((one for one in reversed(self._saved) if one.name.startswith(prefix)), None)
