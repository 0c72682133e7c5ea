"""An agent goes for good: what it had runs elsewhere, on a real bus and database, long before it would count as stranded."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.adapters.postgres import migrate
from agent_engines.adapters.postgres.ledger import PostgresLedger
from agent_engines.domain.tasks import TaskRequest, TaskStatus
from agent_engines.engines.intelligence import IntelligenceEngine
from agent_engines.ports.connections import Connections
from agent_engines.runtime.agent_config import AgentConfig
from agent_engines.runtime.engine import Engine

LEASE = 2.0
TASKS = 12


async def started(stack: AsyncExitStack, engine: Engine, nats_url: str, ledger: PostgresLedger | None) -> JetStreamBus:
    bus = await JetStreamBus.connect(nats_url, lease_seconds=LEASE)
    stack.push_async_callback(bus.close)
    await bus.provision()
    await engine.start(Connections(bus=bus, telemetry=NullTelemetry(), clock=SystemClock(), ledger=ledger))
    stack.push_async_callback(engine.stop, 0.0)
    return bus


async def test_the_tasks_of_an_agent_that_is_cut_off_for_ever_run_on_another(nats_url: str, postgres_url: str) -> None:
    await migrate.migrate(postgres_url)
    router = IntelligenceEngine(AgentConfig("intelligence"), seed=1)
    dying, other = Engine(AgentConfig("dying", max_concurrent_tasks=1)), Engine(AgentConfig("other"))
    begun = asyncio.Event()

    @dying.task("work")
    async def hang() -> str:
        begun.set()
        await asyncio.sleep(3600)
        return "never"

    @other.task("work")
    async def work() -> str:
        return "done elsewhere"

    async with AsyncExitStack() as stack:
        ledger = await PostgresLedger.connect(postgres_url, pool_min=1, pool_max=4)
        stack.push_async_callback(ledger.close)
        await started(stack, router, nats_url, ledger)
        bus = await started(stack, dying, nats_url, None)
        accepted: list[str] = []
        async with asyncio.timeout(60):
            while len(accepted) < TASKS:
                results = await router.submit([TaskRequest(task_type="work")] * (TASKS - len(accepted)))
                accepted += [result.accepted.task_id for result in results if result.accepted is not None]
                await asyncio.sleep(0.05)
            await begun.wait()
        await started(stack, other, nats_url, None)
        await bus.close()
        views = await asyncio.gather(*(router.task(task_id, wait=90.0) for task_id in accepted))
        assert {(view.status, view.result, view.selected_agent) for view in views} == {
            (TaskStatus.SUCCESS, "done elsewhere", "other")
        }
        assert {view.attempts for view in views} == {1}, "no retry was spent"
