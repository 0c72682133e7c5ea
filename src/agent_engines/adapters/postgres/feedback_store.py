"""Feedback on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent_engines.domain.errors import Conflict, NotFound
from agent_engines.domain.feedback import Feedback, FeedbackDraft, feedback_of, settled
from agent_engines.domain.messages import Report
from agent_engines.domain.tasks import TaskStatus

from .pool import UNSTORABLE, Pool, Row
from .rows import seconds


class PostgresFeedback:
    """See ports/feedback.py: FeedbackStore."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, task_id: str, draft: FeedbackDraft, now: float) -> Feedback:
        try:
            added = await self._pool.fetch(
                "feedback_add", task_id, draft.source, float(draft.quality), draft.comment, now
            )
        except UNSTORABLE as error:
            raise NotFound(f"no task {task_id!r}") from error
        if added:
            return _read(added[0])
        known = await self._pool.fetch("feedback_known", task_id, draft.source)
        if known:
            return settled(_read(known[0]), draft)
        standing = await self._pool.fetch("standing", task_id)
        if not standing:
            raise NotFound(f"no task {task_id}")
        raise Conflict(f"task {task_id} is {standing[0]['status']}: only work that has ended can be judged")

    async def of(self, task_id: str) -> list[Feedback]:
        return [_read(row) for row in await self._pool.fetch("feedback_of", task_id)]

    async def untold(self, older_than: float, limit: int) -> list[Feedback]:
        return [_read(row) for row in await self._pool.fetch("feedback_untold", older_than, limit)]


def feedback_columns(reports: Sequence[Report]) -> list[list[Any]]:
    """Arguments of `record_feedback`; the place is the position in `reports`."""
    told = [feedback_of(report, 0.0) for report in reports]
    return [
        list(range(len(told))),
        [one.task_id for one in told],
        [one.generation for one in told],
        [one.attempt for one in told],
        [one.task_type for one in told],
        [one.agent for one in told],
        [str(one.status) for one in told],
        [one.source for one in told],
        [one.quality for one in told],
        [one.comment for one in told],
        [one.created_at for one in told],
    ]


def _read(row: Row) -> Feedback:
    return Feedback(
        task_id=row["task_id"],
        generation=row["generation"],
        attempt=row["attempt"],
        task_type=row["task_type"],
        agent=row["agent"],
        status=TaskStatus(row["status"]),
        source=row["source"],
        quality=row["quality"],
        comment=row["comment"],
        created_at=row["created_at"].timestamp(),
        recorded_at=seconds(row["recorded_at"]),
    )
