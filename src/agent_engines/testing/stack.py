"""A whole system for a test: on real servers (`local_stack`) or inside the test's own process (`in_process`).

async with local_stack(my_engine) as stack:
    handle = await stack.client.submit("greet", {"name": "Ada"})
    assert await handle.result(timeout=10) == {"text": "Hello, Ada!"}
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.embedded import EmbeddedServers, Endpoints
from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.adapters.memory.bus import MemoryBus
from agent_engines.adapters.memory.cache import MemoryCache
from agent_engines.adapters.memory.ledger import MemoryLedger
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.adapters.postgres.ledger import PostgresLedger
from agent_engines.adapters.postgres.migrate import migrate
from agent_engines.adapters.redis_cache import connect_cache
from agent_engines.client.bus_transport import BusTransport
from agent_engines.client.client import Client
from agent_engines.domain.errors import Unavailable
from agent_engines.engines.intelligence import IntelligenceEngine
from agent_engines.engines.optimizing import OptimizingEngine
from agent_engines.engines.performance import PerformanceEngine
from agent_engines.ports.connections import Connections
from agent_engines.runtime.engine import Engine

STOP_SECONDS = 5.0
HEARD_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Stack:
    """A running system. `endpoints` is None for the in-process one; `telemetry` keeps what the engines told."""

    client: Client
    intelligence: IntelligenceEngine
    connections: Connections
    telemetry: NullTelemetry
    endpoints: Endpoints | None = None


@asynccontextmanager
async def local_stack(*engines: Engine, data_dir: Path | None = None) -> AsyncGenerator[Stack]:
    """Real NATS, PostgreSQL and Valkey on free ports, the three built-in engines and yours; everything is gone afterwards.

    The router has heard from your engines when it is entered. Takes a few seconds. `data_dir` None: a temporary folder.
    Raises EmbeddedServerError, Unavailable.
    """
    async with AsyncExitStack() as exits:
        folder = data_dir or Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="agent-engines-")))
        servers = await exits.enter_async_context(EmbeddedServers(folder, ephemeral=True))
        endpoints = servers.endpoints
        assert endpoints.postgres_url
        await migrate(endpoints.postgres_url)
        bus = await JetStreamBus.connect(endpoints.nats_url, name="local-stack")
        exits.push_async_callback(bus.close)
        await bus.provision()
        ledger = await PostgresLedger.connect(endpoints.postgres_url, pool_min=1, pool_max=10)
        exits.push_async_callback(ledger.close)
        cache = connect_cache(endpoints.redis_url)
        exits.push_async_callback(cache.close)
        telemetry = NullTelemetry()
        connections = Connections(bus=bus, telemetry=telemetry, clock=SystemClock(), ledger=ledger, cache=cache)
        yield await _started(exits, connections, telemetry, engines, endpoints)


@asynccontextmanager
async def in_process(*engines: Engine) -> AsyncGenerator[Stack]:
    """The same engines on in-memory adapters: starts in milliseconds, needs no server, keeps nothing."""
    async with AsyncExitStack() as exits:
        bus = MemoryBus()
        exits.push_async_callback(bus.close)
        telemetry = NullTelemetry()
        clock = SystemClock()
        connections = Connections(
            bus=bus, telemetry=telemetry, clock=clock, ledger=MemoryLedger(clock), cache=MemoryCache()
        )
        yield await _started(exits, connections, telemetry, engines, None)


async def _started(
    exits: AsyncExitStack,
    connections: Connections,
    telemetry: NullTelemetry,
    engines: Sequence[Engine],
    endpoints: Endpoints | None,
) -> Stack:
    intelligence = IntelligenceEngine()
    for engine in (intelligence, PerformanceEngine(), OptimizingEngine(), *engines):
        await engine.start(connections)
        exits.push_async_callback(engine.stop, STOP_SECONDS)
    try:
        async with asyncio.timeout(HEARD_SECONDS):
            await intelligence.wait_for_agents({engine.config.agent_id for engine in engines})
    except TimeoutError:
        raise Unavailable(f"the router has not heard from every engine within {HEARD_SECONDS:g} s") from None
    transport = await BusTransport.open(connections.bus, owns_bus=False)
    client = await exits.enter_async_context(Client(transport=transport))
    return Stack(client, intelligence, connections, telemetry, endpoints)
