"""A site on real servers: two routers on one bus and one database, and the agents a test brings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg

from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.adapters.postgres import migrate
from agent_engines.adapters.postgres.ledger import PostgresLedger
from agent_engines.domain.decisions import DecisionContext
from agent_engines.domain.errors import NoEligibleAgent
from agent_engines.domain.messages import Acceptance
from agent_engines.domain.tasks import TaskRequest
from agent_engines.engines.intelligence import IntelligenceEngine
from agent_engines.ports.connections import Connections
from agent_engines.runtime.engine import Engine

PATIENCE = 60.0


class TwoRouters:
    """`one` and `two` are started; so are the agents, each with connections of its own."""

    def __init__(self, nats_url: str, postgres_url: str, agents: Sequence[Engine], **options: Any) -> None:
        self._nats_url = nats_url
        self.postgres_url = postgres_url
        self.one = IntelligenceEngine("intelligence", seed=1, **options)
        self.two = IntelligenceEngine("intelligence", seed=2, **options)
        self.agents = agents

    async def start(self, stack: AsyncExitStack) -> None:
        await migrate.migrate(self.postgres_url)
        for place, engine in enumerate((self.one, self.two, *self.agents)):
            bus = await JetStreamBus.connect(self._nats_url, lease_seconds=5)
            stack.push_async_callback(bus.close)
            if place == 0:
                await bus.provision()
            ledger = None
            if engine not in self.agents:
                ledger = await PostgresLedger.connect(self.postgres_url, pool_min=1, pool_max=4)
                stack.push_async_callback(ledger.close)
            await engine.start(Connections(bus=bus, telemetry=NullTelemetry(), clock=SystemClock(), ledger=ledger))
            stack.push_async_callback(engine.stop, 1.0)

    async def hears(self, task_type: str, agents: int) -> None:
        """Return when both routers may choose among so many agents."""
        for router in (self.one, self.two):
            await holds(lambda router=router: _chooses(router, task_type, agents))

    async def submitted(self, request: TaskRequest) -> Acceptance:
        (result,) = await self.one.submit([request])
        assert result.accepted is not None, result.refused
        return result.accepted

    async def sql(self, query: str, *arguments: Any) -> list[Any]:
        connection = await asyncpg.connect(self.postgres_url, ssl=False)
        try:
            return await connection.fetch(query, *arguments)
        finally:
            await connection.close()


@asynccontextmanager
async def two_routers(
    nats_url: str, postgres_url: str, agents: Sequence[Engine], **options: Any
) -> AsyncIterator[TwoRouters]:
    site = TwoRouters(nats_url, postgres_url, agents, **options)
    async with AsyncExitStack() as stack:
        await site.start(stack)
        yield site


async def holds(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return as soon as it is true."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():
            await asyncio.sleep(0.05)


async def _chooses(router: IntelligenceEngine, task_type: str, agents: int) -> bool:
    try:
        decision = await router.recommend(DecisionContext(request_id=f"warm-up-{id(router)}", task_type=task_type))
    except NoEligibleAgent:
        return False
    return len(decision.candidates) == agents
