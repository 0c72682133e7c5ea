"""Leases: renewed beside the loop, given up when they should be, and their loss noticed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from engine_bench import Bench

from agent_engines.adapters.memory.bus import MemoryBus
from agent_engines.adapters.memory.clock import ManualClock
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.domain.messages import TaskMessage
from agent_engines.domain.tasks import PriorityClass, TaskStatus
from agent_engines.ports.bus import Delivery
from agent_engines.runtime.attempt import Attempt, Key, Outcome
from agent_engines.runtime.context import TaskContext
from agent_engines.runtime.leases import OVERTIME_SECONDS, Leases

LEASE = 30.0
MESSAGE = TaskMessage(task_id="t1", request_id="r1", task_type="work", agent="worker", payload=msgspec.Raw(b"{}"))
LOST = "agent_lease_lost_total"

MakeBench = Callable[..., Bench]


@pytest.fixture
async def make() -> AsyncIterator[MakeBench]:
    """Benches that are closed at the end of the test."""
    async with contextlib.AsyncExitStack() as stack:
        made: list[Bench] = []

        def bench(**options: Any) -> Bench:
            made.append(Bench(**options))
            return made[-1]

        yield bench
        for one in made:
            stack.push_async_exit(one)


class House:
    """Leases over a clock that only a test moves."""

    def __init__(self, inbox: Any) -> None:
        self.clock = ManualClock()
        self.telemetry = NullTelemetry()
        self.held: dict[Key, Attempt] = {}
        self.leases = Leases(
            self.held,
            inbox,
            seconds=LEASE,
            agent="worker",
            telemetry=self.telemetry,
            measured=self.clock.monotonic,
            clock=self.clock.monotonic,
        )

    def take(self, task_id: str, *, timeout: float | None = None) -> Attempt:
        """Held from now on; with `timeout`, running."""
        message = msgspec.structs.replace(MESSAGE, task_id=task_id)
        attempt = Attempt(message, Delivery(message, 1, None))
        attempt.leased_at = self.clock.monotonic()
        if timeout is not None:
            attempt.task = asyncio.current_task()  # type: ignore[assignment]
            attempt.timeout, attempt.measured_from = timeout, self.clock.monotonic()
        self.held[attempt.key] = attempt
        return attempt


@pytest.fixture
async def house() -> AsyncIterator[House]:
    bus = MemoryBus(lease_seconds=LEASE)
    yield House(await bus.tasks.open_inbox("worker"))
    await bus.close()


async def test_a_short_task_is_never_looked_at_and_a_longer_one_is_renewed(house: House) -> None:
    attempt = house.take("t1", timeout=300)
    await house.clock.advance(LEASE / 3 - 0.1)
    assert house.leases.due(loop_lives=True) == []
    await house.clock.advance(0.2)
    assert house.leases.due(loop_lives=True) == house.leases.due(loop_lives=False) == [attempt]


async def test_a_handler_that_hangs_past_its_time_loses_its_lease(house: House) -> None:
    attempt = house.take("t1", timeout=15)
    for _ in range(25):
        attempt.leased_at = house.clock.monotonic() - LEASE / 2
        assert house.leases.due(loop_lives=True) == [attempt]
        await house.clock.advance(1.0)
    await house.clock.advance(15 + OVERTIME_SECONDS - 25 + 0.1)
    attempt.leased_at = house.clock.monotonic() - LEASE / 2
    assert house.leases.due(loop_lives=True) == []
    assert not house.leases.lost(attempt)
    await house.clock.advance(LEASE)
    assert house.leases.lost(attempt)


async def test_what_only_waits_is_let_go_while_the_loop_stands_still(house: House) -> None:
    queued, running = house.take("queued"), house.take("running", timeout=300)
    reported = house.take("reported", timeout=300)
    reported.elapsed = 1.0
    await house.clock.advance(LEASE / 2)
    assert house.leases.due(loop_lives=True) == [queued, running, reported]
    assert house.leases.due(loop_lives=False) == [running]


async def test_a_lost_lease_is_never_renewed_and_counted_once(house: House) -> None:
    attempt = house.take("t1", timeout=300)
    await house.clock.advance(LEASE + 0.1)
    for _ in range(3):
        assert house.leases.due(loop_lives=True) == []
        assert house.leases.lost(attempt)
    assert house.telemetry.counts[LOST] == 1


@pytest.mark.parametrize(
    ("status", "withheld"),
    [
        (TaskStatus.RETRYING, True),
        (TaskStatus.FAILED, True),
        (TaskStatus.DEAD_LETTER, True),
        (TaskStatus.SUCCESS, False),
        (TaskStatus.CANCELLED, False),
        (TaskStatus.EXPIRED, False),
    ],
)
async def test_only_failures_of_a_lost_lease_are_withheld(house: House, status: TaskStatus, withheld: bool) -> None:
    attempt = house.take("t1", timeout=300)
    attempt.elapsed = 2 * LEASE
    assert not house.leases.outlived(attempt, Outcome(status))
    await house.clock.advance(LEASE + 0.1)
    assert house.leases.outlived(attempt, Outcome(status)) is withheld
    assert house.telemetry.counts[LOST] == 1


async def test_an_attempt_without_a_lease_has_none_to_lose(house: House) -> None:
    attempt = Attempt(MESSAGE, Delivery(MESSAGE, 1, None))
    house.held[attempt.key] = attempt
    await house.clock.advance(10 * LEASE)
    assert house.leases.due(loop_lives=True) == []
    assert not house.leases.lost(attempt)


async def test_a_handler_that_blocks_the_loop_keeps_its_lease(make: MakeBench) -> None:
    bench = make(lease_seconds=0.6)
    left: list[float] = []

    @bench.engine.task("work")
    async def work() -> None:
        time.sleep(2.5)
        (held,) = bench.bus.tasks.queue(PriorityClass.NORMAL, "worker")._held.values()
        assert held.due is not None
        left.append(held.due - bench.clock.monotonic())

    await bench.__aenter__()
    await bench.start()
    await bench.send("t1")
    report = await bench.report("t1")
    await bench.empty()
    assert (report.status, report.delivery) == (TaskStatus.SUCCESS, 1)
    assert left[0] > 0
    assert bench.telemetry.counts[LOST] == 0


async def test_what_waited_behind_a_frozen_loop_is_left_to_others(make: MakeBench) -> None:
    bench = make(lease_seconds=0.5, max_concurrent_tasks=1, queue_size=4)
    ran: list[tuple[str, int]] = []

    @bench.engine.task("work")
    async def work(context: TaskContext) -> None:
        ran.append((context.task_id, len(ran)))
        if len(ran) == 1:
            while bench.engine.load().queued == 0:
                await asyncio.sleep(0.01)
            time.sleep(1.8)

    await bench.__aenter__()
    await bench.start()
    intake = bench.engine._hosting._worker._intake  # type: ignore[union-attr]
    async with asyncio.timeout(30):
        # Only pulls that are under way at the same time bring more than there are slots for.
        while len(intake._listening) < 3:
            await asyncio.sleep(0)
    await bench.send("t1", priority=1)
    await bench.send("t2", priority=3)
    first, second = await bench.report("t1"), await bench.report("t2")
    await bench.empty()
    waited = first if ran[0][0] == "t2" else second
    assert sorted(task_id for task_id, _ in ran) == ["t1", "t2"]
    assert {first.status, second.status} == {TaskStatus.SUCCESS}
    assert waited.delivery > 1
    assert bench.telemetry.counts[LOST] == 1


async def test_what_arrived_long_before_it_was_read_is_not_begun(make: MakeBench) -> None:
    """A process that stood still finds tasks at its door whose leases are over: their bus sent them at the pull's end at the latest."""
    bench = make(lease_seconds=0.3)
    ran: list[int] = []

    @bench.engine.task("work")
    async def work(context: TaskContext) -> None:
        ran.append(context.attempt)

    await bench.__aenter__()
    await bench.start()
    inbox = bench.engine._hosting._inbox  # type: ignore[union-attr]
    pull = inbox.pull  # type: ignore[union-attr]

    async def read_late(priority: PriorityClass, limit: int, wait: float) -> list[Delivery]:
        found = await pull(priority, limit, wait)
        if found and found[0].count == 1:
            time.sleep(0.8)
        return found

    inbox.pull = read_late  # type: ignore[union-attr,method-assign]
    await asyncio.sleep(0.2)
    await bench.send("t1")
    report = await bench.report("t1")
    await bench.empty()
    assert report.delivery == 2
    assert len(ran) == 1
    assert bench.telemetry.counts[LOST] == 1


