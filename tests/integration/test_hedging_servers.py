"""An agent stalls: its idempotent task runs at another one too, on a real bus and database; one end, and the loser stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.adapters.postgres import migrate
from agent_engines.adapters.postgres.evidence import LedgerEvidence
from agent_engines.adapters.postgres.ledger import PostgresLedger
from agent_engines.domain.legs import LOST
from agent_engines.domain.tasks import TaskRequest, TaskStatus
from agent_engines.engines.intelligence import IntelligenceEngine
from agent_engines.engines.routing import RoutingOptions
from agent_engines.ports.connections import Connections
from agent_engines.ports.ledger import DecisionFilter
from agent_engines.runtime.agent_config import AgentConfig
from agent_engines.runtime.context import TaskContext
from agent_engines.runtime.engine import Engine


@dataclass
class Site:
    """Two agents that tell where a task runs; the first `stalls` runs of it wait until they are released or told to stop."""

    postgres_url: str
    idempotent: bool = True
    stalls: int = 1
    router: IntelligenceEngine = field(default_factory=lambda: IntelligenceEngine(AgentConfig("intelligence"), seed=1))
    ran: list[tuple[str, int, int]] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: list[str] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    telemetry: NullTelemetry = field(default_factory=NullTelemetry)
    ledger: Any = None

    def agent(self, name: str) -> Engine:
        engine = Engine(AgentConfig(name))

        @engine.task("work", idempotent=self.idempotent, max_attempts=3)
        async def work(context: TaskContext, payload: dict[str, Any]) -> str:
            self.ran.append((name, context.generation, context.attempt))
            if len(self.ran) <= self.stalls:
                if len(self.ran) == self.stalls:
                    self.begun.set()
                try:
                    await (self.release if len(self.ran) == 1 else asyncio.Event()).wait()
                except asyncio.CancelledError:
                    self.stopped.append(name)
                    self.cancelled.set()
                    raise
            return name

        return engine

    async def submit(self) -> str:
        async with asyncio.timeout(30):
            while True:
                (result,) = await self.router.submit([TaskRequest(task_type="work", payload={}, request_id="req")])
                if result.accepted is not None:
                    return result.accepted.task_id
                await asyncio.sleep(0.05)

    async def both_agents(self) -> None:
        async with asyncio.timeout(30):
            while len(self.router._parts.fleet.roster("work", {}).members) < 2:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def site(nats_url: str, postgres_url: str, **changes: Any) -> AsyncIterator[Site]:
    await migrate.migrate(postgres_url)
    found = Site(postgres_url, **changes)
    async with AsyncExitStack() as stack:
        ledger = found.ledger = await PostgresLedger.connect(postgres_url, pool_min=1, pool_max=4)
        stack.push_async_callback(ledger.close)
        for engine, store in ((found.router, ledger), (found.agent("left"), None), (found.agent("right"), None)):
            bus = await JetStreamBus.connect(nats_url)
            stack.push_async_callback(bus.close)
            await bus.provision()
            telemetry = found.telemetry if store is not None else NullTelemetry()
            await engine.start(Connections(bus=bus, telemetry=telemetry, clock=SystemClock(), ledger=store))
            stack.push_async_callback(engine.stop, 0.0)
        await found.both_agents()
        yield found


async def test_a_stalled_task_is_done_by_another_agent_and_the_stalled_handler_is_cancelled(
    nats_url: str, postgres_url: str
) -> None:
    async with site(nats_url, postgres_url) as house:
        task_id = await house.submit()
        async with asyncio.timeout(30):
            await house.begun.wait()
            view = await house.router.task(task_id, wait=30.0)
            await house.cancelled.wait()
        (first, *_), (second, generation, attempt) = house.ran
        assert (generation, attempt) == (2, 1), "the second leg of the same attempt"
        assert second != first
        assert (view.status, view.result, view.selected_agent, view.attempts) == (
            TaskStatus.SUCCESS,
            second,
            second,
            1,
        )
        attempts = await _told(house, task_id)
        assert [(one.agent, one.generation, one.status, one.error_type) for one in attempts] == [
            (first, 1, TaskStatus.CANCELLED, LOST)
        ]
        decisions = {one.request_id: one for one in (await house.router.decisions(DecisionFilter())).items}
        assert {name: one.selected_agent for name, one in decisions.items()} == {"req": first, "req:2": second}
        assert decisions["req:2"].hedge.startswith("Hedged after 3.")
        assert decisions["req"].hedge == ""
        logged = {one.decision.request_id: one.status for one in await house.ledger.decisions.history(0.0, 10)}
        assert logged == {"req": TaskStatus.CANCELLED, "req:2": TaskStatus.SUCCESS}
        assert await _ends(postgres_url, task_id) == [("success", 2)]
        evidence = await LedgerEvidence.connect(postgres_url)
        (row,) = await evidence.rows()
        await evidence.close()
        assert (row.generation, row.end_generation, row.legs) == (2, 2, (1, 2)), "what fault runs judge by"
        assert house.telemetry.decisions["adaptive", "hedged"] == 1
        assert len(house.ran) == 2, "nothing was started besides"


async def test_the_first_leg_may_still_win(nats_url: str, postgres_url: str) -> None:
    """Both run when the first one comes back: its success counts, though a later dispatch exists, and the second one stops."""
    async with site(nats_url, postgres_url, stalls=2) as house:
        task_id = await house.submit()
        async with asyncio.timeout(30):
            await house.begun.wait()
            house.release.set()
            view = await house.router.task(task_id, wait=30.0)
            await house.cancelled.wait()
        (first, _, _), (second, generation, _) = house.ran
        assert generation == 2
        assert (view.status, view.result, view.selected_agent) == (TaskStatus.SUCCESS, first, first)
        assert house.stopped == [second]
        attempts = await _told(house, task_id)
        assert [(one.agent, one.error_type, one.error_message) for one in attempts] == [
            (second, LOST, f"{first} was faster")
        ]
        assert await _ends(postgres_url, task_id) == [("success", 1)]


async def test_a_cancellation_stops_both_legs(nats_url: str, postgres_url: str) -> None:
    async with site(nats_url, postgres_url, stalls=2) as house:
        task_id = await house.submit()
        async with asyncio.timeout(30):
            await house.begun.wait()
            await house.router.cancel(task_id)
            view = await house.router.task(task_id, wait=30.0)
            while len(house.stopped) < 2:
                house.cancelled.clear()
                await house.cancelled.wait()
        assert view.status is TaskStatus.CANCELLED
        assert sorted(house.stopped) == ["left", "right"]
        assert len(await _ends(postgres_url, task_id)) == 1


async def test_a_task_that_must_not_run_twice_waits_for_its_agent(nats_url: str, postgres_url: str) -> None:
    async with site(nats_url, postgres_url, idempotent=False) as house:
        task_id = await house.submit()
        async with asyncio.timeout(30):
            await house.begun.wait()
            assert house.router._parts.hedging.watching == 0
            house.release.set()
            view = await house.router.task(task_id, wait=30.0)
        assert (view.status, view.result) == (TaskStatus.SUCCESS, house.ran[0][0])
        assert len(house.ran) == 1
        assert await house.ledger.tasks.legs(task_id) == []


async def test_a_router_that_is_told_not_to_hedge_does_not(nats_url: str, postgres_url: str) -> None:
    router = IntelligenceEngine(AgentConfig("intelligence"), seed=1, routing=RoutingOptions(hedging=False))
    async with site(nats_url, postgres_url, router=router) as house:
        await house.submit()
        async with asyncio.timeout(30):
            await house.begun.wait()
        assert router._parts.hedging.watching == 0


async def _told(house: Site, task_id: str) -> list[Any]:
    """The attempts, once the loser has reported."""
    async with asyncio.timeout(30):
        while not (found := await house.router.attempts(task_id)):
            await asyncio.sleep(0.02)
        return found


async def _ends(url: str, task_id: str) -> list[tuple[str, int]]:
    connection = await asyncpg.connect(url, ssl=False)
    try:
        found = await connection.fetch("SELECT status, generation FROM task_results WHERE task_id = $1", task_id)
        return [(row["status"], row["generation"]) for row in found]
    finally:
        await connection.close()
