"""What one task costs the servers, counted and not timed: messages, bytes, statements and rows may not creep up.

A limit is about a third above what was counted when it was set; lower it when work is saved.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields

import asyncpg
import nats
import pytest

from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.embedded import Endpoints
from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.adapters.postgres.ledger import PostgresLedger
from agent_engines.adapters.postgres.migrate import migrate
from agent_engines.client.bus_transport import BusTransport
from agent_engines.client.client import Client
from agent_engines.domain.tasks import TaskRequest
from agent_engines.engines.intelligence import IntelligenceEngine
from agent_engines.ports.connections import Connections
from agent_engines.runtime.agent_config import AgentConfig
from agent_engines.runtime.engine import Engine

PAYLOAD = {"text": "x" * 245}
MANY, LONE = 1000, 150


@dataclass(frozen=True, slots=True)
class Work:
    """What the servers did. Messages and bytes are as the bus counts them, in and out; commits and rows are PostgreSQL's."""

    messages_in: float
    messages_out: float
    bytes_in: float
    bytes_out: float
    task_messages: float
    result_messages: float
    commits: float
    rows_inserted: float
    rows_updated: float

    def beyond(self, other: Work, tasks: int) -> Work:
        """For each of `tasks`, what was done more than in `other`."""
        return Work(*((getattr(self, one.name) - getattr(other, one.name)) / tasks for one in fields(self)))

    def above(self, limits: Work) -> dict[str, tuple[float, float]]:
        """What is more than its limit: (counted, limit)."""
        pairs = {one.name: (round(getattr(self, one.name), 3), getattr(limits, one.name)) for one in fields(self)}
        return {name: pair for name, pair in pairs.items() if pair[0] > pair[1]}


Job = Callable[[Client], Awaitable[None]]


async def many(client: Client) -> None:
    handles = await client.submit_many([TaskRequest(task_type="work", payload=PAYLOAD) for _ in range(MANY)])
    for handle in handles:
        assert await handle.result(timeout=60) == PAYLOAD


async def one_after_the_other(client: Client) -> None:
    for _ in range(LONE):
        assert await (await client.submit("work", PAYLOAD)).result(timeout=60) == PAYLOAD


async def nothing(client: Client) -> None:
    """What starting and stopping costs."""


async def counted(servers: Endpoints, job: Job) -> Work:
    """Everything the servers did from the start of a router, an agent and a client to their end."""
    async with database(servers) as url:
        await migrate(url)
        rows_before = await rows(servers, url)
        bus_before = await bus_counters(servers)
        async with system(servers, url) as client:
            await job(client)
            stored = await stream_messages(servers)
        bus_after = await bus_counters(servers)
        rows_after = await rows(servers, url)
    return Work(
        *(after - before for before, after in zip(bus_before, bus_after, strict=True)),
        *stored,
        *(after - before for before, after in zip(rows_before, rows_after, strict=True)),
    )


@asynccontextmanager
async def system(servers: Endpoints, postgres_url: str) -> AsyncIterator[Client]:
    """A router with its recorder, an agent and a client, each with a connection of its own."""
    agent = Engine(AgentConfig("worker", http_port=None))

    @agent.task("work", idempotent=True)
    async def work(payload: dict[str, str]) -> dict[str, str]:
        return payload

    async with AsyncExitStack() as exits:
        ledger = await PostgresLedger.connect(postgres_url, pool_min=1, pool_max=10)
        exits.push_async_callback(ledger.close)
        router = IntelligenceEngine(AgentConfig("intelligence", http_port=None), seed=1)
        for engine, store in ((router, ledger), (agent, None)):
            bus = await JetStreamBus.connect(servers.nats_url)
            exits.push_async_callback(bus.close)
            await bus.provision()
            await engine.start(Connections(bus=bus, telemetry=NullTelemetry(), clock=SystemClock(), ledger=store))
            exits.push_async_callback(engine.stop, 5.0)
        transport = await BusTransport.open(await JetStreamBus.connect(servers.nats_url))
        client = await exits.enter_async_context(Client(transport=transport))
        async with asyncio.timeout(30):
            # Until the router has heard of the agent.
            while not await client.transport.read("agents"):
                await asyncio.sleep(0.05)
        yield client


