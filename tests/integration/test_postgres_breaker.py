"""PostgreSQL gone, frozen, slow: who can do without it is told at once, who insists is not, and its return is noticed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.adapters.postgres.pool import Connection, Pool
from agent_engines.domain.errors import Unavailable
from agent_engines.runtime.dependency import METRIC, RULE, Dependency


class Door:
    """Between client and server: open, standing still, or not there at all."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._place = parts.hostname, parts.port
        self._parts = parts
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._port = 0

    @property
    def url(self) -> str:
        login = self._parts.netloc.rpartition(":")[0]
        return self._parts._replace(netloc=f"{login}:{self._port}").geturl()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def freeze(self) -> None:
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    def shut(self) -> None:
        """As a server that was killed: nobody listens, what was connected is cut."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._flowing.wait()
            far_reader, far_writer = await asyncio.open_connection(*self._place)
            self._writers.add(far_writer)
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        except OSError:
            pass
        finally:
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await self._flowing.wait()
            writer.write(data)
        writer.close()


class House:
    def __init__(self, door: Door, pool: Pool, dependency: Dependency, telemetry: NullTelemetry) -> None:
        self.door, self.pool, self.dependency, self.telemetry = door, pool, dependency, telemetry

    async def ask(self, *, insist: bool = False) -> int:
        async def work(connection: Connection) -> int:
            return await connection.fetchval("SELECT 42")

        return await self.pool.run(work, insist=insist)

    async def refused_at_once(self) -> Unavailable:
        began = time.monotonic()
        with pytest.raises(Unavailable) as refusal:
            await self.ask()
        # The guard is that it does not wait for a deadline (2 s and more), not that the machine is quick.
        assert time.monotonic() - began < 1.0
        return refusal.value


@asynccontextmanager
async def house(url: str) -> AsyncIterator[House]:
    door = Door(url)
    await door.open()
    telemetry = NullTelemetry()
    dependency = Dependency("postgres", clock=SystemClock(), telemetry=telemetry)
    pool = await Pool.connect(door.url, minimum=1, maximum=3, dependency=dependency)
    try:
        yield House(door, pool, dependency, telemetry)
    finally:
        door.thaw()
        door.shut()
        await pool.close()


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_server_that_is_gone_costs_a_few_calls_and_is_then_not_waited_for(postgres_url: str) -> None:
    async with house(postgres_url) as here:
        here.door.shut()
        for _ in range(RULE.threshold):
            with pytest.raises(Unavailable):
                await here.ask()
        refusal = await here.refused_at_once()
        assert refusal.retry_after >= 1.0
        assert refusal.detail.startswith("postgres does not answer")
        assert here.telemetry.gauges[METRIC, (("dependency", "postgres"),)] in (1.0, 2.0)


async def test_its_return_is_noticed_although_nobody_asks(postgres_url: str) -> None:
    async with house(postgres_url) as here:
        here.door.shut()
        for _ in range(RULE.threshold):
            with pytest.raises(Unavailable):
                await here.ask()
        await here.door.open()
        await until(lambda: not here.dependency.away)
        assert await here.ask() == 42
        assert here.telemetry.gauges[METRIC, (("dependency", "postgres"),)] == 0.0


async def test_a_frozen_server_is_found_out_by_a_probe_before_any_deadline(postgres_url: str) -> None:
    async with house(postgres_url) as here:
        here.door.freeze()
        waiting = asyncio.ensure_future(here.ask())
        await until(lambda: here.dependency.away)
        assert not waiting.done()
        await here.refused_at_once()
        here.door.thaw()
        assert await waiting == 42
        await until(lambda: not here.dependency.away)
        assert await here.ask() == 42


async def test_who_insists_asks_all_the_same_and_an_answer_ends_the_absence(postgres_url: str) -> None:
    async with house(postgres_url) as here:
        here.dependency.silent("for this test")
        await here.refused_at_once()
        assert await here.ask(insist=True) == 42
        assert not here.dependency.away
        assert await here.ask() == 42


async def test_calls_that_wait_for_a_lock_do_not_make_a_server_that_is_away(postgres_url: str) -> None:
    async with house(postgres_url) as here:

        async def wait_long(connection: Connection) -> None:
            await connection.execute("SELECT pg_sleep(3.5)")

        await here.pool.run(wait_long)
        assert here.telemetry.gauges[METRIC, (("dependency", "postgres"),)] == 0.0
        assert here.telemetry.messages("warning") == []


async def test_a_statement_that_is_cancelled_by_the_server_proves_that_it_is_there(postgres_url: str) -> None:
    async with house(postgres_url) as here:

        async def too_slow(connection: Connection) -> None:
            async with connection.transaction():
                await connection.execute("SET LOCAL statement_timeout = 20")
                await connection.execute("SELECT pg_sleep(5)")

        for _ in range(RULE.threshold + 1):
            with pytest.raises(Unavailable):
                await here.pool.run(too_slow)
        assert await here.ask() == 42
