"""An agent whose tasks die in series takes no more, says so, and tries one at a time until one lives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from engine_bench import Bench

from agent_engines.domain import series
from agent_engines.domain.agents import Load
from agent_engines.domain.errors import PermanentFailure
from agent_engines.domain.tasks import TaskStatus
from agent_engines.runtime.pausing import Remembered
from routing_house import RoutingHouse

MakeBench = Callable[..., Bench]


@pytest.fixture
async def make(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MakeBench]:
    monkeypatch.setattr(series, "PAUSE_SECONDS", 0.4)
    async with contextlib.AsyncExitStack() as stack:
        made: list[Bench] = []

        def bench(**options: Any) -> Bench:
            one = Bench(**options)
            made.append(one)
            return one

        yield bench
        for one in made:
            stack.push_async_exit(one)


async def eventually(look: Callable[[], Any]) -> None:
    async with asyncio.timeout(30.0):
        while not look():
            await asyncio.sleep(0.005)


async def test_a_bad_deploy_does_not_turn_the_whole_queue_into_dead_letters(make: MakeBench) -> None:
    bench = make(max_concurrent_tasks=2, queue_size=5, heartbeat_interval=0.1)
    broken = True

    @bench.engine.task("work")
    async def work() -> None:
        if broken:
            raise RuntimeError("a bad deploy")

    await bench.__aenter__()
    for n in range(200):
        await bench.send(f"t{n}", max_attempts=1)
    await bench.start()
    await eventually(lambda: any(beat.load.paused for beat in bench.heartbeats))
    paused = next(beat.load.paused for beat in bench.heartbeats if beat.load.paused)
    assert "most of them: dead_letter by RuntimeError of work" in paused
    assert bench.telemetry.gauges["agent_paused", (("agent_name", "worker"),)] == 1.0
    assert bench.telemetry.messages("error").count("Tasks die in series: taking no work") == 1
    dead = bench.telemetry.done["worker", "dead_letter"]
    assert 11 <= dead < 100
    await eventually(lambda: bench.telemetry.done["worker", "dead_letter"] == dead + 1)
    assert "Trying one task" in bench.telemetry.messages("info")
    broken = False
    await bench.until(lambda: len({report.task_id for report in bench.reports}) == 200)
    await bench.empty()
    assert bench.telemetry.done["worker", "success"] > 100
    assert bench.telemetry.gauges["agent_paused", (("agent_name", "worker"),)] == 0.0
    await eventually(lambda: not bench.heartbeats[-1].load.paused)


async def test_what_callers_can_bring_about_pauses_nobody(make: MakeBench) -> None:
    bench = make()

    @bench.engine.task("work")
    async def work(payload: int) -> None:
        raise PermanentFailure("no such user")

    await bench.__aenter__()
    for n in range(60):
        await bench.send(f"t{n}", payload=n if n % 2 else "no number")
    await bench.start()
    await bench.until(lambda: len(bench.reports) >= 60)
    assert {report.status for report in bench.reports} == {TaskStatus.FAILED}
    assert bench.engine.load().paused == ""


async def test_a_new_process_remembers_that_its_predecessors_were_killed_one_after_the_other(make: MakeBench) -> None:
    bench = make(heartbeat_interval=0.1)
    ran: list[str] = []

    @bench.engine.task("work")
    async def work() -> None:
        ran.append("t1")

    await bench.__aenter__()
    known = Remembered(ends=("dead_letter by Poisoned of work",) * 11, step=1)
    await bench.bus.settings.put("series.worker", msgspec.json.encode(known))
    await bench.start()
    await eventually(lambda: any(beat.load.paused for beat in bench.heartbeats))
    assert ran == []
    # Nothing waits for it, so routers have to hear that it may be sent something again.
    await eventually(lambda: not bench.heartbeats[-1].load.paused)
    await bench.send("t1")
    assert (await bench.report("t1")).status is TaskStatus.SUCCESS
    await eventually(lambda: not bench.heartbeats[-1].load.paused)

    async def forgotten() -> bool:
        found = await bench.bus.settings.get("series.worker")
        return found is None or msgspec.json.decode(found[0], type=Remembered) == Remembered()

    async with asyncio.timeout(30.0):
        while not await forgotten():
            await asyncio.sleep(0.01)


async def test_routers_choose_an_agent_as_long_as_one_of_its_replicas_takes_work() -> None:
    async with RoutingHouse() as house:

        def chosen() -> tuple[list[str], dict[str, str]]:
            roster = house.fleet.roster("echo", {})
            return [member.name for member in roster.members], {one.agent: one.reason for one in roster.rejected}

        await house.beat("a", replica="one", load=Load(paused="11 of the last 20 tasks died"))
        assert chosen() == ([], {"a": "paused: 11 of the last 20 tasks died"})
        await house.beat("a", replica="two")
        assert chosen() == (["a"], {})
        await house.beat("a", replica="two", load=Load(paused="12 of the last 20 tasks died"))
        assert chosen()[0] == []
        await house.beat("a", replica="one", load=Load())
        assert chosen() == (["a"], {})
        assert {one.load.paused for one in house.fleet.agent("a").replicas} == {"", "12 of the last 20 tasks died"}