@pytest.mark.parametrize("fails", [True, False])
async def test_an_attempt_that_was_cut_off_for_a_lease_tells_its_success_and_not_its_failure(
    make: MakeBench, fails: bool
) -> None:
    bench = make(lease_seconds=0.4)
    begun, go = asyncio.Event(), asyncio.Event()
    runs = 0

    @bench.engine.task("work")
    async def work() -> int:
        nonlocal runs
        runs += 1
        if runs == 1:
            begun.set()
            await go.wait()
            if fails:
                raise ValueError("too late")
        return runs

    await bench.__aenter__()
    await bench.start()
    await bench.send("t1")
    await begun.wait()
    bench.bus.switch(False)
    async with asyncio.timeout(30):
        while not bench.telemetry.counts[LOST]:
            await asyncio.sleep(0.01)
        go.set()
        while bench.engine.load().running:
            await asyncio.sleep(0.01)
    bench.bus.switch(True)
    report = await bench.report("t1")
    await bench.empty()
    assert bench.status_of("t1") == ["success"]
    assert (bytes(report.result), report.delivery) == ((b"2", 2) if fails else (b"1", 1))
    assert bench.telemetry.counts[LOST] == 1


async def test_no_thread_is_left_after_stop(make: MakeBench) -> None:
    bench = make()

    @bench.engine.task("work")
    async def work() -> None: ...

    await bench.__aenter__()
    await bench.start()
    assert "leases-worker" in [thread.name for thread in threading.enumerate()]
    await bench.engine.stop(1.0)
    assert "leases-worker" not in [thread.name for thread in threading.enumerate()]
