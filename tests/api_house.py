"""A whole system in one process behind the real HTTP application: the real engines on the in-memory adapters."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

import asyncpg
import httpx2
import nats
import pytest_asyncio

from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.embedded import Endpoints
from agent_engines.adapters.http_server import HttpServer
from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.adapters.memory.bus import MemoryBus
from agent_engines.adapters.memory.cache import MemoryCache
from agent_engines.adapters.memory.ledger import MemoryLedger
from agent_engines.adapters.postgres import migrate
from agent_engines.adapters.postgres.ledger import PostgresLedger
from agent_engines.api.app import create_app
from agent_engines.api.edge import Edge
from agent_engines.api.limits import ApiLimits
from agent_engines.domain.decisions import DecisionContext
from agent_engines.domain.errors import NoEligibleAgent, PermanentFailure
from agent_engines.engines.intelligence import IntelligenceEngine
from agent_engines.ports.bus import Bus
from agent_engines.ports.connections import Connections
from agent_engines.ports.ledger import Ledger
from agent_engines.runtime.agent_config import AgentConfig
from agent_engines.runtime.context import TaskContext
from agent_engines.runtime.engine import Engine

UNKNOWN = "00000000-0000-4000-8000-000000000000"


class QuietSpan:
    traceparent: str | None = None

    def set(self, **attributes: Any) -> None:
        """Nobody looks."""


class KeptTelemetry:
    """Implements ports.telemetry.Telemetry: keeps log lines for the test to read, drops the rest."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def log(self, logger: str) -> KeptTelemetry:
        return self

    def debug(self, message: str, **context: Any) -> None:
        self.lines.append(("debug", message, context))

    def info(self, message: str, **context: Any) -> None:
        self.lines.append(("info", message, context))

    def warning(self, message: str, **context: Any) -> None:
        self.lines.append(("warning", message, context))

    def error(self, message: str, **context: Any) -> None:
        self.lines.append(("error", message, context))

    def task_done(self, agent: str, status: str, seconds: float | None) -> None: ...

    def queue_size(self, agent: str, size: int) -> None: ...

    def decided(self, strategy: str, outcome: str) -> None: ...

    def breaker(self, agent: str, state: int) -> None: ...

    def count(self, name: str, amount: float = 1, **labels: str) -> None: ...

    def gauge(self, name: str, value: float, **labels: str) -> None: ...

    def forget(self, name: str, **labels: str) -> None: ...

    tracing = False

    @contextmanager
    def span(
        self, name: str, *, parent: str | None = None, kind: str = "internal", **attributes: Any
    ) -> Iterator[QuietSpan]:
        yield QuietSpan()


