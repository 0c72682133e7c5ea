"""Retries keep to their budget on a busy fleet, use free slots on an idle one, and none of them is lost."""

from __future__ import annotations

from collections import Counter

from agent_engines.domain.agents import Load
from agent_engines.domain.messages import TaskMessage
from agent_engines.domain.retry_budget import FLOOR_PER_SECOND, RATIO, WINDOW_SLICES
from agent_engines.domain.tasks import TaskStatus
from routing_house import RoutingHouse, until

FLOOR = int(FLOOR_PER_SECOND * WINDOW_SLICES)
BUSY = Load(slots=10, running=10, queued=500, service_ms=100.0)
MANY = 1000


async def failed(house: RoutingHouse, count: int) -> list[TaskMessage]:
    """Tasks whose first attempt failed and whose retry is due, all submitted within one window."""
    for _ in range(count):
        await house.submit()
    messages = await house.queued("a")
    await house.ledger.tasks.record([house.retry(message, 0.1) for message in messages])
    return messages


async def retried(house: RoutingHouse, seconds: float, load: Load) -> list[TaskMessage]:
    """What is sent to agent a within some seconds while it says how busy it is."""
    found: list[TaskMessage] = []
    for _ in range(round(seconds * 10)):
        await house.beat("a", None, load=load)
        await house.clock.advance(0.1)
        found.extend(await house.queued("a"))
    return found


async def test_a_busy_fleet_gets_a_fifth_more_at_most() -> None:
    async with RoutingHouse() as house:
        await house.beat("a", load=BUSY)
        await failed(house, MANY)
        await house.redispatcher.start()
        again = await retried(house, WINDOW_SLICES - 2, BUSY)
        assert len(again) == int(MANY * RATIO)
        assert house.telemetry.counts["retries_delayed_total"] == MANY - len(again)
        assert "Retries wait for the retry budget" in house.telemetry.messages("info")


async def test_without_other_work_the_floor_remains_and_everything_is_sent_in_the_end() -> None:
    async with RoutingHouse() as house:
        await house.beat("a", load=BUSY)
        messages = await failed(house, 150)
        await house.redispatcher.start()
        again: list[TaskMessage] = []
        for window in range(1, 10):
            again += await retried(house, WINDOW_SLICES, BUSY)
            assert len(again) <= FLOOR * window + FLOOR
            if len(again) == len(messages):
                break
        assert sorted(one.task_id for one in again) == sorted(one.task_id for one in messages)
        assert {(one.generation, one.attempt) for one in again} == {(2, 2)}


async def test_an_idle_fleet_takes_retries_as_fast_as_slots_become_free() -> None:
    async with RoutingHouse() as house:
        await house.beat("a", load=Load(slots=400))
        await failed(house, MANY)
        await house.redispatcher.start()
        assert len(await retried(house, 3.0, Load(slots=400))) == MANY


async def test_ordinary_work_is_not_held_back_by_retries() -> None:
    async with RoutingHouse() as house:
        await house.beat("a", load=BUSY)
        await failed(house, MANY)
        await house.redispatcher.start()
        await retried(house, 1.0, BUSY)
        fresh = {(await house.submit()).task_id for _ in range(50)}
        assert fresh <= {one.task_id for one in await house.queued("a")}


async def test_a_storm_in_which_a_third_fails_once_keeps_to_the_budget_and_ends() -> None:
    """RELIABILITY R11, small: on a fleet that is busy all the time."""
    async with RoutingHouse() as house:
        await house.beat("a", load=BUSY)
        await house.recorder.start()
        await house.redispatcher.start()
        start, submitted = house.clock.now() - house.clock.monotonic(), 0
        # Between the ends of the budget's slices, where rounding does not matter.
        await house.clock.advance(0.3)
        ordinary: Counter[int] = Counter()
        retries: Counter[int] = Counter()
        ended: set[str] = set()
        while len(ended) < submitted or submitted == 0:
            await house.beat("a", None, load=BUSY)
            if house.clock.now() - start < 20:
                for _ in range(100):
                    await house.submit()
                submitted += 100
            for place, message in enumerate(await house.queued("a")):
                first = message.attempt == 1
                (ordinary if first else retries)[int(message.dispatched_at - start)] += 1
                fails = first and place % 10 < 3
                report = house.retry(message, 0.1) if fails else house.report(message)
                await house.bus.reports.publish_reports("a", [report])
                if not fails:
                    ended.add(message.task_id)
            await house.clock.advance(1.0)
            assert house.clock.now() - start < 500, "the storm does not end"
        for second in sorted(retries):
            window = range(second - WINDOW_SLICES + 1, second + 1)
            sent = sum(retries[one] for one in window)
            assert sent <= max(FLOOR, RATIO * sum(ordinary[one] for one in window))
        attempts = retries.total()
        assert attempts == submitted * 3 // 10
        await until(lambda: house.recorder.recorded.total() == submitted + attempts)
        counts = await house.ledger.reader.counts()
        assert counts[TaskStatus.SUCCESS] == submitted
        assert house.telemetry.counts["retries_delayed_total"] > 0


async def test_what_an_operator_runs_again_is_not_counted() -> None:
    async with RoutingHouse() as house:
        await house.beat("a", load=BUSY)
        for _ in range(100):
            await house.submit()
        messages = await house.queued("a")
        await house.ledger.tasks.record([house.report(message, TaskStatus.FAILED) for message in messages])
        before = house.dispatcher.retry_budget.left(house.clock.monotonic())
        for message in messages:
            await house.desk.retry(message.task_id)
        assert len(await house.queued("a")) == 100
        assert house.dispatcher.retry_budget.left(house.clock.monotonic()) == before
