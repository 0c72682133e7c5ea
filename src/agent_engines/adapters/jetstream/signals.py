"""Signals over core NATS: fast, lossy, with request and reply."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from agent_engines.adapters import wire
from agent_engines.domain.errors import InvalidRequest, Unavailable
from agent_engines.ports.telemetry import Log

from .connection import Connection, Feed
from .requests import Ambiguous, NobodyThere, Requests

Handler = Callable[[str, bytes], Awaitable[bytes | None]]

MAX_RUNNING = 1_000
"""Handlers of one subscription under way at once; more messages than that are dropped, as signals may be."""
CLOSE_SECONDS = 1.0


class JetStreamSignals:
    """Implements ports.bus.Signals."""

    def __init__(self, connection: Connection, requests: Requests, log: Log) -> None:
        self._connection = connection
        self._requests = requests
        self._log = log
        self._listeners: set[Listener] = set()

    async def send(self, subject: str, data: bytes) -> None:
        self._connection.require()
        wire.check_size(data, self._connection.max_payload)
        if self._connection.clogged:
            raise Unavailable("the bus takes no more signals now")
        self._connection.write(b"PUB %b %d\r\n%b\r\n" % (_token(subject), len(data), data))

    async def listen(self, subject: str, handler: Handler, *, queue: str = "") -> Listener:
        listener = Listener(self._connection, handler, self._log, self._listeners)
        listener.feed = await self._connection.feed(subject, listener.on_message, queue)
        self._listeners.add(listener)
        return listener

    async def ask(self, subject: str, data: bytes, timeout: float) -> bytes:
        wire.check_size(data, self._connection.max_payload)
        _token(subject)
        try:
            return (await self._requests.request(subject, data, timeout)).data
        except NobodyThere:
            raise Unavailable(f"nobody listens on {subject}") from None
        except Ambiguous:
            raise Unavailable(f"nobody answered on {subject} within {timeout:g} s") from None

    async def close(self) -> None:
        """Let handlers that run answer, for a second."""
        await asyncio.gather(*(listener.close() for listener in list(self._listeners)))


class Listener:
    """One subscription; its handlers run as tasks, started in the order of the messages."""

    def __init__(self, connection: Connection, handler: Handler, log: Log, registry: set[Listener]) -> None:
        self._connection = connection
        self._handler = handler
        self._log = log
        self._registry = registry
        self._running: set[asyncio.Task[None]] = set()
        self._dropped = 0
        self.feed: Feed | None = None

    def on_message(self, subject: bytes, reply: bytes, data: bytes, _header: bytes | None) -> None:
        if len(self._running) >= MAX_RUNNING:
            self._dropped += 1
            if self._dropped % MAX_RUNNING == 1:
                self._log.warning("Signals dropped, handlers are too slow", subject=subject.decode(), n=self._dropped)
            return
        task = asyncio.get_running_loop().create_task(self._handle(subject.decode(), reply, data))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Stop listening and wait for running handlers, a second at most."""
        self._registry.discard(self)
        if self.feed is not None:
            await self._connection.stop_feed(self.feed)
        current = asyncio.current_task()
        running = {task for task in self._running if task is not current}
        if running:
            _, late = await asyncio.wait(running, timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()

    async def _handle(self, subject: str, reply: bytes, data: bytes) -> None:
        try:
            response = await self._handler(subject, data)
        except Exception as error:
            self._log.error("A signal handler failed", subject=subject, error=repr(error))
            return
        if response is None or not reply or not self._connection.connected or self._connection.clogged:
            return
        if len(response) > self._connection.max_payload:
            self._log.error("An answer is larger than the bus takes", subject=subject, bytes=len(response))
            return
        self._connection.write(b"PUB %b %d\r\n%b\r\n" % (reply, len(response), response))


def _token(subject: str) -> bytes:
    """Raises InvalidRequest: a subject with spaces or wildcards would be another command."""
    if not subject.isascii() or not subject.isprintable() or any(letter in subject for letter in " *>"):
        raise InvalidRequest(f"{subject!r} is not a subject", field="subject")
    return subject.encode()