@dataclass
class House:
    """`release` lets tasks of the type `held` end; `began` is set when one runs."""

    app: Edge
    http: httpx2.AsyncClient
    service: IntelligenceEngine
    bus: Any
    telemetry: KeptTelemetry
    release: asyncio.Event = field(default_factory=asyncio.Event)
    began: asyncio.Event = field(default_factory=asyncio.Event)

    async def ended(self, task_type: str, payload: Any = None, **more: Any) -> dict[str, Any]:
        """Route one task and wait for its end."""
        body = {"task_type": task_type, "payload": payload, **more}
        answer = await self.http.post("/route-task", params={"wait": 20}, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def held(self) -> str:
        """Submit a task that runs until `release`; its id, once it runs."""
        self.began.clear()
        self.release.clear()
        answer = await self.http.post("/v1/tasks", json={"task_type": "held"})
        assert answer.status_code == 202, answer.text
        await self.began.wait()
        return answer.json()["task_id"]


def workers(house: House) -> Engine:
    """An agent that behaves in the ways the tests need."""
    engine = Engine(AgentConfig(agent_id="worker-1", http_port=None, shutdown_grace_seconds=0))

    @engine.task("listed")
    @engine.task("echo")
    async def echo(payload: Any) -> Any:
        return payload

    @engine.task("held")
    async def held(payload: Any) -> str:
        house.began.set()
        await house.release.wait()
        return "released"

    @engine.task("broken", max_attempts=1)
    async def broken(payload: Any) -> None:
        raise PermanentFailure("it never works")

    @engine.task("unlucky", max_attempts=1)
    async def unlucky(payload: Any) -> None:
        raise RuntimeError("not this time")

    @engine.task("steps")
    async def steps(context: TaskContext, payload: Any) -> str:
        for step in (1, 2, 3):
            await context.progress(step / 3, f"step {step}")
        return "done"

    return engine


def describe_metrics() -> tuple[bytes, str]:
    return b"# HELP agent_tasks_total Tasks.\n", "text/plain; version=0.0.4; charset=utf-8"


@asynccontextmanager
async def open_house(
    *,
    limits: ApiLimits | None = None,
    bus: Bus | None = None,
    ledger: Ledger | None = None,
    agents: bool = True,
    others: tuple[Engine, ...] = (),
) -> AsyncIterator[House]:
    """Everything started, at least one agent heard from; everything stopped afterwards."""
    clock, telemetry, bus = SystemClock(), KeptTelemetry(), bus or MemoryBus()
    outside = Connections(bus, telemetry, clock, ledger or MemoryLedger(clock), MemoryCache())
    service = IntelligenceEngine(AgentConfig(agent_id="intelligence", http_port=None), seed=7)
    app = create_app(
        service,
        limits=limits or ApiLimits(),
        metrics=describe_metrics,
        telemetry=telemetry,
        clock=clock,
        version="0.1.0",
    )
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://engines.test") as http:
        house = House(app, http, service, bus, telemetry)
        engines = [service, *([workers(house)] if agents else []), *others]
        await bus.provision()
        for engine in engines:
            await engine.start(outside)
        try:
            if agents:
                await _until_eligible(service)
            yield house
        finally:
            house.release.set()
            for engine in reversed(engines):
                await engine.stop()
            await bus.close()


async def _until_eligible(service: IntelligenceEngine) -> None:
    """Return when the worker may be chosen: heard from, and known to the ledger."""
    async with asyncio.timeout(20):
        while True:
            try:
                await service.recommend(DecisionContext(request_id="warm-up", task_type="echo"))
                return
            except NoEligibleAgent:
                await asyncio.sleep(0.005)


def house_fixture(**options: Any) -> Any:
    """A fixture that opens one house for all tests of a module: starting and stopping takes a second."""

    @pytest_asyncio.fixture(scope="module", loop_scope="module")
    async def house() -> AsyncIterator[House]:
        async with open_house(**options) as opened:
            yield opened

    return house


class HouseThread:
    """A house behind a real HTTP server, living in a thread of its own: for tests that block.

    With `servers`, on the real bus and the real ledger; else in memory.
    """

    def __init__(self, servers: Endpoints | None = None) -> None:
        self._servers = servers
        self._started: Future[str] = Future()
        self._stop = Event()
        self._thread = Thread(target=self._run, name="house")
        self.telemetry = KeptTelemetry()

    def __enter__(self) -> HouseThread:
        self._thread.start()
        self.url = self._started.result(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _live(self) -> None:
        async with _outside(self._servers) as parts, open_house(limits=ApiLimits(body_seconds=1.0), **parts) as house:
            self.telemetry = house.telemetry
            server = HttpServer(house.app, host="127.0.0.1", port=0, drain=house.app.begin_drain)
            await server.start()
            self._started.set_result(server.url)
            await asyncio.to_thread(self._stop.wait)
            await server.stop(5)


@asynccontextmanager
async def _outside(servers: Endpoints | None) -> AsyncIterator[dict[str, Any]]:
    """The real bus and ledger, the latter in a database of its own; everything is removed afterwards."""
    if servers is None:
        yield {}
        return
    name = f"house_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(servers.postgres_url, ssl=False)
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        url = f"{servers.postgres_url.rpartition('/')[0]}/{name}"
        await migrate.migrate(url)
        ledger = await PostgresLedger.connect(url, pool_min=1, pool_max=8)
        yield {"bus": await JetStreamBus.connect(servers.nats_url), "ledger": ledger}
        await ledger.close()
        client = await nats.connect(servers.nats_url)
        for stream in await client.jetstream().streams_info():
            await client.jetstream().delete_stream(str(stream.config.name))
        await client.close()
    finally:
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await admin.close()
