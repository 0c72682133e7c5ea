"""What callers see while a server is away or full: each cell of the table in docs/guides/degraded-modes.md."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx2
import nats
import pytest
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from agent_engines.adapters.embedded import Endpoints
from agent_engines.adapters.embedded.binaries import find_nats_server
from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.adapters.jetstream.streams import Limits
from agent_engines.adapters.postgres.ledger import PostgresLedger
from agent_engines.adapters.postgres.migrate import migrate
from api_house import House, open_house
from fault_proxy import FaultProxy
from nats_cluster import free_ports

PATIENCE = 60.0


@dataclass
class Degraded:
    """A router with its HTTP side and an agent, on real servers behind proxies that can take them away."""

    house: House
    bus: FaultProxy
    ledger: FaultProxy
    postgres_url: str

    async def submit(self, task_type: str = "echo", payload: Any = None, **more: Any) -> httpx2.Response:
        return await self.house.http.post("/v1/tasks", json={"task_type": task_type, "payload": payload, **more})

    async def read(self, task_id: str, **query: Any) -> httpx2.Response:
        return await self.house.http.get(f"/v1/tasks/{task_id}", params=query)

    async def rows(self, query: str) -> list[asyncpg.Record]:
        """Past the proxy."""
        connection = await asyncpg.connect(self.postgres_url, ssl=False)
        try:
            return await connection.fetch(query)
        finally:
            await connection.close()

    async def answers(self, status: int, ask: Callable[[], Any]) -> httpx2.Response:
        """The first answer with this status; what comes before is a server on its way out or back."""
        async with asyncio.timeout(PATIENCE):
            while True:
                answer = await ask()
                if answer.status_code == status:
                    return answer
                assert answer.status_code in (200, 202, 503), answer.text
                await asyncio.sleep(0.05)


def away(proxy: FaultProxy) -> None:
    """Gone, as a killed server is: connections reset, new ones refused."""
    proxy.refuses = True
    proxy.reset()


@asynccontextmanager
async def degraded(servers: Endpoints, nats_url: str, *, sync_always: bool) -> AsyncGenerator[Degraded]:
    async with AsyncExitStack() as exits:
        name = f"degraded_{secrets.token_hex(6)}"
        admin = await asyncpg.connect(servers.postgres_url, ssl=False)
        await admin.execute(f"CREATE DATABASE {name}")

        async def drop() -> None:
            await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            await admin.close()

        exits.push_async_callback(drop)
        postgres_url = f"{servers.postgres_url.rpartition('/')[0]}/{name}"
        await migrate(postgres_url)
        to_bus = await exits.enter_async_context(FaultProxy(lambda: port_of(nats_url)))
        to_ledger = await exits.enter_async_context(FaultProxy(lambda: port_of(postgres_url)))
        ledger = await PostgresLedger.connect(through(to_ledger, postgres_url), pool_min=1, pool_max=6)
        exits.push_async_callback(ledger.close)
        bus = await JetStreamBus.connect(
            through(to_bus, nats_url), lease_seconds=5.0, limits=Limits(sync_always=sync_always)
        )
        house = await exits.enter_async_context(open_house(bus=bus, ledger=ledger))
        yield Degraded(house, to_bus, to_ledger, postgres_url)
        to_bus.heal()
        to_ledger.heal()


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def through(proxy: FaultProxy, url: str) -> str:
    return url.replace(f":{port_of(url)}", f":{proxy.port}")


@pytest.fixture
async def safe(servers: Endpoints, nats_url: str) -> AsyncIterator[Degraded]:
    """On a bus that is said to write everything to the disk before it acknowledges it."""
    async with degraded(servers, nats_url, sync_always=True) as one:
        yield one


@pytest.fixture
async def plain(servers: Endpoints, nats_url: str) -> AsyncIterator[Degraded]:
    async with degraded(servers, nats_url, sync_always=False) as one:
        yield one


def is_refusal(answer: httpx2.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) >= 1


async def test_postgresql_is_away_tasks_are_journaled_run_and_recorded_afterwards(safe: Degraded) -> None:
    before = await safe.house.ended("echo", "before")
    away(safe.ledger)
    answer = await safe.answers(202, lambda: safe.submit("echo", "during"))
    body = answer.json()
    assert body["durability"] == "journal"
    keyed = await safe.submit("echo", "keyed", idempotency_key="k")
    assert (keyed.status_code, keyed.json()["durability"]) == (202, "journal")
    repeated = await safe.submit("echo", "keyed", idempotency_key="k")
    assert repeated.json()["task_id"] == keyed.json()["task_id"]
    assert (await safe.submit("echo", "other", idempotency_key="k")).status_code == 409
    # Execution goes on; the outcome waits on the bus.
    async with asyncio.timeout(PATIENCE):
        while (await safe.house.bus.reports.state()).waiting == 0:
            await asyncio.sleep(0.05)
    is_refusal(await safe.answers(503, lambda: safe.read(body["task_id"])))
    assert (await safe.read(before["task_id"])).json()["result"] == "before"
    assert (await safe.rows("SELECT count(*) AS found FROM tasks"))[0]["found"] == 1
    safe.ledger.heal()
    for accepted, result in ((body, "during"), (keyed.json(), "keyed")):
        found = await safe.answers(200, lambda one=accepted: safe.read(one["task_id"], wait=20))
        async with asyncio.timeout(PATIENCE):
            while (view := found.json())["status"] != "success":
                found = await safe.read(accepted["task_id"], wait=20)
        assert view["result"] == result
    assert (await safe.answers(202, lambda: safe.submit("echo", "after"))).json()["durability"] in (
        "committed",
        "journal",
    )


async def test_postgresql_is_away_and_the_bus_may_forget_so_nothing_is_accepted(plain: Degraded) -> None:
    before = await plain.house.ended("echo", "before")
    away(plain.ledger)
    is_refusal(await plain.answers(503, plain.submit))
    is_refusal(await plain.submit())
    assert (await plain.read(before["task_id"])).json()["status"] == "success"
    plain.ledger.heal()
    answer = await plain.answers(202, plain.submit)
    assert answer.json()["durability"] == "committed"


async def test_nats_is_away_submissions_are_refused_and_reads_go_on(safe: Degraded) -> None:
    before = await safe.house.ended("echo", "before")
    away(safe.bus)
    is_refusal(await safe.answers(503, safe.submit))
    # From PostgreSQL: no cache remembers what has not ended, nor lists.
    assert (await safe.read(before["task_id"])).json()["result"] == "before"
    listed = await safe.house.http.get("/v1/tasks")
    assert before["task_id"] in {task["task_id"] for task in listed.json()["items"]}
    safe.bus.heal()
    answer = await safe.answers(202, lambda: safe.submit("echo", "after"))
    async with asyncio.timeout(PATIENCE):
        while (await safe.read(answer.json()["task_id"], wait=20)).json()["status"] != "success":
            await asyncio.sleep(0.05)


async def test_both_are_away_and_nothing_is_accepted(safe: Degraded) -> None:
    away(safe.ledger)
    away(safe.bus)
    is_refusal(await safe.answers(503, safe.submit))
    safe.ledger.heal()
    safe.bus.heal()
    assert (await safe.answers(202, safe.submit)).json()["task_id"]


@pytest.fixture
async def small_bus(tmp_path: Path) -> AsyncIterator[str]:
    """A NATS server of its own whose store takes 20 MB."""
    port, monitor = free_ports(2)
    settings = tmp_path / "nats.conf"
    settings.write_text(
        f'port: {port}\nhttp: {monitor}\nmax_payload: 8MB\njetstream {{ store_dir: "{tmp_path}/store", max_file_store: 20MB }}\n'
    )
    process = await asyncio.create_subprocess_exec(
        str(find_nats_server()), "-c", str(settings), stderr=asyncio.subprocess.DEVNULL
    )
    url = f"nats://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await (await nats.connect(url, max_reconnect_attempts=0)).close()
                    break
                except (OSError, NatsError):
                    await asyncio.sleep(0.1)
        yield url
    finally:
        process.kill()
        await process.wait()


async def test_a_full_queue_says_429_and_what_empties_it_still_works(servers: Endpoints, small_bus: str) -> None:
    async with degraded(servers, small_bus, sync_always=False) as system:
        house = system.house
        accepted: list[str] = []
        blocker = await house.held()
        large = "x" * 500_000
        while (answer := await system.submit("held", large)).status_code == 202:
            accepted.append(answer.json()["task_id"])
            assert len(accepted) < 100
        assert answer.status_code == 429, answer.text
        assert int(answer.headers["retry-after"]) >= 1
        # Another class has its own room, and outcomes have theirs.
        assert (await house.ended("echo", "urgent", priority=1))["result"] == "urgent"
        house.release.set()
        for task_id in (blocker, *accepted):
            async with asyncio.timeout(PATIENCE):
                while (await system.read(task_id, wait=20)).json()["status"] != "success":
                    await asyncio.sleep(0.05)
        rows = await system.rows("SELECT count(*) AS found FROM tasks")
        assert rows[0]["found"] == len(accepted) + 2


async def fill(stream: JetStreamContext, subject: str) -> None:
    """Until the server refuses."""
    for _ in range(100):
        await stream.publish(subject, b"x" * 1_000_000)
    raise AssertionError("the store has no end")


async def test_a_full_disk_refuses_keeps_what_was_accepted_and_recovers(servers: Endpoints, small_bus: str) -> None:
    """An operator's stream without a bound takes the whole store: the server then refuses every stream."""
    client = await nats.connect(small_bus)
    stream = client.jetstream()
    await stream.add_stream(name="GREEDY", subjects=["greedy"])
    async with degraded(servers, small_bus, sync_always=True) as system:
        before = await system.house.ended("echo", "before")
        with pytest.raises(NatsError, match="insufficient resources"):
            await fill(stream, "greedy")
        answers = [await system.submit("echo", number) for number in range(5)]
        for answer in answers:
            is_refusal(answer)
        assert (await system.read(before["task_id"])).json()["result"] == "before"
        await stream.purge_stream("GREEDY")
        after = await system.answers(202, lambda: system.submit("echo", "after"))
        async with asyncio.timeout(PATIENCE):
            while (await system.read(after.json()["task_id"], wait=20)).json()["status"] != "success":
                await asyncio.sleep(0.05)
        rows = await system.rows("SELECT status FROM tasks")
        assert {row["status"] for row in rows} <= {"success", "queued"}
    await client.close()


async def test_a_report_log_full_of_recorded_outcomes_makes_room(servers: Endpoints, small_bus: str) -> None:
    """Many times what the log holds goes through it: what is recorded is forgotten when the log fills up."""
    async with degraded(servers, small_bus, sync_always=False) as system:
        bound = (await system.house.bus.reports.state()).bound
        assert 0 < bound < 20 << 20
        payload = "x" * 400_000
        rounds = 2 * bound // len(payload)
        for _ in range(rounds):
            assert (await system.house.ended("echo", payload))["status"] == "success"
        state = await system.house.bus.reports.state()
        assert state.last >= rounds
        assert state.first > 1
        assert state.bytes <= bound
