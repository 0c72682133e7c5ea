"""The NATS client as we need it: raw feeds without a queue in between, quick cuts, and no silent death.

Differences from nats-py, each with its reason:
- a feed's handler gets the bytes of a message straight from our parser (no Msg, no header dict, no task switch);
- a pong for a ping nobody waits for any more does not kill the read loop;
- pings travel behind what was written before them, so their answer says that it arrived;
- what is written in one turn of the loop goes out at its end, without waking the flusher, unless the socket is behind;
- closing cuts the transport, so a stuck server cannot hold up a reconnect;
- when TLS was asked for, no credential is sent without it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from copy import copy
from typing import Any, cast

from nats.aio.client import DEFAULT_BUFFER_SIZE, Client, Srv
from nats.aio.transport import TcpTransport
from nats.errors import Error

from agent_engines.ports.telemetry import Log

from .parser import Parser

PING = b"PING\r\n"

RawHandler = Callable[[bytes, bytes, bytes, bytes | None], None]
"""Called with (subject, reply, data, header block or None); must not block."""


class CuttingTransport(TcpTransport):
    """Closing drops what is unsent: whoever wants it delivered pings first."""

    def close(self) -> None:
        if self._io_writer is not None:
            self._io_writer.transport.abort()

    @property
    def encrypted(self) -> bool:
        return self._io_writer is not None and self._io_writer.get_extra_info("ssl_object") is not None

    @property
    def behind(self) -> bool:
        """Whether the socket takes nothing just now: it is closing, or has not taken yet what was written."""
        writer = self._io_writer
        return writer is None or writer.is_closing() or writer.transport.get_write_buffer_size() > 0


class RawClient(Client):
    """One connection; see the module for what differs from its base."""

    def __init__(self, log: Log, *, require_tls: bool) -> None:
        super().__init__()
        self._log = log
        self._require_tls = require_tls
        self._handlers: dict[int, RawHandler] = {}
        self._flush_asked = False
        # The base types this as its own parser; it only calls `parse` and `reset`.
        self._ps = cast("Any", Parser(self))

    async def feed(self, subject: str, handler: RawHandler, queue: str = "") -> int:
        """Subscribe; returns the subscription's number."""
        # The base numbers subscriptions one by one before it yields to the loop; the first message may already follow.
        number = self._sid + 1
        self._handlers[number] = handler
        await self.subscribe(subject, queue=queue)
        return number

    async def stop_feed(self, number: int) -> None:
        self._handlers.pop(number, None)
        subscription = self._subs.get(number)
        if subscription is not None and not self.is_closed:
            await subscription.unsubscribe()

    def write(self, block: bytes) -> None:
        """Queue protocol bytes (whole commands) for the flush at the end of this turn of the loop."""
        self._pending.append(block)
        self._pending_data_size += len(block)
        if not self._flush_asked:
            self._flush_asked = True
            asyncio.get_running_loop().call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flush_asked = False
        transport, queue = self._transport, self._flush_queue
        if self.alive and isinstance(transport, CuttingTransport) and not transport.behind:
            if self._pending:
                transport.writelines(self._pending)
                self._pending = []
                self._pending_data_size = 0
        elif queue is not None and queue.empty():
            # The flusher waits for the socket; what cannot be sent now stays for the next connection.
            queue.put_nowait(asyncio.get_running_loop().create_future())

    async def ping(self, timeout: float) -> bool:
        """A round trip through both internal loops; False when it takes longer than `timeout` seconds."""
        if not self.is_connected:
            return False
        pong: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                await self._send_ping(pong)
                return bool(await pong)
        except (TimeoutError, OSError, Error):
            return False

    def drop_pings(self) -> None:
        """The connection went: nobody will answer these any more."""
        for waiter in self._pongs:
            if not waiter.done():
                waiter.set_result(False)
        self._pongs.clear()

    @property
    def alive(self) -> bool:
        """Connected and not closing: the cheap form of the base's question, asked for every message."""
        return self._status == Client.CONNECTED

    def introduction(self, greeting: dict[str, Any]) -> bytes:
        """The CONNECT for another connection on which a server sent this INFO, whose nonce it may have to sign."""
        speaker = copy(self)
        speaker._server_info = greeting
        return Client._connect_command(speaker)

    @property
    def clustered(self) -> bool:
        """Whether the server named a cluster when it greeted us."""
        return bool(self._server_info.get("cluster"))

    @property
    def beyond_help(self) -> bool:
        """Closed for good, or stuck in a reconnect that nobody works on any more."""
        task = self._reconnection_task
        return self.is_closed or (not self.is_connected and task is not None and task.done())

    def cut(self) -> None:
        """Drop the socket, whatever state the rest is in."""
        if isinstance(self._transport, CuttingTransport):
            self._transport.close()

    def deliver(self, sid: int, subject: bytes, reply: bytes, data: bytes, header: bytes | None) -> bool:
        """Hand one message to its feed; False when the subscription is not one of ours."""
        handler = self._handlers.get(sid)
        if handler is None:
            return False
        try:
            handler(subject, reply, data, header)
        except Exception as error:
            # An exception here would end the read loop while the connection still looks alive.
            self._log.error("A bus message could not be handled", subject=subject.decode(), error=repr(error))
        return True

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        # In line with everything else, so that a pong says that all before it has arrived.
        self._pongs.append(future or asyncio.get_running_loop().create_future())
        self.write(PING)

    async def _process_pong(self) -> None:
        if not self._pongs:
            return
        waiter = self._pongs.pop(0)
        if not waiter.done():
            waiter.set_result(True)
        self._pongs_received += 1
        self._pings_outstanding = 0

    async def _connect_to_server(self, s: Srv) -> None:
        s.last_attempt = time.monotonic()
        # The base forgets the socket of an attempt that failed, for example at a server that stands still.
        self.cut()
        transport = CuttingTransport()
        self._transport = transport
        await transport.connect(s.uri, buffer_size=DEFAULT_BUFFER_SIZE, connect_timeout=self.options["connect_timeout"])

    def _connect_command(self) -> bytes:
        transport = self._transport
        if self._require_tls and not (isinstance(transport, CuttingTransport) and transport.encrypted):
            raise Error("nats: tls:// was asked for but the server offers no TLS; no credentials were sent")
        return super()._connect_command()
