"""Reading a task's life."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from agent_engines.adapters.keyset import Place, decode_cursor, encode_cursor, page_size
from agent_engines.domain.errors import NotFound
from agent_engines.domain.moments import LAST_MOMENT
from agent_engines.domain.tasks import TaskStatus, TaskView
from agent_engines.ports.ledger import (
    ENDED_BYTES,
    AttemptView,
    DeadLetter,
    LetterFilter,
    Page,
    Several,
    TaskFilter,
)

from . import rows
from .pool import Pool, Row

_UNHAPPY = frozenset({TaskStatus.FAILED, TaskStatus.DEAD_LETTER, TaskStatus.CANCELLED, TaskStatus.EXPIRED})


class PostgresTaskReader:
    """See ports/ledger.py: TaskReader."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def task(self, task_id: str) -> TaskView:
        found = (await self.several([task_id])).items
        if not found:
            raise NotFound(f"no task {task_id}")
        return found[0]

    async def origin(self, task_id: str) -> str:
        found = await self._pool.fetch("origin", task_id)
        return found[0]["origin"] if found else ""

    async def several(self, task_ids: Sequence[str], most_bytes: int = ENDED_BYTES) -> Several:
        return await self._some("several", task_ids, most_bytes)

    async def ended(self, task_ids: Sequence[str]) -> Several:
        return await self._some("ended", task_ids, ENDED_BYTES)

    async def tasks(self, wanted: TaskFilter) -> Page:
        place, limit = decode_cursor(wanted.cursor), page_size(wanted.limit)
        found = await self._pool.fetch_afresh(
            _page_query(wanted.status),
            place.micros,
            place.key,
            wanted.since or 0.0,
            wanted.status and str(wanted.status),
            wanted.task_type,
            wanted.agent,
            limit + 1,
        )
        views = [rows.read_view(row) for row in found[:limit]]
        more = len(found) > limit
        return Page(views, encode_cursor(Place.of(views[-1].submitted_at, views[-1].task_id)) if more else None)

    async def attempts(self, task_id: str) -> list[AttemptView]:
        return [
            AttemptView(
                attempt=row["attempt"],
                generation=row["generation"],
                agent=row["agent"],
                replica=row["replica"],
                status=TaskStatus(row["status"]),
                started_at=rows.seconds(row["started_at"]),
                completed_at=rows.seconds(row["completed_at"]),
                error_type=row["error_type"],
                error_message=row["error"],
            )
            for row in await self._pool.fetch("attempts", task_id)
        ]

    async def dead_letters(self, limit: int, cursor: str | None) -> Page:
        place, limit = decode_cursor(cursor), page_size(limit)
        found = await self._pool.fetch_afresh("dead_letters", place.micros, place.key, limit + 1)
        letters = [_dead_letter(row) for row in found[:limit]]
        more = len(found) > limit
        return Page(letters, encode_cursor(Place.of(letters[-1].created_at, letters[-1].task_id)) if more else None)

    async def letters(self, wanted: LetterFilter) -> Page:
        place, limit = decode_cursor(wanted.cursor), page_size(wanted.limit)
        found = await self._pool.fetch_afresh("letters", place.micros, place.key, *_letter_filter(wanted), limit + 1)
        letters = [_dead_letter(row) for row in found[:limit]]
        more = len(found) > limit
        return Page(letters, encode_cursor(Place.of(letters[-1].created_at, letters[-1].task_id)) if more else None)

    async def count_letters(self, wanted: LetterFilter) -> int:
        return (await self._pool.fetch_afresh("count_letters", *_letter_filter(wanted)))[0]["letters"]

    async def dead_letter(self, task_id: str) -> DeadLetter:
        return _dead_letter(await self._one("dead_letter", task_id))

    async def counts(self) -> dict[str, int]:
        """Looks at every outcome that is kept."""
        return {row["status"]: row["tasks"] for row in await self._pool.fetch_afresh("counts")}

    async def _some(self, name: str, task_ids: Sequence[str], most_bytes: int) -> Several:
        # An identifier that cannot even be asked for (a NUL in it) was never given out.
        found = await self._pool.fetch(name, [one for one in task_ids if one.isprintable()], most_bytes)
        return Several([rows.read_view(row) for row in found], more=bool(found) and found[0]["found"] > len(found))

    async def _one(self, name: str, task_id: str) -> Row:
        try:
            found = await self._pool.fetch(name, task_id)
        except asyncpg.DataError as error:
            # An identifier that cannot even be asked for (a NUL in it) was never given out.
            raise NotFound(f"no task {task_id!r}") from error
        if not found:
            raise NotFound(f"task {task_id} is no dead letter")
        return found[0]


def _page_query(status: TaskStatus | None) -> str:
    if status is None or status is TaskStatus.SUCCESS:
        return "tasks_page"
    return "tasks_page_unhappy" if status in _UNHAPPY else "tasks_page_open"


def _letter_filter(wanted: LetterFilter) -> list[Any]:
    since = 0.0 if wanted.since is None else wanted.since
    until = LAST_MOMENT if wanted.until is None else wanted.until
    return [since, until, wanted.task_type, wanted.agent, wanted.reason, wanted.waiting]


def _dead_letter(row: Row) -> DeadLetter:
    return DeadLetter(
        task_id=row["task_id"],
        task_type=row["task_type"],
        agent=row["agent"],
        reason=row["reason"],
        attempts=row["attempts"],
        created_at=row["created_at"].timestamp(),
        redriven_at=rows.seconds(row["redriven_at"]),
    )
