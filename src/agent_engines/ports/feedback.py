"""Where judgements of finished work are kept, and what the front doors may do with them."""

from __future__ import annotations

from typing import Protocol

from agent_engines.domain.feedback import Feedback, FeedbackDraft


class FeedbackStore(Protocol):
    """Part of the ledger. Every call may be repeated and raises Unavailable past its deadline.

    `TaskLedger.record` takes FEEDBACK reports: RECORDED the first time, when routers are to learn it, then DUPLICATE.
    """

    async def add(self, task_id: str, draft: FeedbackDraft, now: float) -> Feedback:
        """Judge the task's present end; the judgement that is there when it is the same.

        Raises NotFound (no such task), Conflict (not ended, or this source said something else).
        """
        ...

    async def of(self, task_id: str) -> list[Feedback]:
        """All judgements of a task, oldest first; empty also for a task nobody knows."""
        ...

    async def untold(self, older_than: float, limit: int) -> list[Feedback]:
        """Judgements made before `older_than` that no router learned yet, oldest first; only of work an agent did."""
        ...


class FeedbackService(Protocol):
    """What the front doors may do. Every method raises Unavailable."""

    async def give(self, task_id: str, draft: FeedbackDraft) -> Feedback:
        """Store it and let the routers learn. Raises InvalidRequest (the field named), NotFound, Conflict."""
        ...

    async def of(self, task_id: str) -> list[Feedback]:
        """Raises NotFound."""
        ...
