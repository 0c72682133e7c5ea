"""One trace from the caller through the router to the handler, and to the tasks the handler hands in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace as otel

from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.memory.bus import MemoryBus
from agent_engines.adapters.memory.ledger import MemoryLedger
from agent_engines.adapters.telemetry.telemetry import ProcessTelemetry, create_telemetry
from agent_engines.client.bus_transport import BusTransport
from agent_engines.config import load_config
from agent_engines.domain.decisions import DecisionContext
from agent_engines.domain.errors import InvalidRequest, NoEligibleAgent
from agent_engines.domain.tasks import TaskRequest
from agent_engines.engines.intelligence import IntelligenceEngine
from agent_engines.ports.connections import Connections
from agent_engines.public.client import Client
from agent_engines.runtime.agent_config import AgentConfig
from agent_engines.runtime.engine import Engine
from otlp_collector import Collector, collector_fixture

__all__ = ["collector_fixture"]

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADER = f"00-{TRACE}-{SPAN}-01"


class Site:
    """A router and an agent that export to `collector`, and a client on the same bus in memory."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._bus = MemoryBus()
        self._clock = SystemClock()
        self._telemetry = [self._exporting("intelligence"), self._exporting("custom")]
        self.router = IntelligenceEngine(AgentConfig("intelligence", http_port=None), seed=1)
        self.agent = Engine(AgentConfig("worker", http_port=None))
        self.client = Client()

        @self.agent.task("echo")
        async def echo(payload: Any) -> Any:
            return payload

        @self.agent.task("delegate")
        async def delegate(payload: Any) -> Any:
            return await (await self.client.submit("echo", payload)).result(10)

    def _exporting(self, engine: str) -> ProcessTelemetry:
        environ = {"ENABLE_TRACING": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": self._collector.url}
        return create_telemetry(load_config(environ, Path("/nonexistent/.env")), engine, descriptor=2, bridged=False)

    async def open(self) -> None:
        await self._bus.provision()
        ledger = MemoryLedger(self._clock)
        for engine, telemetry in zip((self.router, self.agent), self._telemetry, strict=True):
            await engine.start(Connections(bus=self._bus, telemetry=telemetry, clock=self._clock, ledger=ledger))
        self.client = Client(transport=await BusTransport.open(self._bus, owns_bus=False))
        await self.client.open()
        async with asyncio.timeout(20):
            while True:
                try:
                    await self.router.recommend(DecisionContext(request_id="warm-up", task_type="echo"))
                    return
                except NoEligibleAgent:
                    await asyncio.sleep(0.005)

    async def close(self) -> None:
        await self.client.close()
        for engine in (self.agent, self.router):
            await engine.stop()
        await self._bus.close()

    async def spans(self) -> list[Any]:
        """All there are, once everything has been exported."""
        for telemetry in self._telemetry:
            await asyncio.to_thread(telemetry.shutdown)
        return self._collector.spans


@pytest.fixture
async def site(collector: Collector) -> AsyncIterator[Site]:
    made = Site(collector)
    await made.open()
    yield made
    await made.close()


def attributes(span: Any) -> dict[str, Any]:
    return {
        one.key.removeprefix("agent_engines."): one.value.string_value or one.value.int_value or one.value.double_value
        for one in span.attributes
    }


async def test_a_task_of_a_program_without_a_trace_begins_one_at_the_router(site: Site) -> None:
    handle = await site.client.submit("echo", 1)
    await handle.result(10)
    route, process = sorted(await site.spans(), key=lambda span: span.name, reverse=True)
    assert (route.name, process.name) == ("route", "process")
    assert route.parent_span_id == b""
    assert process.trace_id == route.trace_id
    assert process.parent_span_id == route.span_id
    told = attributes(route)
    assert told["task_id"] == handle.task_id
    assert told["selected_agent"] == "worker"
    assert told["task_type"] == "echo"
    assert told["propensity"] == 1.0


async def test_a_task_handed_in_under_a_span_belongs_to_its_trace(site: Site) -> None:
    context = otel.SpanContext(int(TRACE, 16), int(SPAN, 16), is_remote=False, trace_flags=otel.TraceFlags(1))
    with otel.use_span(otel.NonRecordingSpan(context)):
        handle = await site.client.submit("echo", 1)
    await handle.result(10)
    route, process = sorted(await site.spans(), key=lambda span: span.name, reverse=True)
    assert route.trace_id.hex() == process.trace_id.hex() == TRACE
    assert route.parent_span_id.hex() == SPAN
    assert process.parent_span_id == route.span_id


async def test_what_a_handler_hands_in_belongs_to_the_trace_of_its_own_task(site: Site) -> None:
    handle = await site.client.submit_request(TaskRequest(task_type="delegate", payload=7, traceparent=HEADER))
    assert await handle.result(10) == 7
    spans = {(span.name, attributes(span)["task_type"]): span for span in await site.spans()}
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    assert spans["process", "delegate"].parent_span_id == spans["route", "delegate"].span_id
    assert spans["route", "echo"].parent_span_id == spans["process", "delegate"].span_id
    assert spans["process", "echo"].parent_span_id == spans["route", "echo"].span_id


async def test_tasks_of_several_traces_that_travel_together_keep_their_own(site: Site) -> None:
    other = HEADER.replace(TRACE, "1" * 32)
    requests = [TaskRequest(task_type="echo", payload=header, traceparent=header) for header in (HEADER, other)]
    for handle in await site.client.submit_many(requests):
        await handle.result(10)
    spans = await site.spans()
    (route,) = [span for span in spans if span.name == "route"]
    assert attributes(route)["accepted"] == 2
    assert {span.trace_id.hex() for span in spans if span is not route} == {TRACE, "1" * 32}


async def test_a_trace_that_is_none_is_refused_by_name(site: Site) -> None:
    with pytest.raises(InvalidRequest, match="traceparent must be a W3C trace context header") as refused:
        await site.client.submit_request(TaskRequest(task_type="echo", traceparent="nonsense"))
    assert refused.value.field == "traceparent"
