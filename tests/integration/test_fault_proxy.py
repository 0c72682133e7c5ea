"""The faults of the fault proxy are what they are called, or the runs behind it prove nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from fault_proxy import LOOPBACK, FaultProxy

SHORT = 0.2
PATIENCE = 30.0


@dataclass
class Line:
    """A connection through the proxy to a server that sends back what it gets."""

    proxy: FaultProxy
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ended: asyncio.Event
    """The server saw its connection go."""

    async def says(self, text: bytes) -> bytes:
        self.writer.write(text)
        return await asyncio.wait_for(self.reader.readexactly(len(text)), PATIENCE)

    async def silent(self) -> bool:
        try:
            await asyncio.wait_for(self.reader.read(100), SHORT)
        except TimeoutError:
            return True
        return False


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    ended = asyncio.Event()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(1000):
                writer.write(chunk)
        except ConnectionError:
            pass
        finally:
            ended.set()
            writer.close()

    server = await asyncio.start_server(echo, LOOPBACK, 0)
    async with FaultProxy(lambda: server.sockets[0].getsockname()[1]) as proxy:
        reader, writer = await asyncio.open_connection(LOOPBACK, proxy.port)
        yield Line(proxy, reader, writer, ended)
        writer.close()
    server.close()


async def test_what_a_cut_holds_back_arrives_after_it(line: Line) -> None:
    assert await line.says(b"one") == b"one"
    line.proxy.cut()
    line.writer.write(b"two")
    assert await line.silent()
    line.proxy.heal()
    assert await asyncio.wait_for(line.reader.readexactly(3), PATIENCE) == b"two"


async def test_a_cut_may_be_one_sided(line: Line) -> None:
    assert await line.says(b"one") == b"one"
    line.proxy.down.cut()
    line.writer.write(b"two")
    line.writer.write_eof()
    assert await line.silent()
    assert not line.ended.is_set(), "the end of a connection does not pass a cut either"
    line.proxy.heal()
    await asyncio.wait_for(line.ended.wait(), PATIENCE)


async def test_delay_delays_and_loses_nothing(line: Line) -> None:
    line.proxy.slow(delay=0.1, stalls=0.2)
    began = asyncio.get_running_loop().time()
    assert await line.says(b"x" * 300_000) == b"x" * 300_000
    assert asyncio.get_running_loop().time() - began >= 0.2


async def test_a_reset_ends_both_sides(line: Line) -> None:
    assert await line.says(b"one") == b"one"
    line.proxy.reset()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(line.reader.readexactly(1), PATIENCE)
    await asyncio.wait_for(line.ended.wait(), PATIENCE)


async def test_half_open_is_known_to_the_far_side_only(line: Line) -> None:
    assert await line.says(b"one") == b"one"
    line.proxy.half_open()
    await asyncio.wait_for(line.ended.wait(), PATIENCE)
    assert await line.silent()
    assert line.proxy.links == 1


async def test_a_refusing_proxy_takes_nobody(line: Line) -> None:
    line.proxy.refuses = True
    reader, writer = await asyncio.open_connection(LOOPBACK, line.proxy.port)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), PATIENCE)
    writer.close()
    assert await line.says(b"still") == b"still"
