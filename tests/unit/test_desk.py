"""Answers about tasks: at once, or as soon as the task has ended; cancelled and run again on request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from agent_engines.domain import subjects
from agent_engines.domain.errors import Conflict, NotFound
from agent_engines.domain.messages import CancelOrder, Report
from agent_engines.domain.tasks import TaskRequest, TaskStatus
from agent_engines.ports.ledger import Several, TaskFilter
from routing_house import RoutingHouse, settle, until


async def running(house: RoutingHouse) -> str:
    await house.beat("a")
    await house.recorder.start()
    return (await house.submit()).task_id


async def ended(house: RoutingHouse, status: TaskStatus = TaskStatus.SUCCESS) -> str:
    task_id = await running(house)
    (message,) = await house.queued("a")
    await finish(house, house.report(message, status))
    return task_id


async def finish(house: RoutingHouse, report: Report) -> None:
    before = house.recorder.recorded.total()
    await house.bus.reports.publish_reports("a", [report])
    await until(lambda: house.recorder.recorded.total() > before)


async def test_a_task_is_shown_as_it_is() -> None:
    async with RoutingHouse() as house:
        task_id = await running(house)
        assert (await house.desk.task(task_id)).status is TaskStatus.QUEUED
        assert [view.task_id for view in (await house.desk.tasks(TaskFilter())).items] == [task_id]
        with pytest.raises(NotFound):
            await house.desk.task("nothing")


async def test_a_waiter_is_woken_by_the_outcome() -> None:
    async with RoutingHouse() as house:
        task_id = await running(house)
        waiting = asyncio.ensure_future(house.desk.task(task_id, wait=30.0))
        await settle()
        assert house.desk.waiting == 1
        (message,) = await house.queued("a")
        await finish(house, house.report(message))
        view = await asyncio.wait_for(waiting, 1.0)
        assert (view.status, view.result) == (TaskStatus.SUCCESS, "done")
        assert house.desk.waiting == 0


async def test_a_thousand_readers_share_a_few_questions_to_the_ledger() -> None:
    async with RoutingHouse() as house:
        task_id = await running(house)
        questions: list[int] = []
        read = house.ledger.reader.several

        async def counted(wanted: Sequence[str]) -> Several:
            questions.append(len(wanted))
            await settle()
            return await read(wanted)

        house.ledger.reader.several = counted  # type: ignore[method-assign]
        answers = await asyncio.gather(
            *(house.desk.task(task_id if n % 2 else f"unknown-{n}") for n in range(1000)), return_exceptions=True
        )
        assert len(questions) <= 1000 // 50
        assert [isinstance(answer, NotFound) for answer in answers] == [n % 2 == 0 for n in range(1000)]


async def test_a_retry_does_not_wake_who_waits_for_the_end() -> None:
    async with RoutingHouse() as house:
        task_id = await running(house)
        waiting = asyncio.ensure_future(house.desk.task(task_id, wait=30.0))
        await settle()
        (message,) = await house.queued("a")
        reads, read = 0, house.ledger.reader.several

        async def counted(wanted: Sequence[str]) -> Several:
            nonlocal reads
            reads += 1
            return await read(wanted)

        house.ledger.reader.several = counted  # type: ignore[method-assign]
        await finish(house, house.retry(message))
        await settle()
        assert not waiting.done()
        assert reads == 0
        waiting.cancel()
        await settle()
        assert house.desk.waiting == 0


async def test_waiting_ends_with_its_time() -> None:
    async with RoutingHouse() as house:
        task_id = await running(house)
        view = await house.desk.task(task_id, wait=0.01)
        assert view.status is TaskStatus.QUEUED
        assert house.desk.waiting == 0


async def test_a_lost_signal_costs_two_seconds_not_the_answer() -> None:
    async with RoutingHouse() as house:
        task_id = await running(house)
        waiting = asyncio.ensure_future(house.desk.task(task_id, wait=30.0))
        await settle()
        (message,) = await house.queued("a")
        await house.ledger.tasks.record([house.report(message)])
        assert (await asyncio.wait_for(waiting, 5.0)).status is TaskStatus.SUCCESS


async def test_one_of_many_that_ends_wakes_who_waits_for_them_all() -> None:
    async with RoutingHouse() as house:
        first, second = await running(house), (await house.submit()).task_id
        assert (await house.desk.ended([first, second])).items == []
        waiting = asyncio.ensure_future(house.desk.ended([first, second, "nothing", first], wait=30.0))
        await settle()
        assert house.desk.waiting == 3
        message = (await house.queued("a"))[-1]
        await finish(house, house.report(message))
        (view,) = (await asyncio.wait_for(waiting, 1.0)).items
        assert (view.task_id, view.status, view.result) == (message.task_id, TaskStatus.SUCCESS, "done")
        assert house.desk.waiting == 0
        assert [view.task_id for view in (await house.desk.ended([first, second], wait=30.0)).items] == [view.task_id]


async def test_waiting_for_many_ends_with_its_time_and_survives_a_lost_signal() -> None:
    async with RoutingHouse() as house:
        task_id = await running(house)
        assert (await house.desk.ended([task_id], wait=0.01)).items == []
        assert house.desk.waiting == 0
        waiting = asyncio.ensure_future(house.desk.ended([task_id], wait=30.0))
        await settle()
        (message,) = await house.queued("a")
        await house.ledger.tasks.record([house.report(message)])
        assert len((await asyncio.wait_for(waiting, 5.0)).items) == 1


async def test_ended_tasks_are_answered_from_the_cache_open_ones_never() -> None:
    async with RoutingHouse() as house:
        task_id = await running(house)
        await house.desk.task(task_id)
        assert await house.cache.get(f"task:{task_id}") is None
        (message,) = await house.queued("a")
        await finish(house, house.report(message))
        first = await house.desk.task(task_id)
        del house.ledger.reader
        assert await house.desk.task(task_id) == first


async def test_an_end_that_can_be_undone_is_never_remembered() -> None:
    """A reader who saw the old end may come to the cache after the task was run again, and after everybody forgot it there."""
    async with RoutingHouse() as house:
        task_id = await ended(house, TaskStatus.FAILED)
        read, answered, go_on = house.ledger.reader.several, asyncio.Event(), asyncio.Event()

        async def slow(wanted: Sequence[str]) -> Several:
            found = await read(wanted)
            answered.set()
            await go_on.wait()
            return found

        house.ledger.reader.several = slow  # type: ignore[method-assign]
        reading = asyncio.ensure_future(house.desk.task(task_id))
        await answered.wait()
        await house.desk.retry(task_id)
        go_on.set()
        assert (await reading).status is TaskStatus.FAILED
        assert (await house.desk.task(task_id)).status is TaskStatus.QUEUED


async def test_an_unreadable_cache_entry_is_passed_over() -> None:
    async with RoutingHouse() as house:
        task_id = await ended(house)
        await house.cache.set(f"task:{task_id}", b"{", 60.0)
        assert (await house.desk.task(task_id)).status is TaskStatus.SUCCESS


async def test_a_queued_task_is_cancelled_at_once_and_waiters_wake() -> None:
    async with RoutingHouse() as house:
        orders: list[CancelOrder] = []

        async def listen(_: str, data: bytes) -> None:
            orders.append(msgspec.json.decode(data, type=CancelOrder))

        await house.bus.signals.listen(subjects.cancel("a"), listen)
        task_id = await running(house)
        waiting = asyncio.ensure_future(house.desk.task(task_id, wait=30.0))
        await settle()
        assert await house.desk.cancel(task_id) is TaskStatus.CANCELLED
        assert (await asyncio.wait_for(waiting, 1.0)).status is TaskStatus.CANCELLED
        assert [(order.task_ids, order.at) for order in orders] == [((task_id,), house.clock.now())]


async def test_whoever_submitted_a_task_hears_of_its_cancellation() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        [result] = await house.dispatcher.submit([TaskRequest(task_type="echo")], origin="client-7")
        assert result.accepted is not None
        told: list[bytes] = []

        async def hear(_: str, data: bytes) -> None:
            told.append(data)

        await house.bus.signals.listen(subjects.recorded("client-7"), hear)
        assert await house.desk.cancel(result.accepted.task_id) is TaskStatus.CANCELLED
        await until(lambda: len(told) == 1)
        assert result.accepted.task_id.encode() in told[0]


async def test_what_has_ended_or_never_was_cannot_be_cancelled() -> None:
    async with RoutingHouse() as house:
        task_id = await ended(house)
        with pytest.raises(Conflict):
            await house.desk.cancel(task_id)
        with pytest.raises(NotFound):
            await house.desk.cancel("nothing")


async def test_cancelling_works_without_the_bus() -> None:
    async with RoutingHouse() as house:
        task_id = await running(house)
        house.bus.switch(False)
        assert await house.desk.cancel(task_id) is TaskStatus.CANCELLED
        assert "The agent was not told of a cancellation" in house.telemetry.messages("warning")


@pytest.mark.parametrize("status", [TaskStatus.FAILED, TaskStatus.DEAD_LETTER, TaskStatus.EXPIRED])
async def test_an_ended_task_runs_again_as_a_new_generation(status: TaskStatus) -> None:
    async with RoutingHouse() as house:
        task_id = await ended(house, status)
        assert (await house.desk.task(task_id)).status is status
        view = await house.desk.retry(task_id)
        assert view.status is TaskStatus.QUEUED
        assert (await house.desk.task(task_id)).status is TaskStatus.QUEUED
        (again,) = await house.queued("a")
        assert (again.task_id, again.generation, again.attempt) == (task_id, 2, 1)
        await finish(house, house.report(again))
        assert (await house.desk.task(task_id)).status is TaskStatus.SUCCESS


async def test_successes_and_open_tasks_do_not_run_again() -> None:
    async with RoutingHouse() as house:
        done = await ended(house)
        open_ = (await house.submit()).task_id
        for task_id in (done, open_):
            with pytest.raises(Conflict):
                await house.desk.retry(task_id)
        with pytest.raises(NotFound):
            await house.desk.retry("nothing")


async def test_a_reopened_task_without_an_agent_waits_for_one() -> None:
    async with RoutingHouse() as house:
        task_id = await ended(house, TaskStatus.FAILED)
        await house.beat("a", None, state="draining")
        assert (await house.desk.retry(task_id)).status is TaskStatus.QUEUED
        await house.redispatcher.start()
        await house.beat("b")
        await house.clock.advance(1.1)
        assert [message.task_id for message in await house.queued("b")] == [task_id]


async def test_dead_letters_are_listed_and_driven_again() -> None:
    async with RoutingHouse() as house:
        task_id = await ended(house, TaskStatus.DEAD_LETTER)
        (letter,) = (await house.desk.dead_letters(10, None)).items
        assert letter.task_id == task_id
        assert (await house.desk.redrive(task_id)).status is TaskStatus.QUEUED
        failed = await running_failed(house)
        with pytest.raises(NotFound):
            await house.desk.redrive(failed)


async def running_failed(house: RoutingHouse) -> str:
    await house.queued("a")
    task_id = (await house.submit()).task_id
    (message,) = await house.queued("a")
    await finish(house, house.report(message, TaskStatus.FAILED))
    return task_id
