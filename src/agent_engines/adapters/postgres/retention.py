"""Forgetting what is old enough."""

from __future__ import annotations

from agent_engines.ports.retention import Purged

from .pool import Pool

BATCH = 2_000


class PostgresRetention:
    """See ports/retention.py: Retention."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def purge(self, older_than: float) -> Purged:
        tasks = results = decisions = 0
        while True:
            gone = (await self._pool.fetch("purge_tasks", older_than, BATCH))[0]
            tasks += gone["tasks"]
            results += gone["results"]
            if gone["results"] < BATCH:
                break
        await self._pool.fetch("purge_spending", older_than)
        while True:
            removed = len(await self._pool.fetch("purge_decisions", older_than, BATCH))
            decisions += removed
            if removed < BATCH:
                return Purged(tasks, results, decisions)
