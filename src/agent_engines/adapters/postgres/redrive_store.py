"""Redrives on PostgreSQL."""

from __future__ import annotations

import msgspec

from agent_engines.domain.errors import Conflict
from agent_engines.domain.redrives import Redrive, RedriveOrder, RedriveState

from . import rows
from .pool import Pool, Row

_decode_order = msgspec.json.Decoder(RedriveOrder).decode


class PostgresRedrives:
    """See ports/redrives.py: RedriveStore."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def begin(self, redrive: Redrive) -> None:
        order = rows.json_text(redrive.order)
        if not await self._pool.fetch("redrive_begin", redrive.id, order, redrive.matched, redrive.started_at):
            raise Conflict("another redrive is running: wait for it, or stop it")

    async def latest(self) -> Redrive | None:
        return _first(await self._pool.fetch("redrive_latest"))

    async def claim(self, router: str, now: float, until: float) -> Redrive | None:
        return _first(await self._pool.fetch("redrive_claim", router, now, until))

    async def note(self, redrive: Redrive, router: str, until: float) -> bool:
        return bool(
            await self._pool.fetch(
                "redrive_note",
                redrive.id,
                router,
                redrive.redriven,
                redrive.skipped,
                redrive.updated_at,
                redrive.last_error,
                until,
            )
        )

    async def end(self, redrive_id: str, state: RedriveState, now: float) -> Redrive | None:
        return _first(await self._pool.fetch("redrive_end", redrive_id, str(state), now))


def _first(found: list[Row]) -> Redrive | None:
    if not found:
        return None
    row = found[0]
    return Redrive(
        id=row["id"],
        order=_decode_order(row["orders"]),
        state=RedriveState(row["state"]),
        matched=row["matched"],
        redriven=row["redriven"],
        skipped=row["skipped"],
        started_at=row["started_at"].timestamp(),
        updated_at=row["updated_at"].timestamp(),
        last_error=row["last_error"],
    )
