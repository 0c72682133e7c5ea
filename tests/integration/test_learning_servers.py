"""Two routers on a real bus and database: whatever restarts, they have learned the same, and history keeps what was seen."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import msgspec
import pytest

from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.adapters.postgres import migrate
from agent_engines.adapters.postgres.ledger import PostgresLedger
from agent_engines.domain import subjects
from agent_engines.domain.messages import Report, ReportBatch, ReportKind
from agent_engines.domain.tasks import TaskRequest, TaskStatus
from agent_engines.engines.intelligence import IntelligenceEngine
from agent_engines.learning.lesson import Lesson
from agent_engines.ports.connections import Connections
from agent_engines.runtime.context import TaskContext
from agent_engines.runtime.engine import Engine
from agent_engines.runtime.lessons import Lessons
from agent_engines.runtime.thinning import Thinning


class Site:
    """Two agents, one right about even and one about odd numbers; routers come and go."""

    def __init__(self, nats_url: str, postgres_url: str) -> None:
        self._nats_url = nats_url
        self._postgres_url = postgres_url
        self.stack = AsyncExitStack()
        self.telemetry = NullTelemetry()

    async def open(self) -> None:
        await migrate.migrate(self._postgres_url)
        bus = await JetStreamBus.connect(self._nats_url)
        self.stack.push_async_callback(bus.close)
        await bus.provision()
        self.bus = bus
        for name, right in (("even", 0), ("odd", 1)):
            agent = Engine(name)

            @agent.task("parity")
            async def parity(context: TaskContext, payload: int, right: int = right) -> int:
                context.quality(1.0 if payload % 2 == right else 0.0)
                return payload % 2

            await agent.start(Connections(bus=bus, telemetry=self.telemetry, clock=SystemClock()))
            self.stack.push_async_callback(agent.stop, 1.0)

    async def router(self) -> IntelligenceEngine:
        """Start one; it is ready when it can choose between both agents."""
        bus = await JetStreamBus.connect(self._nats_url)
        self.stack.push_async_callback(bus.close)
        ledger = await PostgresLedger.connect(self._postgres_url, pool_min=1, pool_max=4)
        self.stack.push_async_callback(ledger.close)
        router = IntelligenceEngine("intelligence", seed=5)
        await router.start(Connections(bus=bus, telemetry=self.telemetry, clock=SystemClock(), ledger=ledger))
        self.stack.push_async_callback(router.stop, 1.0)
        # At some speeds of the machine a part of the outcomes would be left out, and here they are counted.
        router._parts.routing.strategies._thinning = Thinning(Random(5), most=math.inf)
        async with asyncio.timeout(20):
            while (
                len([agent for agent in router.agents() if agent.capabilities]) < 2
                or not lessons(router).standing().stream
            ):
                await asyncio.sleep(0.05)
        return router

    async def caught_up(self, *routers: IntelligenceEngine, tasks: int) -> None:
        """Wait until these learned from all tasks so far: a lesson is taught a moment after its task is recorded."""
        async with asyncio.timeout(20):
            while any(lessons(router).learned.values.lessons < tasks for router in routers):
                await asyncio.sleep(0.02)
            last = (await self.bus.lessons.state()).last
            while any(lessons(router).learned.sequence < last for router in routers):
                await asyncio.sleep(0.02)


def lessons(router: IntelligenceEngine) -> Lessons:
    return router._parts.routing.lessons


async def worked(router: IntelligenceEngine, numbers: range) -> list[str]:
    """Submit numbers with their parity as a feature, wait for all; which agents were chosen."""
    requests = [TaskRequest(task_type="parity", payload=n, features=[float(n % 2), 1.0]) for n in numbers]
    results = []
    async with asyncio.timeout(30):
        while not results or any(result.accepted is None for result in results):
            results = await router.submit(requests)
    accepted = [result.accepted for result in results if result.accepted is not None]
    await asyncio.gather(*(router.task(one.task_id, wait=20.0) for one in accepted))
    return [one.selected_agent or "" for one in accepted]


@pytest.fixture
async def site(nats_url: str, postgres_url: str) -> AsyncIterator[Site]:
    site = Site(nats_url, postgres_url)
    async with site.stack:
        await site.open()
        yield site


async def test_two_routers_learn_the_same_over_restarts_and_the_newcomer_reads_on_from_a_snapshot(site: Site) -> None:
    one, two = await site.router(), await site.router()
    for batch in range(4):
        await asyncio.gather(worked(one, range(batch * 20, batch * 20 + 10)), worked(two, range(10)))
    await site.caught_up(one, two, tasks=80)
    first, second = lessons(one).standing(), lessons(two).standing()
    assert (first.sequence, first.digest) == (second.sequence, second.digest)
    assert lessons(one).learned.values.lessons == 80, "every outcome is one lesson"

    assert await lessons(one).save()
    saved = first.sequence
    await two.stop(1.0)
    await worked(one, range(20))
    await site.caught_up(one, tasks=100)
    newcomer = await site.router()
    await site.caught_up(newcomer, one, tasks=100)
    assert lessons(newcomer).standing().digest == lessons(one).standing().digest
    assert lessons(newcomer).learned.sequence > saved
    assert lessons(newcomer).learned.values.lessons == 100
    assert site.telemetry.counts["routing_learned_mismatches_total"] == 0

    await lessons(one).tell()
    newcomer_values = lessons(newcomer).learned.values
    newcomer_values.learn(_unshared())
    await lessons(one).tell()
    async with asyncio.timeout(20):
        while lessons(newcomer).standing().digest != lessons(one).standing().digest:
            await asyncio.sleep(0.05)
    assert site.telemetry.counts["routing_learned_mismatches_total"] >= 1


async def test_what_was_learned_decides_and_the_decision_keeps_what_it_saw(site: Site) -> None:
    router = await site.router()
    for start in range(0, 240, 20):
        await worked(router, range(start, start + 20))
    await site.caught_up(router, tasks=240)
    chosen = await worked(router, range(40))
    right = sum(agent == ("odd" if n % 2 else "even") for n, agent in enumerate(chosen))
    assert right >= 34, chosen
    await site.caught_up(router, tasks=280)
    seen = lessons(router).learned.sequence
    requests = [TaskRequest(task_type="parity", payload=3, features=[1.0, 1.0], embedding=[0.25, 1e-40])]
    (result,) = await router.submit(requests)
    assert result.accepted is not None
    decision = await router.decision(result.accepted.request_id)
    assert decision.context is not None
    assert decision.context.features == (1.0, 1.0)
    assert decision.context.embedding == (0.25, 0.0)
    assert decision.state_sequence == seen
    assert decision.strategy == "adaptive"
    assert {candidate.agent for candidate in decision.candidates} == {"even", "odd"}
    assert sum(candidate.probability or 0.0 for candidate in decision.candidates) == pytest.approx(1.0)
    chosen_one = next(one for one in decision.candidates if one.agent == decision.selected_agent)
    assert chosen_one.probability == pytest.approx(decision.propensity)
    assert chosen_one.quality is not None
    assert 0.0 < decision.confidence <= 1.0


async def test_what_no_router_sealed_teaches_nobody(site: Site) -> None:
    router = await site.router()
    requests = [TaskRequest(task_type="parity", payload=1, requirements={"agent": "odd"})]
    await worked(router, range(4))
    await site.caught_up(router, tasks=4)
    assert lessons(router).learned.values.lessons == 4
    strategies, taught = router._parts.routing.strategies, list[Lesson]()
    strategies.teach = taught.append
    accepted = (await router.submit(requests))[0].accepted
    assert accepted is not None
    forged = Report(
        kind=ReportKind.FINAL,
        task_id=accepted.task_id,
        request_id=accepted.request_id,
        task_type="parity",
        agent="odd",
        status=TaskStatus.SUCCESS,
        quality=0.125,
    )
    await site.bus.signals.send(subjects.outcomes("evil"), msgspec.json.encode(ReportBatch(reports=(forged,))))
    await router.task(accepted.task_id, wait=20.0)
    async with asyncio.timeout(20):
        while not taught:
            await asyncio.sleep(0.02)
    assert [lesson.quality for lesson in taught] == [1.0], "the true outcome alone"


def _unshared() -> Any:
    """A lesson nobody else heard of."""
    return Lesson(kind="even", quality=0.5, task_type="parity")
