"""Work for later on real servers: two routers on one database and one bus, one of which goes away."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import msgspec
import pytest

from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.adapters.postgres import migrate
from agent_engines.adapters.postgres.ledger import PostgresLedger
from agent_engines.domain.redrives import RedriveOrder, RedriveState
from agent_engines.domain.schedules import CatchUp, Schedule, TaskTemplate, occurrence_key, scheduled_request
from agent_engines.domain.tasks import TaskRequest, TaskStatus
from agent_engines.engines.intelligence import IntelligenceEngine
from agent_engines.ports.connections import Connections
from agent_engines.runtime.engine import Engine

PATIENCE = 60.0


class Site:
    """Two routers, one agent that counts its runs; each with connections of its own."""

    def __init__(self, nats_url: str, postgres_url: str) -> None:
        self._nats_url = nats_url
        self.postgres_url = postgres_url
        self.one = IntelligenceEngine("intelligence")
        self.two = IntelligenceEngine("intelligence")
        self.agent = Engine("worker")
        self.runs: Counter[Any] = Counter()
        self.unlucky = True
        self.ledger: PostgresLedger

        @self.agent.task("count", max_attempts=1)
        async def count(payload: Any) -> Any:
            self.runs[payload] += 1
            return payload

        @self.agent.task("unlucky", max_attempts=1)
        async def unlucky(payload: Any) -> Any:
            self.runs[payload] += 1
            if self.unlucky:
                raise RuntimeError("not this time")
            return payload

    async def open(self, stack: AsyncExitStack) -> None:
        await migrate.migrate(self.postgres_url)
        self.ledger = await PostgresLedger.connect(self.postgres_url, pool_min=1, pool_max=4)
        stack.push_async_callback(self.ledger.close)
        for place, engine in enumerate((self.one, self.two, self.agent)):
            bus = await JetStreamBus.connect(self._nats_url, lease_seconds=5)
            stack.push_async_callback(bus.close)
            if place == 0:
                await bus.provision()
            ledger = None
            if engine is not self.agent:
                ledger = await PostgresLedger.connect(self.postgres_url, pool_min=1, pool_max=4)
                stack.push_async_callback(ledger.close)
            await engine.start(Connections(bus=bus, telemetry=NullTelemetry(), clock=SystemClock(), ledger=ledger))
            stack.push_async_callback(engine.stop, 1.0)
        for router in (self.one, self.two):
            await self._choosable(router)

    async def _choosable(self, router: IntelligenceEngine) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                (result,) = await router.submit([TaskRequest(task_type="count", payload="warm-up")])
                if result.accepted is not None:
                    await router.task(result.accepted.task_id, wait=30.0)
                    return
                await asyncio.sleep(0.05)

    async def sql(self, query: str, *arguments: Any) -> list[Any]:
        connection = await asyncpg.connect(self.postgres_url, ssl=False)
        try:
            return await connection.fetch(query, *arguments)
        finally:
            await connection.close()


@pytest.fixture
async def site(nats_url: str, postgres_url: str) -> AsyncIterator[Site]:
    site = Site(nats_url, postgres_url)
    async with AsyncExitStack() as stack:
        await site.open(stack)
        yield site


async def holds(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await condition():
            await asyncio.sleep(0.1)


def _schedule(name: str, occurrence: float) -> Schedule:
    """A schedule whose time has come, and whose next one is years away."""
    return Schedule(
        name=name,
        cron="0 0 29 2 *",
        timezone="UTC",
        task=TaskTemplate(task_type="count", payload=msgspec.Raw(b'"%s"' % name.encode())),
        enabled=True,
        catch_up=CatchUp.ALL,
        next_run_at=occurrence,
        created_at=occurrence,
        updated_at=occurrence,
    )


async def test_planned_tasks_run_once_and_on_time_though_the_router_that_took_them_left(site: Site) -> None:
    run_at = time.time() + 2.0
    requests = [TaskRequest(task_type="count", payload=number, run_at=run_at) for number in range(40)]
    results = await site.one.submit(requests)
    task_ids = [result.accepted.task_id for result in results if result.accepted is not None]
    assert len(task_ids) == 40
    await site.one.stop(0.0)
    views = [await site.two.task(task_id, wait=PATIENCE) for task_id in task_ids]
    assert {view.status for view in views} == {TaskStatus.SUCCESS}
    assert all(view.started_at is not None and view.started_at >= run_at for view in views)
    assert {site.runs[number] for number in range(40)} == {1}
    rows = await site.sql("SELECT generation, attempt, next_run_at FROM tasks WHERE run_at IS NOT NULL")
    assert {tuple(row) for row in rows} == {(1, 1, None)}


async def test_both_routers_at_work_make_each_occurrence_once(site: Site) -> None:
    occurrence = float(int(time.time()) // 60 * 60)
    names = [f"s{number}" for number in range(30)]
    for name in names:
        await site.ledger.schedules.add(_schedule(name, occurrence))

    async def all_made() -> bool:
        listed = await site.ledger.schedules.schedules("", 200)
        return all(schedule.last_task_id is not None for schedule in listed) and site.runs.total() >= 30

    await holds(all_made)
    assert {site.runs[name] for name in names} == {1}
    keys = await site.sql("SELECT idempotency_key FROM tasks WHERE idempotency_key LIKE 'schedule:%'")
    assert sorted(row[0] for row in keys) == sorted(occurrence_key(name, occurrence) for name in names)


async def test_a_router_killed_between_the_task_and_its_note_leaves_no_second_task(site: Site) -> None:
    occurrence = float(int(time.time()) // 60 * 60)
    now = time.time()
    schedule = _schedule("once", occurrence)
    # What a router did before it was killed: claimed it, made the task, and not a step more.
    await site.ledger.schedules.add(schedule)
    await site.ledger.schedules.claim_due(now, now + 3.0, 10)
    key = occurrence_key("once", occurrence)
    (result,) = await site.one.submit([scheduled_request("once", schedule.task, key=key, occurrence=occurrence)])
    assert result.accepted is not None

    async def noted() -> bool:
        return (await site.ledger.schedules.schedule("once")).last_task_id is not None

    await holds(noted)
    stored = await site.ledger.schedules.schedule("once")
    assert stored.last_task_id == result.accepted.task_id
    assert (await site.two.task(result.accepted.task_id, wait=PATIENCE)).status is TaskStatus.SUCCESS
    assert site.runs["once"] == 1
    assert len(await site.sql("SELECT FROM tasks WHERE idempotency_key LIKE 'schedule:once:%'")) == 1


async def test_a_redrive_goes_on_where_a_router_left_it_and_no_letter_runs_twice(site: Site) -> None:
    # Few enough that the agent's breaker stays closed.
    requests = [TaskRequest(task_type="unlucky", payload=number) for number in range(8)]
    results = await site.one.submit(requests)
    task_ids = [result.accepted.task_id for result in results if result.accepted is not None]
    for task_id in task_ids:
        assert (await site.two.task(task_id, wait=PATIENCE)).status is TaskStatus.DEAD_LETTER
    site.unlucky = False
    begun = await site.one.redrives.begin(RedriveOrder(task_type="unlucky", rate=4))
    assert begun.matched == 8

    async def under_way() -> bool:
        return (await site.two.redrives.latest()).redriven > 0

    await holds(under_way)
    await site.one.stop(0.0)

    async def over() -> bool:
        return (await site.two.redrives.latest()).state is not RedriveState.RUNNING

    await holds(over)
    done = await site.two.redrives.latest()
    assert (done.state, done.redriven + done.skipped) == (RedriveState.DONE, 8)
    views = [await site.two.task(task_id, wait=PATIENCE) for task_id in task_ids]
    assert {view.status for view in views} == {TaskStatus.SUCCESS}
    assert {site.runs[number] for number in range(8)} == {2}
