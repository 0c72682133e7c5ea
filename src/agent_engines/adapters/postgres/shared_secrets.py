"""Secrets the routers share."""

from __future__ import annotations

from agent_engines.domain.errors import Unavailable

from .pool import Pool

LOOKS = 5


class PostgresSecrets:
    """See ports/secrets.py: SharedSecrets."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def shared(self, name: str, proposed: bytes) -> bytes:
        for _ in range(LOOKS):
            rows = await self._pool.fetch("shared_secret", name, proposed)
            if rows:
                return bytes(rows[0]["value"])
        raise Unavailable(f"the shared secret {name} could not be settled")
