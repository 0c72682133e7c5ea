"""Snapshots of what the routers have learned, packed."""

from __future__ import annotations

import zlib

from agent_engines.ports.learned import LearnedSnapshot

from .pool import Pool

KEPT = 3


class PostgresLearned:
    """See ports/learned.py: LearnedStore."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def save(self, snapshot: LearnedSnapshot, now: float) -> None:
        packed = zlib.compress(snapshot.state, 1)
        await self._pool.fetch("save_learned", snapshot.name, snapshot.sequence, snapshot.digest, packed, now)
        await self._pool.fetch("forget_learned", snapshot.name, KEPT)

    async def newest(self, prefix: str) -> LearnedSnapshot | None:
        found = await self._pool.fetch("newest_learned", prefix)
        if not found:
            return None
        row = found[0]
        return LearnedSnapshot(
            name=row["name"],
            sequence=row["sequence"],
            digest=row["digest"],
            state=zlib.decompress(row["state"]),
        )
