"""What every ledger promises about feedback."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from agent_engines.domain.decisions import Decision
from agent_engines.domain.errors import Conflict, NotFound
from agent_engines.domain.feedback import FeedbackDraft, feedback_report
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.tasks import Task, TaskStatus
from agent_engines.ports.ledger import Entry, Ledger, Verdict

NOW = 1_700_000_000.0
GOOD = FeedbackDraft(quality=0.75, source="reviewer", comment="one date is wrong")


async def accepted(ledger: Ledger) -> str:
    task_id = str(uuid4())
    chosen = Decision(
        request_id=task_id,
        task_id=task_id,
        task_type="echo",
        selected_agent="ann",
        confidence=0.9,
        propensity=1.0,
        strategy="sampled",
        policy_version="v1",
        reasoning="",
        candidates=(),
        created_at=NOW,
    )
    await ledger.tasks.accept(
        [Entry(Task(task_id=task_id, request_id=task_id, task_type="echo", submitted_at=NOW), chosen)]
    )
    return task_id


def end(task_id: str, status: TaskStatus = TaskStatus.SUCCESS, **changes: Any) -> Report:
    fields: dict[str, Any] = {"agent": "ann", "completed_at": NOW + 1, "quality": 0.2, "submitted_at": NOW, **changes}
    return Report(kind=ReportKind.FINAL, task_id=task_id, request_id=task_id, task_type="echo", status=status, **fields)


async def ended(ledger: Ledger, status: TaskStatus = TaskStatus.SUCCESS, **changes: Any) -> str:
    task_id = await accepted(ledger)
    assert await ledger.tasks.record([end(task_id, status, **changes)]) == [Verdict.RECORDED]
    return task_id


async def test_ended_work_is_judged_and_the_judgement_says_whose_work_it_was(ledger: Ledger) -> None:
    task_id = await ended(ledger)
    told = await ledger.feedback.add(task_id, GOOD, NOW + 5)
    assert (told.task_id, told.generation, told.attempt, told.agent, told.task_type) == (task_id, 1, 1, "ann", "echo")
    assert (told.status, told.source, told.quality, told.comment) == (
        TaskStatus.SUCCESS,
        "reviewer",
        0.75,
        "one date is wrong",
    )
    assert (told.created_at, told.recorded_at) == (NOW + 5, None)
    assert await ledger.feedback.of(task_id) == [told]


async def test_the_same_again_changes_nothing_and_another_value_is_refused(ledger: Ledger) -> None:
    task_id = await ended(ledger)
    first = await ledger.feedback.add(task_id, GOOD, NOW + 5)
    again = FeedbackDraft(quality=0.75, source="reviewer", comment="said again")
    assert await ledger.feedback.add(task_id, again, NOW + 9) == first
    with pytest.raises(Conflict, match="0\\.75"):
        await ledger.feedback.add(task_id, FeedbackDraft(quality=0.5, source="reviewer"), NOW + 9)
    other = await ledger.feedback.add(task_id, FeedbackDraft(quality=0.5, source="customer"), NOW + 9)
    assert await ledger.feedback.of(task_id) == [first, other]


async def test_only_ended_tasks_are_judged(ledger: Ledger) -> None:
    with pytest.raises(NotFound):
        await ledger.feedback.add(str(uuid4()), GOOD, NOW)
    with pytest.raises(NotFound):
        await ledger.feedback.add("no\0id", GOOD, NOW)
    task_id = await accepted(ledger)
    with pytest.raises(Conflict, match="queued"):
        await ledger.feedback.add(task_id, GOOD, NOW)
    assert await ledger.feedback.of(task_id) == []


async def test_routers_are_told_once_and_the_outbox_empties(ledger: Ledger) -> None:
    task_id = await ended(ledger)
    told = await ledger.feedback.add(task_id, GOOD, NOW + 5)
    assert await ledger.feedback.untold(NOW + 5, 10) == []
    assert await ledger.feedback.untold(NOW + 6, 10) == [told]
    report = feedback_report(told, "")
    assert await ledger.tasks.record([report]) == [Verdict.RECORDED]
    assert await ledger.tasks.record([report]) == [Verdict.DUPLICATE]
    assert await ledger.feedback.untold(NOW + 6, 10) == []
    [kept] = await ledger.feedback.of(task_id)
    assert kept.recorded_at is not None


async def test_judgements_travel_in_one_batch_with_outcomes(ledger: Ledger) -> None:
    task_id = await ended(ledger)
    sources = ("one", "two")
    told = [await ledger.feedback.add(task_id, FeedbackDraft(quality=1, source=s), NOW + 5) for s in sources]
    fresh = await accepted(ledger)
    reports = [feedback_report(told[0], ""), end(fresh), feedback_report(told[1], ""), feedback_report(told[0], "")]
    assert await ledger.tasks.record(reports) == [
        Verdict.RECORDED,
        Verdict.RECORDED,
        Verdict.RECORDED,
        Verdict.DUPLICATE,
    ]


async def test_a_judgement_that_the_tables_lost_comes_back_from_its_report(ledger: Ledger) -> None:
    task_id = await ended(ledger)
    told = await ledger.feedback.add(task_id, GOOD, NOW + 5)
    await ledger.retention.purge(4e9)
    assert await ledger.feedback.of(task_id) == []
    assert await ledger.tasks.record([feedback_report(told, "")]) == [Verdict.RECORDED]
    [kept] = await ledger.feedback.of(task_id)
    assert (kept.source, kept.quality, kept.comment, kept.agent) == ("reviewer", 0.75, "one date is wrong", "ann")


async def test_nobody_learns_from_work_nobody_did(ledger: Ledger) -> None:
    task_id = await ended(ledger, TaskStatus.EXPIRED, agent=None, quality=None)
    told = await ledger.feedback.add(task_id, GOOD, NOW + 5)
    assert told.agent is None
    assert await ledger.feedback.untold(4e9, 10) == []


async def test_a_task_that_was_driven_again_has_a_new_end_to_judge(ledger: Ledger) -> None:
    task_id = await ended(ledger, TaskStatus.FAILED)
    await ledger.feedback.add(task_id, FeedbackDraft(quality=0), NOW + 5)
    stored = await ledger.tasks.reopen(task_id, NOW + 6)
    with pytest.raises(Conflict, match="queued"):
        await ledger.feedback.add(task_id, FeedbackDraft(quality=1), NOW + 7)
    await ledger.tasks.record([end(task_id, generation=stored.generation)])
    better = await ledger.feedback.add(task_id, FeedbackDraft(quality=1), NOW + 8)
    assert (better.generation, better.quality) == (stored.generation, 1.0)
    assert [one.quality for one in await ledger.feedback.of(task_id)] == [0.0, 1.0]


async def test_history_believes_others_before_the_handler(ledger: Ledger) -> None:
    judged, alone = await ended(ledger), await ended(ledger)
    for source, quality in (("one", 0.5), ("two", 1.0)):
        await ledger.feedback.add(judged, FeedbackDraft(quality=quality, source=source), NOW + 5)
    logged = {one.decision.task_id: one.quality for one in await ledger.decisions.history(0.0, 10)}
    assert logged == {judged: 0.75, alone: 0.2}