@asynccontextmanager
async def database(servers: Endpoints) -> AsyncIterator[str]:
    name = f"counted_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(servers.postgres_url, ssl=False)
    try:
        # Its statistics are rows and commits too, and come when they like.
        await connection.execute("ALTER SYSTEM SET autovacuum = off")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.execute(f"CREATE DATABASE {name}")
        yield f"{servers.postgres_url.rpartition('/')[0]}/{name}"
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.execute("ALTER SYSTEM RESET autovacuum")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.close()


async def rows(servers: Endpoints, url: str) -> tuple[int, int, int]:
    """(commits, rows inserted, rows updated) in the database; a session tells its share when it ends, so all must have."""
    connection = await asyncpg.connect(servers.postgres_url, ssl=False)
    try:
        async with asyncio.timeout(30):
            while True:
                found = await connection.fetchrow(
                    "SELECT numbackends, xact_commit, tup_inserted, tup_updated FROM pg_stat_database WHERE datname = $1",
                    url.rpartition("/")[2],
                )
                if found[0] == 0:
                    return found[1], found[2], found[3]
                await asyncio.sleep(0.05)
    finally:
        await connection.close()


async def bus_counters(servers: Endpoints) -> tuple[int, int, int, int]:
    """Messages and bytes that clients sent to the server and got from it, since it was started."""

    def ask() -> dict[str, int]:
        with urllib.request.urlopen(f"{servers.nats_monitor_url}/varz", timeout=10) as answer:
            return json.load(answer)

    found = await asyncio.to_thread(ask)
    return found["in_msgs"], found["out_msgs"], found["in_bytes"], found["out_bytes"]


async def stream_messages(servers: Endpoints) -> tuple[int, int]:
    """Messages ever stored in the tasks' streams and in the results'; a message of results may hold many."""
    client = await nats.connect(servers.nats_url)
    try:
        streams = {one.config.name: one.state.last_seq for one in await client.jetstream().streams_info()}
        tasks = sum(last for name, last in streams.items() if str(name).startswith("TASKS"))
        return tasks, streams["RESULTS"]
    finally:
        await client.close()


@pytest.fixture
async def idle(nats_url: str, servers: Endpoints) -> Work:
    """What it costs to start all and to stop it again."""
    found = await counted(servers, nothing)
    await _forget_streams(servers)
    return found


async def test_a_thousand_tasks_at_once_cost_the_servers_no_more_than_before(idle: Work, servers: Endpoints) -> None:
    """Counted: 2.1 messages in and out, 3.2 KB in, 3.9 KB out; 10 to 18 messages of results; 20 commits, all for 1,000."""
    limits = Work(
        messages_in=2.8,
        messages_out=2.8,
        bytes_in=4_300,
        bytes_out=5_200,
        task_messages=1.0,
        result_messages=0.03,
        commits=0.04,
        rows_inserted=4.0,
        rows_updated=1.35,
    )
    cost = (await counted(servers, many)).beyond(idle, MANY)
    assert cost.task_messages == 1.0, "every task is published once"
    assert cost.rows_inserted >= 2, "a task and its result are rows, or nothing was counted"
    assert cost.above(limits) == {}


async def test_a_lone_task_costs_the_servers_no_more_than_before(idle: Work, servers: Endpoints) -> None:
    """Counted: 9.2 to 9.5 messages in, 10.2 to 10.5 out, 3.1 KB in, 3.9 KB out, 2.1 to 2.2 commits for each."""
    limits = Work(
        messages_in=12.5,
        messages_out=13.9,
        bytes_in=4_100,
        bytes_out=5_200,
        task_messages=1.0,
        result_messages=1.0,
        commits=2.9,
        rows_inserted=4.0,
        rows_updated=1.35,
    )
    cost = (await counted(servers, one_after_the_other)).beyond(idle, LONE)
    assert cost.result_messages == 1.0, "a lone report does not wait for company"
    assert cost.above(limits) == {}


async def _forget_streams(servers: Endpoints) -> None:
    client = await nats.connect(servers.nats_url)
    try:
        for stream in await client.jetstream().streams_info():
            await client.jetstream().delete_stream(str(stream.config.name))
    finally:
        await client.close()
