"""A server that stands still: connected, and without a word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from agent_engines.adapters.postgres.pool import Pool


class Relay:
    """Between client and server; `hold` lets nothing more through, as a stopped process would."""

    def __init__(self, host: str, port: int) -> None:
        self._place = host, port
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def hold(self) -> None:
        self._flowing.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._flowing.wait()
            server_reader, server_writer = await asyncio.open_connection(*self._place)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, server_writer))
                group.create_task(self._pump(server_reader, writer))
        finally:
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await self._flowing.wait()
            writer.write(data)
        writer.close()


@asynccontextmanager
async def relayed(url: str) -> AsyncIterator[tuple[Relay, str]]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    relay = Relay(parts.hostname, parts.port)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield relay, parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{port}").geturl()
    finally:
        server.close()


async def test_a_cancelled_query_ends_as_cancelled_although_the_server_stands_still(postgres_url: str) -> None:
    """Giving the connection back takes too long then; that timeout is not to be mistaken for an answer."""
    async with relayed(postgres_url) as (relay, url):
        pool = await Pool.connect(url, minimum=1, maximum=1)
        relay.hold()
        asking = asyncio.ensure_future(pool.fetch("schema_version"))
        await asyncio.sleep(0.1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await pool.close()
