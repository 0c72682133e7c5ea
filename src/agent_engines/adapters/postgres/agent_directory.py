"""The `agents` table: who was ever there."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agent_engines.domain.agents import AgentMode, AgentProfile, modes_noted
from agent_engines.ports.ledger import AgentRecord

from . import rows
from .pool import Pool


class PostgresAgentDirectory:
    """See ports/ledger.py: AgentDirectory."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def register(self, profiles: Sequence[AgentProfile], now: float) -> dict[str, AgentMode]:
        # One row cannot be inserted and updated by one statement: the last word of each name counts.
        latest = sorted({profile.name: profile for profile in profiles}.values(), key=lambda profile: profile.name)
        noted = await self._pool.fetch(
            "register",
            [profile.name for profile in latest],
            [profile.agent_type for profile in latest],
            [rows.json_text(profile.capabilities) for profile in latest],
            [rows.json_text(profile.metadata) for profile in latest],
            now,
        )
        return modes_noted((row["name"], row["status"]) for row in noted)

    async def seen(self, names: Sequence[str], now: float) -> None:
        await self._pool.fetch("seen", sorted(names), now)

    async def set_status(self, name: str, status: str) -> None:
        await self._pool.fetch("set_status", name, status)

    async def agents(self) -> list[AgentRecord]:
        return [
            AgentRecord(
                name=row["name"],
                agent_type=row["agent_type"],
                status=row["status"],
                capabilities=msgspec.json.decode(row["capabilities"]),
                metadata=msgspec.json.decode(row["metadata"], type=dict),
                created_at=row["created_at"].timestamp(),
                last_seen=rows.seconds(row["last_seen"]),
            )
            for row in await self._pool.fetch("agents")
        ]
