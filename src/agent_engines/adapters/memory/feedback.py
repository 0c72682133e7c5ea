"""Feedback in memory."""

from __future__ import annotations

from msgspec.structs import replace

from agent_engines.domain.errors import Conflict, NotFound
from agent_engines.domain.feedback import Feedback, FeedbackDraft, feedback_of, settled
from agent_engines.domain.messages import Report
from agent_engines.ports.ledger import Verdict

from .ledger_tables import Tables


class MemoryFeedback:
    """See ports/feedback.py: FeedbackStore."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, task_id: str, draft: FeedbackDraft, now: float) -> Feedback:
        outcome = self._tables.outcomes.get(task_id)
        if outcome is None:
            row = self._tables.tasks.get(task_id)
            if row is None:
                raise NotFound(f"no task {task_id}")
            raise Conflict(f"task {task_id} is {row.status}: only work that has ended can be judged")
        report = outcome.report
        known = self._tables.feedback.get((task_id, report.generation, draft.source))
        if known is not None:
            return settled(known, draft)
        added = Feedback(
            task_id=task_id,
            generation=report.generation,
            attempt=report.attempt,
            task_type=report.task_type,
            agent=report.agent,
            status=report.status,
            source=draft.source,
            quality=draft.quality,
            comment=draft.comment,
            created_at=now,
        )
        self._tables.feedback[task_id, report.generation, draft.source] = added
        return added

    async def of(self, task_id: str) -> list[Feedback]:
        found = [one for one in self._tables.feedback.values() if one.task_id == task_id]
        return sorted(found, key=lambda one: (one.created_at, one.generation, one.source))

    async def untold(self, older_than: float, limit: int) -> list[Feedback]:
        untold = [
            one
            for one in self._tables.feedback.values()
            if one.recorded_at is None and one.agent is not None and one.created_at < older_than
        ]
        return sorted(untold, key=lambda one: (one.created_at, one.task_id))[:limit]


def record_feedback(tables: Tables, report: Report) -> Verdict:
    """Mark a judgement as learned; one that is not there (an older copy of the tables) is written from its report."""
    told = feedback_of(report, tables.clock.now())
    key = (told.task_id, told.generation, told.source)
    known = tables.feedback.get(key)
    if known is not None and known.recorded_at is not None:
        return Verdict.DUPLICATE
    tables.feedback[key] = told if known is None else replace(known, recorded_at=told.recorded_at)
    return Verdict.RECORDED
