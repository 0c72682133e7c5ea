"""Feedback on real servers: one router is told, every router learns it, once."""

from __future__ import annotations

from typing import Any

from agent_engines.domain.decisions import DecisionContext
from agent_engines.domain.feedback import FeedbackDraft
from agent_engines.domain.tasks import TaskRequest, TaskStatus
from agent_engines.engines.intelligence import IntelligenceEngine
from agent_engines.runtime.engine import Engine
from site_house import PATIENCE, holds, two_routers


def worker() -> Engine:
    engine = Engine("worker")

    @engine.task("write")
    async def write(payload: Any) -> Any:
        return payload

    return engine


async def quality(router: IntelligenceEngine, name: str) -> float | None:
    decision = await router.recommend(DecisionContext(request_id=name, task_type="write"))
    return decision.candidates[0].quality


async def test_every_router_learns_what_one_was_told(nats_url: str, postgres_url: str) -> None:
    async with two_routers(nats_url, postgres_url, [worker()]) as site:
        await site.hears("write", 1)
        task = await site.submitted(TaskRequest(task_type="write", payload="text"))
        view = await site.two.task(task.task_id, wait=PATIENCE)
        assert view.status is TaskStatus.SUCCESS

        async def taught(least: float, most: float) -> bool:
            """Both expect the same of the agent, and that much."""
            one, two = await quality(site.one, "one"), await quality(site.two, "two")
            return one is not None and one == two and least < one < most

        await holds(lambda: taught(0.86, 1.0))
        await site.one.feedback.give(task.task_id, FeedbackDraft(quality=0.0, source="validator"))
        await holds(lambda: taught(0.0, 0.8))
        again = await site.two.feedback.give(task.task_id, FeedbackDraft(quality=0.0, source="validator"))
        assert again.recorded_at is not None
        rows = await site.sql("SELECT source, quality, recorded_at IS NOT NULL AS told FROM task_feedback")
        assert [tuple(row) for row in rows] == [("validator", 0.0, True)]
