"""A task's events: the same on every router, in order, resumable anywhere, ending with the end."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from agent_engines.domain.errors import NotFound, Unavailable
from agent_engines.domain.messages import Progress, Report, TaskMessage
from agent_engines.domain.tasks import TaskStatus
from agent_engines.ports.service import TaskEvent
from agent_engines.runtime.events import event_id
from routing_house import RoutingHouse, settle, until


async def collected(house: RoutingHouse, task_id: str, after: str | None = None) -> list[TaskEvent]:
    async with asyncio.timeout(10):
        return [event async for event in house.events.follow(task_id, after)]


def told(events: list[TaskEvent]) -> list[str]:
    return [event.event for event in events]


async def begun(house: RoutingHouse) -> TaskMessage:
    await house.beat("a")
    await house.recorder.start()
    await house.submit()
    (message,) = await house.queued("a")
    return message


async def finish(house: RoutingHouse, report: Report) -> None:
    before = house.recorder.recorded.total()
    await house.bus.reports.publish_reports("a", [report])
    await until(lambda: house.recorder.recorded.total() > before)


async def progress(house: RoutingHouse, message: TaskMessage, fraction: float) -> None:
    told = Progress(task_id=message.task_id, attempt=message.attempt, fraction=fraction, at=house.clock.now())
    await house.bus.reports.publish_progress(told)


async def story(house: RoutingHouse) -> str:
    """A task with progress, a retry on a new generation, and a success."""
    first = await begun(house)
    await progress(house, first, 0.1)
    await progress(house, first, 0.2)
    await finish(house, house.retry(first, 0.1))
    await house.clock.advance(0.2)
    (stored,) = await house.ledger.tasks.claim_due(house.clock.now(), 10)
    await house.redispatcher.send([stored], reason="due")
    (second,) = await house.queued("a")
    await progress(house, second, 0.9)
    await finish(house, house.report(second))
    return first.task_id


STORY = ["queued", "running", "progress", "progress", "retrying", "running", "progress", "success"]


async def test_an_ended_task_tells_its_whole_story_in_order() -> None:
    async with RoutingHouse() as house:
        task_id = await story(house)
        events = await collected(house, task_id)
        assert told(events) == STORY
        assert [event.id for event in events] == sorted(event.id for event in events)
        assert [event.data.get("fraction") for event in events if event.event == "progress"] == [0.1, 0.2, 0.9]
        assert events[-1].data["result"] == "done"
        assert events[4].data["error"] == {"type": "ValueError", "message": "it broke"}


async def test_a_stream_resumes_after_any_event() -> None:
    async with RoutingHouse() as house:
        task_id = await story(house)
        events = await collected(house, task_id)
        for place, event in enumerate(events):
            assert await collected(house, task_id, event.id) == events[place + 1 :]


@pytest.mark.parametrize("after", ["", "nonsense", "1.1.1.1", "99"])
async def test_an_unknown_last_event_id_starts_from_the_beginning(after: str) -> None:
    async with RoutingHouse() as house:
        task_id = await story(house)
        assert told(await collected(house, task_id, after)) == STORY


async def test_a_live_stream_tells_each_step_as_it_happens() -> None:
    async with RoutingHouse() as house:
        message = await begun(house)
        async with aclosing(house.events.follow(message.task_id)) as events, asyncio.timeout(20):
            assert (await anext(events)).event == "queued"
            await progress(house, message, 0.5)
            assert (await anext(events)).event == "running"
            step = await anext(events)
            assert (step.event, step.data["fraction"]) == ("progress", 0.5)
            await finish(house, house.retry(message))
            assert (await anext(events)).event == "retrying"
            await house.desk.cancel(message.task_id)
            assert (await anext(events)).event == "cancelled"
            with pytest.raises(StopAsyncIteration):
                await anext(events)
        assert house.desk.waiting == 0
        assert house.bus.reports.followers == 0


async def test_live_and_later_readers_see_the_same_ids() -> None:
    async with RoutingHouse() as house:
        message = await begun(house)
        reading = asyncio.ensure_future(collected(house, message.task_id))
        await settle()
        await progress(house, message, 0.5)
        await settle()
        await finish(house, house.report(message))
        live = await reading
        later = await collected(house, message.task_id)
        assert [(event.id, event.event) for event in live] == [(event.id, event.event) for event in later]
        assert told(later) == ["queued", "running", "progress", "success"]


async def test_a_task_that_runs_again_tells_its_new_round_only_and_its_ids_go_on() -> None:
    async with RoutingHouse() as house:
        message = await begun(house)
        await progress(house, message, 0.1)
        await finish(house, house.report(message, TaskStatus.FAILED))
        first = await collected(house, message.task_id)
        await house.clock.advance(1.0)
        await house.desk.retry(message.task_id)
        (again,) = await house.queued("a")
        await progress(house, again, 0.7)
        await finish(house, house.report(again))
        second = await collected(house, message.task_id, first[-1].id)
        assert told(first) == ["queued", "running", "progress", "failed"]
        assert told(second) == ["queued", "running", "progress", "success"]
        assert min(event.id for event in second) > max(event.id for event in first)
        assert second[2].data["fraction"] == 0.7


async def test_an_unknown_task_has_no_stream_and_leaves_nothing_open() -> None:
    async with RoutingHouse() as house:
        with pytest.raises(NotFound):
            await collected(house, "nothing")
        assert house.desk.waiting == 0
        assert house.bus.reports.followers == 0


async def test_an_abandoned_stream_leaves_nothing_open() -> None:
    async with RoutingHouse() as house:
        message = await begun(house)
        async with aclosing(house.events.follow(message.task_id)) as events:
            await anext(events)
            await settle()
            assert house.desk.waiting == 1
            assert house.bus.reports.followers == 1
        assert house.desk.waiting == 0
        assert house.bus.reports.followers == 0


async def test_a_bus_that_is_away_costs_progress_not_the_stream() -> None:
    async with RoutingHouse() as house:
        task_id = await story(house)

        def away(task: str, after: int = 0) -> object:
            raise Unavailable("the bus is away")

        house.bus.reports.follow_progress = away  # type: ignore[method-assign, assignment]
        assert told(await collected(house, task_id)) == [name for name in STORY if name != "progress"]


async def test_progress_goes_on_when_the_bus_is_back() -> None:
    async with RoutingHouse() as house:
        message = await begun(house)
        follow, failures = house.bus.reports.follow_progress, iter([True])

        def sometimes(task_id: str, after: int = 0) -> object:
            if next(failures, False):
                raise Unavailable("the bus is away")
            return follow(task_id, after)

        house.bus.reports.follow_progress = sometimes  # type: ignore[method-assign, assignment]
        await progress(house, message, 0.5)
        async with aclosing(house.events.follow(message.task_id)) as events, asyncio.timeout(20):
            assert [(await anext(events)).event for _ in range(3)] == ["queued", "running", "progress"]


def test_ids_sort_as_text() -> None:
    ids = [event_id(1, 1, 0), event_id(1, 1, 2, 9), event_id(1, 1, 2, 10), event_id(1, 2, 0), event_id(2, 1, 0)]
    assert ids == sorted(ids)
