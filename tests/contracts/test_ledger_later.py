"""What every ledger promises about work for later: planned tasks, schedules, dead letters by filter."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import msgspec
import pytest

from agent_engines.domain.decisions import Decision
from agent_engines.domain.errors import Conflict, NotFound
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.redrives import Redrive, RedriveOrder, RedriveState
from agent_engines.domain.schedules import CatchUp, Schedule, TaskTemplate
from agent_engines.domain.tasks import Task, TaskError, TaskStatus
from agent_engines.domain.terms import Affinity, AffinityMode, Budget
from agent_engines.ports.ledger import Entry, Ledger, LetterFilter, Verdict

NOW = 1_700_000_000.0
LATER = NOW + 3600


def task(task_id: str | None = None, *, run_at: float = LATER, **fields: Any) -> Task:
    task_id = task_id or str(uuid4())
    named: dict[str, Any] = {"request_id": f"r-{task_id}", "task_type": "echo", "submitted_at": NOW, **fields}
    return Task(task_id=task_id, run_at=run_at, **named)


def decision(request_id: str, task_id: str) -> Decision:
    return Decision(
        request_id=request_id,
        task_id=task_id,
        task_type="echo",
        selected_agent="ann",
        confidence=0.9,
        propensity=1.0,
        strategy="sampled",
        policy_version="v1",
        reasoning="ann is there",
        candidates=(),
        created_at=LATER,
    )


class TestPlannedTasks:
    async def test_a_planned_task_is_queued_and_tells_its_time(self, ledger: Ledger) -> None:
        planned = task(payload=msgspec.Raw(b'{"n":1}'))
        assert await ledger.tasks.plan([planned]) == []
        view = await ledger.reader.task(planned.task_id)
        assert (view.status, view.selected_agent, view.attempts, view.run_at) == (TaskStatus.QUEUED, None, 0, LATER)

    async def test_it_is_handed_out_once_and_not_before_its_time(self, ledger: Ledger) -> None:
        planned = task(payload=msgspec.Raw(b'{"n":1}'), max_attempts=None)
        await ledger.tasks.plan([planned])
        assert await ledger.tasks.claim_due(LATER - 1, 100) == []
        [stored] = await ledger.tasks.claim_due(LATER, 100)
        assert (stored.task.task_id, stored.generation, stored.attempt) == (planned.task_id, 1, 1)
        assert bytes(stored.task.payload) == b'{"n":1}'
        assert stored.task.max_attempts is None
        assert await ledger.tasks.claim_due(LATER + 100, 100) == []

    async def test_nobody_takes_it_for_stranded_however_long_it_waits_for_a_router(self, ledger: Ledger) -> None:
        planned = task()
        await ledger.tasks.plan([planned])
        assert await ledger.tasks.claim_stranded(LATER + 1e6, 100) == []
        assert len(await ledger.tasks.claim_due(LATER + 1e6, 100)) == 1

    async def test_one_that_was_handed_out_and_then_forgotten_becomes_stranded(self, ledger: Ledger) -> None:
        planned = task()
        await ledger.tasks.plan([planned])
        await ledger.tasks.claim_due(LATER, 100)
        [stored] = await ledger.tasks.claim_stranded(4e9, 100)
        assert (stored.task.task_id, stored.generation, stored.attempt) == (planned.task_id, 2, 1)

    async def test_the_earliest_are_handed_out_first_and_no_more_than_asked_for(self, ledger: Ledger) -> None:
        planned = [task(run_at=LATER + place) for place in (3, 1, 2)]
        await ledger.tasks.plan(planned)
        first = await ledger.tasks.claim_due(LATER + 10, 2)
        assert {one.task.task_id for one in first} == {planned[1].task_id, planned[2].task_id}
        assert [one.task.task_id for one in await ledger.tasks.claim_due(LATER + 10, 2)] == [planned[0].task_id]

    async def test_it_is_cancelled_at_once_and_never_handed_out(self, ledger: Ledger) -> None:
        planned = task()
        await ledger.tasks.plan([planned])
        assert await ledger.tasks.cancel(planned.task_id, NOW + 1) is TaskStatus.CANCELLED
        assert await ledger.tasks.claim_due(LATER, 100) == []
        assert (await ledger.reader.task(planned.task_id)).status is TaskStatus.CANCELLED

    async def test_a_repeated_one_is_known_and_changes_nothing(self, ledger: Ledger) -> None:
        planned = task(idempotency_key="k", body_hash=b"one")
        await ledger.tasks.plan([planned])
        again = msgspec.structs.replace(planned, run_at=LATER + 60, body_hash=b"two", request_id="another")
        [known] = await ledger.tasks.plan([task(), again])
        assert (known.task_id, known.body_hash, known.status) == (planned.task_id, b"one", TaskStatus.QUEUED)
        assert known.decision is None
        assert (await ledger.reader.task(planned.task_id)).run_at == LATER

    async def test_twice_in_one_call_it_is_written_once(self, ledger: Ledger) -> None:
        planned = task()
        [known] = await ledger.tasks.plan([planned, planned])
        assert known.task_id == planned.task_id
        assert len(await ledger.tasks.claim_due(LATER, 100)) == 1

    async def test_its_first_dispatch_makes_the_decision_its_request_is_known_by(self, ledger: Ledger) -> None:
        planned = task(request_id="mine")
        await ledger.tasks.plan([planned])
        await ledger.tasks.claim_due(LATER, 100)
        await ledger.tasks.redispatched([(planned.task_id, decision("mine", planned.task_id))])
        assert (await ledger.decisions.decision("mine")).task_id == planned.task_id
        [known] = await ledger.tasks.plan([planned])
        assert known.decision is not None
        assert known.decision.selected_agent == "ann"

    async def test_of_two_that_share_a_request_id_neither_loses_its_decision(self, ledger: Ledger) -> None:
        planned = [task(request_id="shared") for _ in range(2)]
        await ledger.tasks.plan(planned)
        await ledger.tasks.claim_due(LATER, 100)
        for one in planned:
            await ledger.tasks.redispatched([(one.task_id, decision("shared", one.task_id))])
        known = await ledger.tasks.plan(planned)
        assert {found.task_id: found.decision and found.decision.task_id for found in known} == {
            one.task_id: one.task_id for one in planned
        }


def schedule(name: str = "nightly", **changes: Any) -> Schedule:
    template = TaskTemplate(task_type="report", payload=msgspec.Raw(b'{"days": 1}'), priority=2, metadata={"by": "Zoë"})
    fields: dict[str, Any] = {
        "cron": "30 2 * * *",
        "timezone": "Europe/Berlin",
        "task": template,
        "enabled": True,
        "catch_up": CatchUp.SKIP,
        "next_run_at": LATER,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Schedule(name=name, **(fields | changes))


class TestSchedules:
    async def test_a_schedule_is_kept_as_it_was_given(self, ledger: Ledger) -> None:
        await ledger.schedules.add(schedule())
        kept = await ledger.schedules.schedule("nightly")
        assert bytes(kept.task.payload) == b'{"days": 1}'
        assert kept == schedule()

    async def test_all_that_its_tasks_ask_for_is_kept(self, ledger: Ledger) -> None:
        task = TaskTemplate(
            task_type="report",
            strategy="c3",
            features=[0.5],
            embedding=[1.0],
            tenant="acme",
            budget=Budget(cost=0.5, attempts=3),
            affinity=Affinity(key="k", mode=AffinityMode.HARD),
        )
        await ledger.schedules.add(schedule(task=task))
        assert (await ledger.schedules.schedule("nightly")).task == task

    async def test_a_name_is_given_once(self, ledger: Ledger) -> None:
        await ledger.schedules.add(schedule())
        with pytest.raises(Conflict):
            await ledger.schedules.add(schedule(cron="@daily"))
        assert (await ledger.schedules.schedule("nightly")).cron == "30 2 * * *"

    async def test_what_is_not_there_is_not_found(self, ledger: Ledger) -> None:
        store = ledger.schedules
        for work in (
            store.schedule("x"),
            store.remove("x"),
            store.pause("x", NOW),
            store.enable("x", LATER, NOW),
        ):
            with pytest.raises(NotFound):
                await work

    async def test_they_are_listed_by_name_in_pages(self, ledger: Ledger) -> None:
        for name in ("c", "a", "b"):
            await ledger.schedules.add(schedule(name))
        assert [one.name for one in await ledger.schedules.schedules("", 2)] == ["a", "b"]
        assert [one.name for one in await ledger.schedules.schedules("b", 2)] == ["c"]

    async def test_one_claimer_gets_what_is_due_until_the_claim_runs_out(self, ledger: Ledger) -> None:
        store = ledger.schedules
        await store.add(schedule())
        assert await store.claim_due(LATER - 1, LATER + 29, 10) == []
        assert await store.earliest() == LATER
        [claimed] = await store.claim_due(LATER, LATER + 30, 10)
        assert claimed.next_run_at == LATER
        assert await store.earliest() == LATER + 30
        assert await store.claim_due(LATER + 29, LATER + 60, 10) == []
        assert len(await store.claim_due(LATER + 30, LATER + 60, 10)) == 1

    async def test_an_advanced_one_is_due_at_its_next_time(self, ledger: Ledger) -> None:
        store = ledger.schedules
        await store.add(schedule())
        [claimed] = await store.claim_due(LATER, LATER + 30, 10)
        done = msgspec.structs.replace(claimed, last_run_at=LATER, last_task_id="t-1")
        await store.advance(done, LATER + 60)
        stored = await store.schedule("nightly")
        assert (stored.last_run_at, stored.last_task_id, stored.next_run_at) == (LATER, "t-1", LATER + 60)
        assert len(await store.claim_due(LATER + 60, LATER + 90, 10)) == 1

    async def test_a_late_advance_does_not_move_a_time_that_was_changed(self, ledger: Ledger) -> None:
        store = ledger.schedules
        await store.add(schedule())
        [claimed] = await store.claim_due(LATER, LATER + 30, 10)
        await store.put(schedule(cron="@hourly", next_run_at=LATER + 7))
        await store.advance(msgspec.structs.replace(claimed, last_task_id="t-1", last_run_at=LATER), LATER + 60)
        stored = await store.schedule("nightly")
        assert (stored.next_run_at, stored.last_task_id) == (LATER + 7, "t-1")

    async def test_an_edit_that_leaves_the_times_alone_loses_no_occurrence(self, ledger: Ledger) -> None:
        await ledger.schedules.add(schedule())
        template = TaskTemplate(task_type="other")
        edited = await ledger.schedules.put(schedule(task=template, next_run_at=LATER + 60, updated_at=NOW + 5))
        assert (edited.next_run_at, edited.task.task_type, edited.created_at) == (LATER, "other", NOW)

    async def test_a_paused_one_is_never_due_and_goes_on_when_enabled(self, ledger: Ledger) -> None:
        store = ledger.schedules
        await store.add(schedule())
        paused = await store.pause("nightly", NOW + 1)
        assert (paused.enabled, paused.next_run_at) == (False, None)
        assert await store.earliest() is None
        assert await store.claim_due(LATER + 1e6, LATER + 2e6, 10) == []
        resumed = await store.enable("nightly", LATER + 60, NOW + 2)
        assert (resumed.enabled, resumed.next_run_at) == (True, LATER + 60)
        again = await store.enable("nightly", LATER + 120, NOW + 3)
        assert again.next_run_at == LATER + 60

    async def test_a_postponed_one_says_why_and_waits(self, ledger: Ledger) -> None:
        store = ledger.schedules
        await store.add(schedule())
        await store.claim_due(LATER, LATER + 30, 10)
        await store.postpone("nightly", LATER + 5, "nobody is there")
        assert (await store.schedule("nightly")).last_error == "nobody is there"
        assert await store.claim_due(LATER + 4, LATER + 40, 10) == []
        assert len(await store.claim_due(LATER + 5, LATER + 40, 10)) == 1

    async def test_a_run_by_hand_leaves_the_times_alone(self, ledger: Ledger) -> None:
        await ledger.schedules.add(schedule())
        await ledger.schedules.ran("nightly", NOW + 3, "t-9")
        stored = await ledger.schedules.schedule("nightly")
        assert (stored.last_run_at, stored.last_task_id, stored.next_run_at) == (NOW + 3, "t-9", LATER)
        await ledger.schedules.remove("nightly")
        await ledger.schedules.ran("nightly", NOW + 4, "t-10")
        with pytest.raises(NotFound):
            await ledger.schedules.schedule("nightly")


def redrive(redrive_id: str = "one", *, at: float = NOW, **changes: Any) -> Redrive:
    fields: dict[str, Any] = {"order": RedriveOrder(task_type="echo", rate=7.5), "matched": 9, **changes}
    return Redrive(id=redrive_id, state=RedriveState.RUNNING, started_at=at, updated_at=at, **fields)


class TestRedrives:
    async def test_the_latest_is_told_as_it_was_ordered(self, ledger: Ledger) -> None:
        assert await ledger.redrives.latest() is None
        await ledger.redrives.begin(redrive())
        assert await ledger.redrives.latest() == redrive()

    async def test_one_runs_at_a_time_and_the_same_order_may_be_repeated(self, ledger: Ledger) -> None:
        await ledger.redrives.begin(redrive())
        await ledger.redrives.begin(redrive())
        with pytest.raises(Conflict):
            await ledger.redrives.begin(redrive("two", at=NOW + 1))
        assert await ledger.redrives.end("one", RedriveState.DONE, NOW + 2) is not None
        await ledger.redrives.begin(redrive("two", at=NOW + 3))
        latest = await ledger.redrives.latest()
        assert latest is not None
        assert latest.id == "two"

    async def test_one_router_holds_it_until_it_falls_silent(self, ledger: Ledger) -> None:
        store = ledger.redrives
        assert await store.claim("ann", NOW, NOW + 15) is None
        await store.begin(redrive())
        assert await store.claim("ann", NOW, NOW + 15) == redrive()
        assert await store.claim("ben", NOW + 14, NOW + 29) is None
        assert await store.claim("ann", NOW + 14, NOW + 20) is not None
        assert await store.claim("ben", NOW + 20, NOW + 35) is not None
        assert not await store.note(redrive(redriven=3), "ann", NOW + 50)
        assert await store.note(redrive(redriven=4, skipped=1), "ben", NOW + 50)
        latest = await store.latest()
        assert latest is not None
        assert (latest.redriven, latest.skipped) == (4, 1)

    async def test_one_that_ended_is_neither_claimed_nor_noted_nor_ended_again(self, ledger: Ledger) -> None:
        store = ledger.redrives
        await store.begin(redrive())
        await store.claim("ann", NOW, NOW + 15)
        ended = await store.end("one", RedriveState.STOPPED, NOW + 1)
        assert ended is not None
        assert (ended.state, ended.updated_at) == (RedriveState.STOPPED, NOW + 1)
        assert not await store.note(redrive(redriven=3), "ann", NOW + 50)
        assert await store.claim("ann", NOW, NOW + 15) is None
        assert await store.end("one", RedriveState.DONE, NOW + 2) is None


async def buried(ledger: Ledger, task_type: str, agent: str, reason: str, at: float) -> str:
    task_id = str(uuid4())
    report = Report(
        kind=ReportKind.FINAL,
        task_id=task_id,
        request_id=f"r-{task_id}",
        task_type=task_type,
        agent=agent,
        status=TaskStatus.DEAD_LETTER,
        error=TaskError("Broken", reason, True),
        submitted_at=NOW,
        completed_at=at,
    )
    await ledger.tasks.accept([Entry(task(task_id, task_type=task_type), decision(f"r-{task_id}", task_id))])
    assert await ledger.tasks.record([report]) == [Verdict.RECORDED]
    return task_id


async def test_dead_letters_are_found_by_what_an_operator_knows(ledger: Ledger) -> None:
    first = await buried(ledger, "scan", "ann", "Disk full", NOW + 1)
    second = await buried(ledger, "scan", "ben", "no route 100%", NOW + 2)
    third = await buried(ledger, "mail", "ann", "disk on fire", NOW + 3)

    async def found(**wanted: Any) -> list[str]:
        page = await ledger.reader.letters(LetterFilter(**wanted))
        assert await ledger.reader.count_letters(LetterFilter(**wanted)) == len(page.items)
        return [letter.task_id for letter in page.items]

    assert await found() == [third, second, first]
    assert await found(task_type="scan") == [second, first]
    assert await found(agent="ann") == [third, first]
    assert await found(reason="DISK") == [third, first]
    assert await found(reason="%") == [second]
    assert await found(since=NOW + 2) == [third, second]
    assert await found(until=NOW + 2) == [second, first]
    await ledger.tasks.reopen(second, NOW + 4)
    assert await found(waiting=True) == [third, first]
    page = await ledger.reader.letters(LetterFilter(waiting=True, limit=1))
    rest = await ledger.reader.letters(LetterFilter(waiting=True, limit=1, cursor=page.next_cursor))
    assert [letter.task_id for letter in (*page.items, *rest.items)] == [third, first]
    assert rest.next_cursor is None
