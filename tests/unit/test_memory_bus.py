"""What only the bus in memory can show: leases by a clock of one's own, and an outage at will."""

from __future__ import annotations

import asyncio

import pytest

from agent_engines.adapters.memory.bus import MemoryBus
from agent_engines.adapters.memory.clock import ManualClock
from agent_engines.domain.errors import Unavailable
from agent_engines.domain.messages import TaskMessage
from agent_engines.domain.tasks import PriorityClass

NORMAL = PriorityClass.NORMAL
TASK = TaskMessage(task_id="t1", request_id="r1", task_type="echo", agent="worker")


async def test_a_lease_ends_exactly_when_its_time_is_over() -> None:
    clock = ManualClock()
    bus = MemoryBus(clock=clock, lease_seconds=30.0)
    inbox = await bus.tasks.open_inbox("worker")
    await bus.tasks.publish_task(TASK)
    (first,) = await inbox.pull(NORMAL, 1, 0.0)
    await clock.advance(29.9)
    assert await inbox.pull(NORMAL, 1, 0.0) == []
    await inbox.extend([first])
    await clock.advance(29.9)
    assert await inbox.pull(NORMAL, 1, 0.0) == []
    await clock.advance(0.1)
    assert [delivery.count for delivery in await inbox.pull(NORMAL, 1, 0.0)] == [2]


async def test_a_waiting_pull_wakes_when_a_lease_ends() -> None:
    clock = ManualClock()
    bus = MemoryBus(clock=clock, lease_seconds=5.0)
    inbox = await bus.tasks.open_inbox("worker")
    await bus.tasks.publish_task(TASK)
    await inbox.pull(NORMAL, 1, 0.0)
    waiting = asyncio.ensure_future(inbox.pull(NORMAL, 1, 60.0))
    await clock.advance(5.0)
    assert [delivery.count for delivery in await waiting] == [2]


async def test_a_waiting_pull_ends_with_its_wait() -> None:
    clock = ManualClock()
    inbox = await MemoryBus(clock=clock).tasks.open_inbox("worker")
    waiting = asyncio.ensure_future(inbox.pull(NORMAL, 1, 2.0))
    await clock.advance(1.9)
    assert not waiting.done()
    await clock.advance(0.1)
    assert await waiting == []
    assert clock.sleepers == 0


async def test_a_message_id_is_forgotten_after_the_window() -> None:
    clock = ManualClock()
    bus = MemoryBus(clock=clock)
    await bus.tasks.publish_task(TASK)
    await clock.advance(119.0)
    await bus.tasks.publish_task(TASK)
    assert await bus.tasks.backlog("worker") == 1
    await clock.advance(1.0)
    await bus.tasks.publish_task(TASK)
    assert await bus.tasks.backlog("worker") == 2


async def test_an_outage_refuses_everything_and_loses_nothing() -> None:
    bus = MemoryBus()
    await bus.tasks.publish_task(TASK)
    inbox = await bus.tasks.open_inbox("worker")
    bus.switch(False)
    assert not bus.connected
    assert not await bus.check()
    for attempt in (
        bus.tasks.publish_task(TASK),
        inbox.pull(NORMAL, 1, 0.0),
        bus.signals.send("s", b""),
        bus.settings.put("k", b"v"),
        bus.reports.publish_reports("worker", []),
    ):
        with pytest.raises(Unavailable):
            await attempt
    bus.switch(True)
    assert [delivery.count for delivery in await inbox.pull(NORMAL, 1, 0.0)] == [1]
