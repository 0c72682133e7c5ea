"""Redelivered tasks in one engine: noted, kept apart, given up with a reason, and never by a mere hand-back or outage."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from engine_bench import Bench

from agent_engines.adapters.jetstream.settings import KEY
from agent_engines.domain.errors import Unavailable
from agent_engines.domain.messages import ReportKind
from agent_engines.domain.poison import Starts
from agent_engines.domain.tasks import PriorityClass, TaskStatus
from agent_engines.runtime import starts as notes
from agent_engines.runtime.context import TaskContext

MakeBench = Callable[..., Bench]


@pytest.fixture
async def make() -> AsyncIterator[MakeBench]:
    async with contextlib.AsyncExitStack() as stack:
        made: list[Bench] = []

        def bench(**options: Any) -> Bench:
            one = Bench(**options)
            made.append(one)
            return one

        yield bench
        for one in made:
            stack.push_async_exit(one)


async def redeliver(bench: Bench, count: int) -> None:
    """Let what is on the bus have been delivered once before."""
    inbox = await bench.bus.tasks.open_inbox("worker")
    pulled = 0
    while pulled < count:
        deliveries = await inbox.pull(PriorityClass.NORMAL, count, 1.0)
        pulled += len(deliveries)
        await inbox.release(deliveries, 0.1)
    await inbox.close()


async def note(bench: Bench, task_id: str, **fields: Any) -> None:
    value = msgspec.json.encode(Starts(attempt=1, places=("a", "b"), **fields))
    await bench.bus.settings.put(f"starts.{task_id}", value)


async def noted(bench: Bench, task_id: str) -> Starts | None:
    found = await bench.bus.settings.get(f"starts.{task_id}")
    return None if found is None else msgspec.json.decode(found[0], type=Starts)


def ends(bench: Bench) -> list[TaskStatus]:
    """How tasks ended so far; on a busy machine some report before that they run."""
    return [report.status for report in bench.reports if report.kind is ReportKind.FINAL]


async def test_a_first_delivery_leaves_no_note(make: MakeBench) -> None:
    bench = make()
    seen: list[Starts | None] = []

    @bench.engine.task("work")
    async def work(context: TaskContext) -> None:
        seen.append(await noted(bench, context.task_id))

    await bench.__aenter__()
    await bench.send("t1")
    await bench.start()
    await bench.report("t1")
    assert seen == [None]


async def test_a_redelivered_task_is_noted_before_it_runs_and_forgotten_when_its_report_is_durable(
    make: MakeBench,
) -> None:
    bench = make()
    seen: list[Starts | None] = []

    @bench.engine.task("work")
    async def work(context: TaskContext) -> None:
        seen.append(await noted(bench, context.task_id))

    await bench.__aenter__()
    await bench.send("t1")
    await redeliver(bench, 1)
    await bench.start()
    await bench.report("t1")
    await bench.empty()
    assert seen == [Starts(attempt=1, shared=1, places=(bench.engine.replica or "",))]
    async with asyncio.timeout(30.0):
        while (left := await noted(bench, "t1")) is not None and left.shared:
            await asyncio.sleep(0.01)


async def test_a_thousand_redeliveries_all_run_and_are_told_once(make: MakeBench) -> None:
    bench = make()
    ran: list[str] = []

    @bench.engine.task("work")
    async def work(context: TaskContext) -> None:
        ran.append(context.task_id)

    await bench.__aenter__()
    for n in range(1000):
        await bench.send(f"t{n}")
    await redeliver(bench, 1000)
    await bench.start()
    await bench.until(lambda: len(ends(bench)) >= 1000)
    await bench.empty()
    assert sorted(ran) == sorted(f"t{n}" for n in range(1000))


async def test_the_worst_suspects_run_with_nobody_beside_them(make: MakeBench) -> None:
    bench = make(max_concurrent_tasks=10)
    running: set[str] = set()
    beside: dict[str, set[str]] = {}

    @bench.engine.task("work")
    async def work(context: TaskContext) -> None:
        running.add(context.task_id)
        for task_id in running:
            beside.setdefault(task_id, set()).update(running - {task_id})
        await asyncio.sleep(0.02)
        running.discard(context.task_id)

    await bench.__aenter__()
    for n in range(3):
        await note(bench, f"worst{n}", shared=2)
        await note(bench, f"single{n}", shared=1)
        await bench.send(f"worst{n}")
        await bench.send(f"single{n}")
    await redeliver(bench, 6)
    for n in range(40):
        await bench.send(f"t{n}")
    await bench.start()
    await bench.until(lambda: len(ends(bench)) >= 46)
    assert set(ends(bench)) == {TaskStatus.SUCCESS}
    for n in range(3):
        assert beside.get(f"worst{n}", set()) == set()
        assert not {name for name in beside.get(f"single{n}", set()) if name.startswith("single")}
    assert any(beside.get(f"t{n}") for n in range(40)), "the others run side by side"


async def test_who_died_alone_twice_is_buried_with_a_reason_and_a_redrive_begins_anew(make: MakeBench) -> None:
    bench = make()
    ran: list[int] = []

    @bench.engine.task("work")
    async def work(context: TaskContext) -> None:
        ran.append(context.generation)

    await bench.__aenter__()
    await note(bench, "t1", shared=2, alone=2)
    await bench.send("t1", dispatched_at=time.time())
    await redeliver(bench, 1)
    await bench.start()
    report = await bench.report("t1")
    assert (report.status, ran) == (TaskStatus.DEAD_LETTER, [])
    assert report.error is not None
    assert report.error.type == "Poisoned"
    assert report.error.message == "its process ended 4 times while it ran, 2 of them with nothing else running: a, b"
    await bench.empty()
    bench.reports.clear()
    await bench.send("t1", generation=2, dispatched_at=time.time())
    assert (await bench.report("t1")).status is TaskStatus.SUCCESS
    assert ran == [2]


async def test_a_copy_sent_for_want_of_news_is_as_guilty_as_the_first(make: MakeBench) -> None:
    bench = make()
    ran: list[str] = []

    @bench.engine.task("work")
    async def work(context: TaskContext) -> None:
        ran.append(context.task_id)

    await bench.__aenter__()
    await note(bench, "t1", shared=2, alone=2)
    await bench.start()
    await bench.send("t1", generation=2, dispatched_at=time.time())
    assert (await bench.report("t1")).status is TaskStatus.DEAD_LETTER
    await note(bench, "t2", shared=2, alone=2)
    await bench.send("t2", generation=2, attempt=2, dispatched_at=time.time())
    assert (await bench.report("t2")).status is TaskStatus.SUCCESS
    assert ran == ["t2"], "the report that led to its second attempt came from a living process"


async def test_handing_a_running_task_back_in_good_order_counts_for_nothing(make: MakeBench) -> None:
    bench = make()
    begun = asyncio.Event()

    @bench.engine.task("work")
    async def work() -> None:
        begun.set()
        await asyncio.sleep(600)

    await bench.__aenter__()
    await note(bench, "t1", shared=2, alone=1)
    await bench.send("t1")
    await redeliver(bench, 1)
    await bench.start()
    async with asyncio.timeout(30.0):
        await begun.wait()
    during = await noted(bench, "t1")
    await bench.engine.stop(0.0)
    after = await noted(bench, "t1")
    assert during is not None
    assert after is not None
    assert (during.alone, after.alone) == (2, 1)


class Silent:
    """Settings that do not answer."""

    async def get(self, key: str) -> None:
        raise Unavailable("no answer")

    async def put(self, key: str, value: bytes, **options: object) -> int:
        raise Unavailable("no answer")


async def test_without_answers_from_the_settings_redelivered_tasks_run_all_the_same(make: MakeBench) -> None:
    bench = make()
    ran: list[str] = []

    @bench.engine.task("work")
    async def work(context: TaskContext) -> None:
        ran.append(context.task_id)

    await bench.__aenter__()
    bench.bus.settings = Silent()  # type: ignore[assignment]
    try:
        for n in range(80):
            await bench.send(f"t{n}")
        for _ in range(3):
            await redeliver(bench, 80)
        await bench.start()
        await bench.until(lambda: len(bench.reports) >= 80)
    finally:
        bench.bus.settings = type(bench.bus)().settings
    assert len(set(ran)) == 80
    assert bench.telemetry.counts["agent_starts_unnoted_total"] >= 80


@pytest.mark.parametrize("task_id", ["plain-id_1", "with.dots", "umlaut-ä", "with space", "x" * 500])
def test_every_task_id_has_a_key_the_settings_take(task_id: str) -> None:
    assert KEY.fullmatch(notes._key(task_id))
