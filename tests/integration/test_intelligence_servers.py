"""Two routers and an agent on a real bus, database and cache."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.adapters.postgres import migrate
from agent_engines.adapters.postgres.ledger import PostgresLedger
from agent_engines.client import Client, TaskHandle, unasked
from agent_engines.client.bus_transport import BusTransport
from agent_engines.domain.agents import AgentMode
from agent_engines.domain.errors import NotFound, PermanentFailure
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.tasks import TaskRequest, TaskStatus
from agent_engines.engines.intelligence import IntelligenceEngine
from agent_engines.ports.connections import Connections
from agent_engines.runtime.engine import Engine


class Site:
    """Two routers, one agent; each with connections of its own."""

    def __init__(self, nats_url: str, postgres_url: str) -> None:
        self._nats_url = nats_url
        self._postgres_url = postgres_url
        self.one = IntelligenceEngine("intelligence")
        self.two = IntelligenceEngine("intelligence")
        self.agent = Engine("worker")
        self.failures = 1

        @self.agent.task("echo")
        async def echo(payload: Any) -> Any:
            return payload

        @self.agent.task("flaky")
        async def flaky(payload: Any) -> str:
            if self.failures:
                self.failures -= 1
                raise ValueError("not yet")
            return "at last"

        @self.agent.task("hopeless")
        async def hopeless(payload: Any) -> None:
            raise PermanentFailure("never")

    async def open(self, stack: AsyncExitStack) -> None:
        await migrate.migrate(self._postgres_url)
        first = True
        for engine in (self.one, self.two, self.agent):
            bus = await JetStreamBus.connect(self._nats_url)
            stack.push_async_callback(bus.close)
            if first:
                await bus.provision()
                first = False
            ledger = None
            if engine is not self.agent:
                ledger = await PostgresLedger.connect(self._postgres_url, pool_min=1, pool_max=4)
                stack.push_async_callback(ledger.close)
            await engine.start(Connections(bus=bus, telemetry=NullTelemetry(), clock=SystemClock(), ledger=ledger))
            stack.push_async_callback(engine.stop, 1.0)
        for router in (self.one, self.two):
            await self.choosable(router)

    async def choosable(self, router: IntelligenceEngine) -> None:
        async with asyncio.timeout(20):
            while True:
                (result,) = await router.submit([TaskRequest(task_type="echo")])
                if result.accepted is not None:
                    await router.task(result.accepted.task_id, wait=10.0)
                    return
                await asyncio.sleep(0.05)


@pytest.fixture
async def site(nats_url: str, postgres_url: str) -> AsyncIterator[Site]:
    site = Site(nats_url, postgres_url)
    async with AsyncExitStack() as stack:
        await site.open(stack)
        yield site


async def submitted(router: IntelligenceEngine, task_type: str, payload: Any = None, **fields: Any) -> str:
    (result,) = await router.submit([TaskRequest(task_type=task_type, payload=payload, **fields)])
    assert result.accepted is not None, result.refused
    return result.accepted.task_id


async def test_whichever_router_records_an_outcome_the_waiter_on_the_other_wakes(site: Site) -> None:
    for payload in range(10):
        task_id = await submitted(site.one, "echo", payload)
        one, two = await asyncio.gather(site.one.task(task_id, wait=10.0), site.two.task(task_id, wait=10.0))
        assert one == two
        assert (one.status, one.result) == (TaskStatus.SUCCESS, payload)


async def test_a_key_is_one_task_on_both_routers(site: Site) -> None:
    answers = await asyncio.gather(
        *(
            router.submit([TaskRequest(task_type="echo", payload={"b": 1, "a": 2}, idempotency_key="key")])
            for router in (site.one, site.two) * 5
        )
    )
    accepted = [result.accepted for (result,) in answers if result.accepted is not None]
    assert len(accepted) == 10
    assert len({answer.task_id for answer in accepted}) == 1
    assert sorted(answer.existing for answer in accepted) == [False] + [True] * 9
    (other,) = await site.two.submit([TaskRequest(task_type="echo", payload={}, idempotency_key="key")])
    assert other.refused is not None
    assert other.refused.kind == "Conflict"


async def test_a_retry_is_dispatched_by_one_of_them_and_its_story_is_the_same_on_both(site: Site) -> None:
    task_id = await submitted(site.one, "flaky")
    view = await site.two.task(task_id, wait=30.0)
    assert (view.status, view.result, view.attempts) == (TaskStatus.SUCCESS, "at last", 2)
    stories = [[(event.id, event.event) async for event in router.events(task_id)] for router in (site.one, site.two)]
    assert stories[0] == stories[1]
    assert [name for _, name in stories[0]] == ["queued", "running", "retrying", "running", "success"]


async def test_a_failed_task_runs_again_from_the_other_router(site: Site) -> None:
    task_id = await submitted(site.one, "hopeless")
    assert (await site.one.task(task_id, wait=10.0)).status is TaskStatus.FAILED
    await site.two.retry(task_id)
    assert (await site.one.task(task_id, wait=10.0)).status is TaskStatus.FAILED
    attempts = await site.one.attempts(task_id)
    assert [attempt.generation for attempt in attempts] == [1]


async def test_a_thousand_tasks_in_one_submission_all_come_back(site: Site) -> None:
    results = await site.one.submit([TaskRequest(task_type="echo", payload=n) for n in range(1000)])
    ids = [result.accepted.task_id for result in results if result.accepted is not None]
    views = await asyncio.gather(*(site.two.task(task_id, wait=60.0) for task_id in ids))
    assert [view.result for view in views] == list(range(1000))


async def test_an_operators_decision_holds_on_both_routers(site: Site) -> None:
    await site.one.set_mode("worker", AgentMode.QUARANTINED)
    async with asyncio.timeout(10):
        while site.two.agent("worker").mode is not AgentMode.QUARANTINED:
            await asyncio.sleep(0.02)
    (result,) = await site.two.submit([TaskRequest(task_type="echo")])
    assert result.refused is not None
    assert result.refused.kind == "NoEligibleAgent"
    await site.two.set_mode("worker", AgentMode.ACTIVE)
    await site.choosable(site.one)


async def test_when_one_router_stops_the_other_carries_on(site: Site) -> None:
    ids = [await submitted(site.one, "echo", n) for n in range(20)]
    await site.one.stop(1.0)
    views = [await site.two.task(task_id, wait=30.0) for task_id in ids]
    assert [view.result for view in views] == list(range(20))
    assert (await site.two.task(await submitted(site.two, "echo", 7), wait=10.0)).result == 7


async def test_two_routers_mark_with_one_key_and_one_of_them_leads(site: Site) -> None:
    """What one dispatched and the other records counts, whoever that is: nothing is refused."""
    for router in (site.one, site.two) * 10:
        task_id = await submitted(router, "echo", 1)
        assert (await router.task(task_id, wait=30.0)).status is TaskStatus.SUCCESS
    refused = [router._parts.recorder._gate.refused.total() for router in (site.one, site.two)]
    assert refused == [0, 0]
    async with asyncio.timeout(30):
        while True:
            leads = [router._parts.chores.leadership.leads() for router in (site.one, site.two)]
            assert leads.count(True) <= 1
            if any(leads):
                break
            await asyncio.sleep(0.05)


async def test_a_report_made_up_over_the_real_bus_is_refused(site: Site) -> None:
    task_id = await submitted(site.one, "echo", 1)
    assert (await site.one.task(task_id, wait=30.0)).result == 1
    never = "0193aaaa-0000-7000-8000-000000000000"
    forged = Report(
        kind=ReportKind.FINAL,
        task_id=never,
        request_id="r",
        task_type="echo",
        agent="worker",
        status=TaskStatus.SUCCESS,
        result=msgspec.Raw(b'"forged"'),
        capability=f"{'0' * 8}.{'0' * 32}",
    )
    await site.one._parts.connections.bus.reports.publish_reports("worker", [forged])
    gates = [router._parts.recorder._gate for router in (site.one, site.two)]
    async with asyncio.timeout(30):
        while not any(gate.refused for gate in gates):
            await asyncio.sleep(0.02)
    with pytest.raises(NotFound):
        await site.one.task(never)


@dataclass
class Asked:
    """A client over the bus that counts its questions by what they are about."""

    client: Client
    questions: Counter[str]


@pytest.fixture
async def asked(site: Site, nats_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Asked]:
    """It keeps ten outcomes nobody has asked for."""
    monkeypatch.setattr(unasked, "REMEMBERED", 10)
    bus = await JetStreamBus.connect(nats_url)
    questions: Counter[str] = Counter()
    ask = bus.signals.ask

    async def counted(subject: str, data: bytes, timeout: float) -> bytes:
        questions[subject.rpartition(".")[2]] += 1
        return await ask(subject, data, timeout)

    monkeypatch.setattr(bus.signals, "ask", counted)
    async with Client(transport=await BusTransport.open(bus)) as client:
        yield Asked(client, questions)


async def all_ended(site: Site, handles: list[TaskHandle]) -> None:
    await asyncio.gather(*(site.one.task(handle.task_id, wait=30.0) for handle in handles))


async def test_a_client_that_had_to_drop_outcomes_asks_for_many_at_once(site: Site, asked: Asked) -> None:
    handles = await asked.client.submit_many([("echo", n) for n in range(3000)])
    await all_ended(site, handles)
    assert [await handle.result(30) for handle in handles] == list(range(3000))
    assert asked.questions["several"] <= 3000 / 500 + 5
    assert asked.questions["task"] == 0


async def test_dropped_outcomes_that_fill_more_than_a_message_come_in_parts(site: Site, asked: Asked) -> None:
    texts = [random.Random(n).randbytes(150_000).hex() for n in range(60)]
    handles = await asked.client.submit_many([("echo", text) for text in texts])
    await all_ended(site, handles)
    found = await asyncio.gather(*(handle.result(30) for handle in handles))
    assert found == texts
    # 15 MB, 8 in a message.
    assert 2 <= asked.questions["several"] <= 20
    assert asked.questions["task"] == 0
