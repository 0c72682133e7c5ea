"""Retries that are due and tasks without news run again, somewhere else if possible, and are never dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from agent_engines.domain import subjects
from agent_engines.domain.agents import Load
from agent_engines.domain.decisions import Decision
from agent_engines.domain.errors import Unavailable
from agent_engines.domain.messages import Report, ReportKind, TaskMessage
from agent_engines.domain.tasks import TaskStatus
from agent_engines.domain.terms import Budget
from agent_engines.ports.ledger import DecisionFilter, Verdict
from agent_engines.runtime import redispatch
from agent_engines.runtime.broadcasts import broadcast
from agent_engines.runtime.outcomes import decode_outcomes
from agent_engines.runtime.redispatch import STRANDED_SECONDS, Redispatcher
from routing_house import RoutingHouse, settle, until


async def failed_once(house: RoutingHouse, seconds: float = 5.0, **fields: object) -> TaskMessage:
    """A task whose first attempt failed on agent a."""
    await house.beat("a")
    await house.submit(**fields)  # type: ignore[arg-type]
    (message,) = await house.queued("a")
    verdicts = await house.ledger.tasks.record([house.retry(message, seconds)])
    assert verdicts == [Verdict.RECORDED]
    return message


async def held(house: RoutingHouse) -> TaskMessage:
    """A task whose retry is due, and nobody may do it now."""
    message = await failed_once(house, 0.1)
    await house.beat("a", None, state="draining")
    await house.redispatcher.start()
    await house.clock.advance(2.0)
    return message


async def test_a_due_retry_runs_as_the_next_generation_on_another_agent() -> None:
    async with RoutingHouse() as house:
        first = await failed_once(house, 5.0)
        await house.beat("b")
        await house.redispatcher.start()
        await settle()
        house.redispatcher.arm(house.clock.now() + 5.0)
        await house.clock.advance(4.5)
        assert await house.queued("b") == []
        for name in "ab":
            await house.beat(name, None)
        await house.clock.advance(1.0)
        (again,) = await house.queued("b")
        assert (again.task_id, again.generation, again.attempt) == (first.task_id, 2, 2)
        assert (again.max_attempts, again.origin, again.request_id) == (4, "here", first.request_id)
        view = await house.ledger.reader.task(first.task_id)
        assert (view.status, view.selected_agent) == (TaskStatus.QUEUED, "b")
        decisions = (await house.ledger.decisions.decisions(DecisionFilter())).items
        assert sorted(decision.selected_agent for decision in decisions) == ["a", "b"]
        assert len({decision.request_id for decision in decisions}) == 2


async def test_retries_go_elsewhere_while_there_is_an_elsewhere() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        for _ in range(20):
            await house.submit()
        messages = await house.queued("a")
        await house.beat("b")
        await house.ledger.tasks.record([house.retry(message, 0.1) for message in messages])
        await house.redispatcher.start()
        await house.clock.advance(1.1)
        assert await house.queued("a") == []
        assert len(await house.queued("b")) == 20
        assert house.telemetry.counts["tasks_redispatched_total"] == 20


async def test_an_armed_retry_does_not_wait_for_the_poll() -> None:
    async with RoutingHouse() as house:
        await failed_once(house, 0.3)
        await house.redispatcher.start()
        await settle()
        house.redispatcher.arm(house.clock.now() + 0.3)
        await house.clock.advance(0.35)
        assert len(await house.queued("a")) == 1


async def test_a_retry_nobody_armed_is_found_by_the_poll() -> None:
    async with RoutingHouse() as house:
        await failed_once(house, 0.3)
        await house.redispatcher.start()
        await settle()
        await house.clock.advance(1.1)
        assert len(await house.queued("a")) == 1


async def test_a_retry_without_an_agent_is_kept_until_there_is_one() -> None:
    async with RoutingHouse() as house:
        first = await held(house)
        assert await house.queued("a") == []
        assert "A task waits for an agent" in house.telemetry.messages("warning")
        await house.beat("b")
        await house.clock.advance(1.1)
        (again,) = await house.queued("b")
        assert (again.task_id, again.generation) == (first.task_id, 2)
        await house.clock.advance(3.0)
        assert await house.queued("b") == []


async def test_a_retry_without_an_agent_expires_with_its_deadline_and_says_so() -> None:
    async with RoutingHouse() as house:
        told: list[TaskStatus] = []

        async def listen(_: str, data: bytes) -> None:
            told.extend(outcome.status for outcome in decode_outcomes(data))

        await house.bus.signals.listen(subjects.recorded("here"), listen)
        first = await failed_once(house, 0.1, deadline=house.clock.now() + 4.0)
        await house.beat("a", None, state="draining")
        await house.redispatcher.start()
        await house.clock.advance(3.0)
        assert (await house.ledger.reader.task(first.task_id)).status is TaskStatus.QUEUED
        await house.clock.advance(2.5)
        view = await house.ledger.reader.task(first.task_id)
        assert view.status is TaskStatus.EXPIRED
        assert view.error is not None
        assert view.error.type == "DeadlinePassed"
        assert told == [TaskStatus.EXPIRED]


async def test_an_expiry_waits_for_the_ledger() -> None:
    async with RoutingHouse() as house:
        first = await failed_once(house, 0.1, deadline=house.clock.now() + 0.5)
        record, away = house.ledger.tasks.record, True

        async def sometimes(reports: Sequence[Report]) -> list[Verdict]:
            if away:
                raise Unavailable("the ledger is away")
            return await record(reports)

        house.ledger.tasks.record = sometimes  # type: ignore[method-assign]
        await house.redispatcher.start()
        await house.clock.advance(3.0)
        assert (await house.ledger.reader.task(first.task_id)).status is TaskStatus.QUEUED
        away = False
        await house.clock.advance(1.1)
        assert (await house.ledger.reader.task(first.task_id)).status is TaskStatus.EXPIRED


async def test_a_bus_that_is_away_holds_retries_and_loses_none() -> None:
    async with RoutingHouse() as house:
        await failed_once(house, 0.1)
        await house.redispatcher.start()
        house.bus.switch(False)
        await house.clock.advance(2.0)
        house.bus.switch(True)
        await house.beat("a", None)
        await house.clock.advance(1.1)
        (again,) = await house.queued("a")
        assert again.generation == 2


async def test_a_held_task_that_was_cancelled_is_not_sent() -> None:
    async with RoutingHouse() as house:
        first = await held(house)
        assert await house.desk.cancel(first.task_id) is TaskStatus.CANCELLED
        await house.beat("b")
        await house.clock.advance(2.0)
        assert await house.queued("b") == []


@pytest.mark.parametrize("how", ["cancelled", "done after all", "sent by somebody else"])
async def test_a_held_task_that_another_router_settled_is_not_sent(how: str) -> None:
    """It cancelled the task, recorded a late success, or heard that an agent has this very dispatch or a later one."""
    async with RoutingHouse() as house:
        first = await held(house)
        assert house.redispatcher.held == 1
        await broadcast(house.bus, "elsewhere", house.report(first, TaskStatus.DEAD_LETTER))
        await settle()
        assert house.redispatcher.held == 1, "an older dispatch's failure ends nothing"
        told = {
            "cancelled": house.report(first, TaskStatus.CANCELLED),
            "done after all": house.report(first),
            "sent by somebody else": house.report(first, TaskStatus.RUNNING, kind=ReportKind.STARTED, generation=2),
        }
        await broadcast(house.bus, "elsewhere", told[how])
        await settle()
        assert house.redispatcher.held == 0
        await house.beat("b")
        await house.clock.advance(2.0)
        assert await house.queued("b") == []


async def test_a_task_that_is_cancelled_while_it_is_being_sent_in_vain_is_not_held() -> None:
    async with RoutingHouse() as house:
        first = await failed_once(house, 0.1)
        asked, answer = asyncio.Event(), asyncio.Event()

        async def slow(message: TaskMessage) -> None:
            asked.set()
            await answer.wait()
            raise Unavailable("the bus did not answer")

        publish, house.bus.tasks.publish_task = house.bus.tasks.publish_task, slow  # type: ignore[method-assign]
        await house.redispatcher.start()
        await house.clock.advance(1.1)
        await asked.wait()
        assert await house.desk.cancel(first.task_id) is TaskStatus.CANCELLED
        answer.set()
        await settle()
        assert house.redispatcher.held == 0
        house.bus.tasks.publish_task = publish  # type: ignore[method-assign]
        await house.clock.advance(2.0)
        assert await house.queued("a") == []


async def test_tasks_nobody_may_do_keep_nobody_elses_retries_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redispatch, "CLAIM", 5)
    monkeypatch.setattr(redispatch, "MAX_HELD", 8)
    monkeypatch.setattr(redispatch, "HELD_FOR_AGENTS", 4)
    async with RoutingHouse() as house:
        await house.beat("rare", ("rare",))
        for _ in range(20):
            await house.submit("rare")
        rare = await house.queued("rare")
        await house.ledger.tasks.record([house.retry(message, 0.1) for message in rare])
        await failed_once(house, 0.2)
        await house.beat("rare", None, state="draining")
        await house.beat("a")
        await house.redispatcher.start()
        for _ in range(4):
            await _live(house, 2.0)
        assert len(await house.queued("a")) == 1
        assert house.redispatcher.held == 4
        assert "Tasks nobody may do wait in the ledger" in house.telemetry.messages("warning")
        done: set[str] = set()
        for _ in range(1000):
            await _live(house, 1.0)
            await house.beat("rare", None)
            done |= {message.task_id for message in await house.queued("rare")}
            if len(done) == 20:
                break
        assert len(done) == 20


async def test_a_task_without_news_is_sent_again_after_the_patience_is_over() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        await house.submit()
        await house.queued("a")
        await house.redispatcher.start()
        patience = house.redispatcher.patience_seconds
        assert patience == 2 * house.bus.tasks.lease_seconds + 300.0
        await _live(house, patience - 20)
        assert await house.queued("a") == []
        await _live(house, 40)
        (again,) = await house.queued("a")
        assert (again.generation, again.attempt) == (2, 1)


async def test_all_that_is_stranded_is_sent_again_at_one_look() -> None:
    """After a restore that is everything that was open: at one batch each look a hundred thousand would take 83 minutes."""
    async with RoutingHouse() as house:
        await house.beat("a", load=Load(slots=1000))
        for _ in range(900):
            await house.submit()
        await house.queued("a")
        await house.redispatcher.start()
        await _live(house, house.redispatcher.patience_seconds + STRANDED_SECONDS)
        again: list[TaskMessage] = []
        async with asyncio.timeout(5):
            while len(again) < 900:
                await settle()
                again.extend(await house.queued("a"))
        assert {message.generation for message in again} == {2}


async def test_a_task_that_waits_its_turn_is_not_taken_for_lost() -> None:
    async with RoutingHouse() as house:
        await house.beat("a", load=Load(slots=1))
        for _ in range(10):
            await house.submit()
        await house.beat("a", None, load=Load(slots=1, running=1, service_ms=60_000.0))
        assert house.redispatcher.patience_seconds >= 360.0 + 2 * 600.0


async def test_a_task_without_news_stays_where_it_is_while_nobody_may_do_it_and_its_outcome_counts() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        await house.submit()
        await house.submit(deadline=house.clock.now() + 60.0)
        waits, late = await house.queued("a")
        await house.redispatcher.start()
        await house.beat("a", None, state="draining")
        await _live(house, 2 * house.redispatcher.patience_seconds, "draining")
        assert await house.queued("a") == []
        assert (await house.ledger.reader.task(late.task_id)).status is TaskStatus.EXPIRED
        assert await house.ledger.tasks.record([house.retry(waits, 1.0)]) == [Verdict.RECORDED]


async def test_nothing_is_claimed_while_nobody_is_there() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        await house.submit()
        await house.redispatcher.start()
        await house.clock.advance(1000.0)
        assert house.fleet.heard_from == 0
        assert house.telemetry.messages("warning").count("Tasks without news are sent again") == 0


async def test_a_note_the_ledger_does_not_take_does_not_stop_the_dispatch() -> None:
    async with RoutingHouse() as house:
        await failed_once(house, 0.1)

        async def away(entries: Sequence[tuple[str, Decision]]) -> None:
            raise Unavailable("the ledger is away")

        house.ledger.tasks.redispatched = away  # type: ignore[method-assign]
        await house.redispatcher.start()
        await house.clock.advance(1.1)
        assert len(await house.queued("a")) == 1
        assert "New decisions were not noted" in house.telemetry.messages("warning")


async def test_many_due_retries_are_all_sent() -> None:
    async with RoutingHouse() as house:
        await house.beat("a", load=Load(slots=1000))
        for _ in range(450):
            await house.submit()
        messages = await house.queued("a")
        await house.ledger.tasks.record([house.retry(message, 0.1) for message in messages])
        await house.redispatcher.start()
        await house.clock.advance(1.1)
        again: list[TaskMessage] = []
        async with asyncio.timeout(5):
            while len(again) < 450:
                await settle()
                again.extend(await house.queued("a"))
        assert {message.generation for message in again} == {2}
        await until(lambda: not house.redispatcher._held)


async def _live(house: RoutingHouse, seconds: float, state: str = "ready") -> None:
    """Let time pass while agent a is heard from."""
    end = house.clock.now() + seconds
    while house.clock.now() < end:
        await house.clock.advance(2.0)
        await house.beat("a", None, state=state)


async def test_a_retry_its_budget_does_not_pay_for_ends_the_task_with_the_reason() -> None:
    async with RoutingHouse() as house:
        await house.beat("a", metadata={"cost_per_task": 0.5})
        accepted = await house.submit(budget=Budget(cost=0.9))
        (message,) = await house.queued("a")
        await house.ledger.tasks.record([house.retry(message, 0.1, cost=0.5)])
        await house.redispatcher.start()
        await house.clock.advance(1.1)
        view = await house.ledger.reader.task(accepted.task_id)
        assert view.status is TaskStatus.DEAD_LETTER
        assert view.error is not None
        assert view.error.type == "BudgetSpent"
        assert "budget.cost is 0.4" in view.error.message
        assert "expected to take 0.5" in view.error.message
        assert await house.queued("a") == []
        assert house.redispatcher.held == 0


async def test_a_retry_goes_to_somebody_the_rest_of_the_budget_pays_for() -> None:
    async with RoutingHouse() as house:
        await house.beat("a", metadata={"cost_per_task": 0.5})
        await house.submit(budget=Budget(cost=0.9))
        (message,) = await house.queued("a")
        await house.ledger.tasks.record([house.retry(message, 0.1, cost=0.5)])
        await house.beat("b", metadata={"cost_per_task": 0.4})
        await house.redispatcher.start()
        await house.clock.advance(1.1)
        (again,) = await house.queued("b")
        assert again.attempt == 2


async def test_the_smaller_number_of_attempts_travels_with_the_task() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        await house.submit(budget=Budget(attempts=2))
        (message,) = await house.queued("a")
        assert message.max_attempts == 2
        await house.ledger.tasks.record([house.retry(message, 0.1)])
        await house.redispatcher.start()
        await house.clock.advance(1.1)
        (again,) = await house.queued("a")
        assert (again.attempt, again.max_attempts) == (2, 2)


async def test_a_router_that_stops_hands_back_what_waits_for_an_agent_and_another_one_sends_it() -> None:
    async with RoutingHouse() as house:
        first = await held(house)
        assert house.redispatcher.held == 1
        await house.redispatcher.stop()
        other = Redispatcher(
            house.bus, house.ledger, house.dispatcher, house.fleet, clock=house.clock, telemetry=house.telemetry
        )
        await other.start()
        await house.beat("b")
        await house.clock.advance(1.1)
        (again,) = await house.queued("b")
        assert (again.task_id, again.generation) == (first.task_id, 2)
        await other.stop()


async def test_a_router_that_stops_sends_what_it_has_just_claimed() -> None:
    async with RoutingHouse() as house:
        first = await failed_once(house, 0.1)
        publish, begun, go = house.bus.tasks.publish_task, asyncio.Event(), asyncio.Event()

        async def slow(message: TaskMessage) -> None:
            begun.set()
            await go.wait()
            await publish(message)

        house.bus.tasks.publish_task = slow  # type: ignore[method-assign]
        await house.redispatcher.start()
        await house.clock.advance(1.1)
        await begun.wait()
        stopping = asyncio.create_task(house.redispatcher.stop())
        await settle()
        assert not stopping.done()
        go.set()
        await stopping
        (again,) = await house.queued("a")
        assert (again.task_id, again.generation) == (first.task_id, 2)


async def test_a_router_that_stops_does_not_wait_for_a_bus_that_does_not_answer() -> None:
    async with RoutingHouse() as house:
        await failed_once(house, 0.1)
        begun = asyncio.Event()

        async def never(_: TaskMessage) -> None:
            begun.set()
            await asyncio.Event().wait()

        house.bus.tasks.publish_task = never  # type: ignore[method-assign]
        await house.redispatcher.start()
        await house.clock.advance(1.1)
        await begun.wait()
        async with asyncio.timeout(redispatch.FINISH_SECONDS + 5.0):
            await house.redispatcher.stop()
