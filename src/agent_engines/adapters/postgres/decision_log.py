"""The record of every choice."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from agent_engines.adapters.keyset import Place, decode_cursor, encode_cursor, page_size
from agent_engines.domain.decisions import Decision
from agent_engines.domain.errors import InvalidRequest, NotFound
from agent_engines.domain.tasks import TaskStatus
from agent_engines.ports.ledger import DecisionFilter, LoggedDecision, Page

from . import rows
from .pool import Pool, Row

MAX_HISTORY = 100_000


class PostgresDecisionLog:
    """See ports/ledger.py: DecisionLog."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def log(self, decisions: Sequence[Decision]) -> None:
        """Raises InvalidRequest when one cannot be stored."""
        if not decisions:
            return
        try:
            await self._pool.fetch(
                "add_decision",
                *rows.decision_columns(decisions),
                [decision.task_type for decision in decisions],
                [None] * len(decisions),
                [None] * len(decisions),
            )
        except asyncpg.DataError as error:
            raise InvalidRequest(f"the decision cannot be stored: {error}") from error

    async def decision(self, request_id: str) -> Decision:
        try:
            found = await self._pool.fetch("decision", request_id)
        except asyncpg.DataError as error:
            raise NotFound(f"no decision {request_id!r}") from error
        if not found:
            raise NotFound(f"no decision {request_id}")
        return rows.read_decision(found[0])

    async def decisions(self, wanted: DecisionFilter) -> Page:
        place, limit = decode_cursor(wanted.cursor), page_size(wanted.limit)
        bounds = (place.micros, _row_id(place, wanted.cursor), wanted.since or 0.0, wanted.agent, limit + 1)
        if wanted.task_type is None:
            found = await self._pool.fetch_afresh("decisions_page", *bounds)
        else:
            found = await self._pool.fetch_afresh("decisions_page_of_type", *bounds, wanted.task_type)
        page = [rows.read_decision(row) for row in found[:limit]]
        more = len(found) > limit
        last = Place.of(page[-1].created_at, str(found[limit - 1]["id"])) if more else None
        return Page(page, encode_cursor(last) if last else None)

    async def history(self, since: float, limit: int) -> list[LoggedDecision]:
        found = await self._pool.fetch("history", since, min(max(limit, 1), MAX_HISTORY))
        return [_logged(row, rows.read_decision(row)) for row in found]

    async def outlines(self, since: float, limit: int) -> list[LoggedDecision]:
        found = await self._pool.fetch("outlines", since, min(max(limit, 1), MAX_HISTORY))
        return [_logged(row, rows.read_outline(row)) for row in found]

    async def outlines_of(self, request_ids: Sequence[str]) -> list[LoggedDecision]:
        found = await self._pool.fetch("outlines_of", list(request_ids))
        return [_logged(row, rows.read_outline(row)) for row in found]


def _logged(row: Row, decision: Decision) -> LoggedDecision:
    return LoggedDecision(
        decision=decision,
        status=None if row["status"] is None else TaskStatus(row["status"]),
        quality=row["quality"],
        cost=row["cost"],
        execution_time_ms=row["execution_time_ms"],
    )


def _row_id(place: Place, cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not place.key.isascii() or not place.key.isdigit() or len(place.key) > 18:
        raise InvalidRequest("cursor is not one of this list: start again without it", field="cursor")
    return int(place.key)
