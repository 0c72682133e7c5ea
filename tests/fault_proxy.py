"""A TCP proxy that can be told to be slow, silent, one-sided or gone; what it does to a link is switched at run time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

LOOPBACK = "127.0.0.1"
CHUNK = 65_536
CAUGHT = 1 << 20
"""Bytes under way in one direction of one connection; then the sender waits, as with a full window."""


@dataclass
class Way:
    """One direction of a link. Bytes of TCP are never dropped: what a cut holds back arrives after it, or never at all."""

    delay: float = 0.0
    """Seconds."""
    rate: float = 0.0
    """Bytes a second; 0: as fast as it goes."""
    stalls: float = 0.0
    """The share of chunks that come a retransmission (0.2 to 1 s) later, and hold up all behind them."""
    flows: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.flows.set()

    def cut(self) -> None:
        """From now on nothing arrives, and nobody is told."""
        self.flows.clear()

    def heal(self) -> None:
        self.delay = self.rate = self.stalls = 0.0
        self.flows.set()


class FaultProxy:
    """Listens on `port` of loopback and passes everything on to `target`, as `up` (towards it) and `down` allow."""

    def __init__(self, target: Callable[[], int], *, port: int = 0, rng: Random | None = None) -> None:
        self.port = port
        self.up = Way()
        self.down = Way()
        self.refuses = False
        """New connections are reset at once."""
        self.counts: Counter[str] = Counter()
        self._target = target
        self._rng = rng or Random(0)
        self._server: asyncio.Server | None = None
        self._near: set[asyncio.StreamWriter] = set()
        self._far: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> FaultProxy:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.reset()

    @property
    def links(self) -> int:
        """Connections that are open on the near side."""
        return len(self._near)

    def cut(self) -> None:
        """A partition: both directions silent, connections stay open."""
        self.up.cut()
        self.down.cut()

    def slow(self, *, delay: float = 0.0, rate: float = 0.0, stalls: float = 0.0) -> None:
        for way in (self.up, self.down):
            way.delay, way.rate, way.stalls = delay, rate, stalls

    def heal(self) -> None:
        self.refuses = False
        self.up.heal()
        self.down.heal()

    def reset(self) -> None:
        """Every connection ends with a reset, on both sides."""
        for writer in [*self._near, *self._far]:
            writer.transport.abort()

    def half_open(self) -> None:
        """The target sees its connections go; whoever connected is not told."""
        self.up.cut()
        self.down.cut()
        for writer in list(self._far):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._near.add(writer)
        self.counts["connections"] += 1
        far: asyncio.StreamWriter | None = None
        try:
            if self.refuses:
                return
            # A host behind a cut is not reached: the connection seems to stand, and nothing comes.
            await self.up.flows.wait()
            beyond, far = await asyncio.open_connection(LOOPBACK, self._target())
            self._far.add(far)
            await self._pass_both(reader, writer, beyond, far)
        except OSError:
            self.counts["broken"] += 1
        finally:
            for end in (writer, far):
                if end is not None:
                    end.transport.abort()
            self._near.discard(writer)
            if far is not None:
                self._far.discard(far)
            self._tasks.discard(task)

    async def _pass_both(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        beyond: asyncio.StreamReader,
        far: asyncio.StreamWriter,
    ) -> None:
        ways = [
            asyncio.ensure_future(self._pass(reader, far, self.up)),
            asyncio.ensure_future(self._pass(beyond, writer, self.down)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            # The end of a connection is a packet too: across a cut nobody hears of it.
            await self.up.flows.wait()
            await self.down.flows.wait()
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
        """Until the reader's end. A queue in between, so that delay does not cost throughput."""
        loop = asyncio.get_running_loop()
        caught: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CAUGHT // CHUNK)
        sending = asyncio.ensure_future(self._send(caught, writer, way))
        try:
            while True:
                with suppress(ConnectionError):
                    chunk = await reader.read(CHUNK)
                    await caught.put((loop.time() + way.delay, chunk))
                    if chunk:
                        continue
                await caught.put((loop.time() + way.delay, b""))
                break
            await sending
        finally:
            sending.cancel()

    async def _send(self, caught: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, way: Way) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, chunk = await caught.get()
            if not chunk:
                return
            if way.stalls and self._rng.random() < way.stalls:
                self.counts["stalls"] += 1
                due = max(due, loop.time()) + self._rng.uniform(0.2, 1.0)
            await asyncio.sleep(max(0.0, due - loop.time()))
            await way.flows.wait()
            if way.rate:
                await asyncio.sleep(len(chunk) / way.rate)
            if writer.transport.is_closing():
                return
            writer.write(chunk)
            with suppress(ConnectionError):
                await writer.drain()
