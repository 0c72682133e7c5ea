"""One pull consumer, read in batches: asks for exactly as many as the caller can take, and heals itself."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from agent_engines.domain.errors import Unavailable
from agent_engines.ports.telemetry import Log

from .api import NANOSECONDS
from .connection import Connection, Feed
from .requests import ApiError

SLICE_SECONDS = 5.0
"""One request waits no longer than this on the server, so a lost request costs at most that."""
SLACK_SECONDS = 2.0
"""How much later than promised the server may end a request before it counts as lost."""
PULL_BYTES = 16 << 20

FILLED, LOST, SILENT = 0, -1, -2
NO_MESSAGES, TIMED_OUT, CONFLICT, NOBODY = 404, 408, 409, 503
ALL_SENT = b"Batch Completed"
"""In a cluster this overtakes the messages it speaks of: they wait until a majority knows of their delivery."""
MOVED = (b"Leadership Change", b"Server Shutdown")
QUORUM_SECONDS = 1.0
ELECTION_SECONDS = 10.0
"""A group of servers has a new leader after 4 to 9 s (compiled into the server); until then nobody answers."""
PAUSE_SECONDS = 0.2


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """A message as it came; `reply` is where its acknowledgement goes.

    Acknowledgement subjects are `$JS.ACK.stream.consumer.delivered.sequence.count.time.pending`, and with
    `domain.account` after ACK in the newer form.
    """

    subject: bytes
    reply: bytes
    data: bytes
    header: bytes | None

    @property
    def delivered(self) -> int:
        """How many times it was delivered, this time included."""
        if self.reply.count(b".") == 8:
            return int(self.reply.split(b".", 5)[4])
        return int(self.reply.split(b".", 7)[6])

    @property
    def sequences(self) -> tuple[int, int]:
        """(stream sequence, consumer sequence)"""
        parts = self.reply.split(b".")
        at = 5 if len(parts) == 9 else 7
        return int(parts[at]), int(parts[at + 1])


class Lane:
    """`ensure` creates the consumer if it is not there and returns its name.

    `patience`: seconds without an answer in a cluster before it is asked to.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        ensure: Callable[[], Awaitable[str]],
        log: Log,
        *,
        patience: float = ELECTION_SECONDS,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._ensure = ensure
        self._log = log
        self._consumer = ""
        self._inbox = b""
        self._feed: Feed | None = None
        self._arrived: deque[Arrival] = deque()
        self._number = 0
        self._current = b""
        self._credit = 0
        self._ended: asyncio.Future[int] | None = None
        self._busy = asyncio.Lock()
        self._closed = False
        self._said = b""
        self._loop = asyncio.get_running_loop()
        self._nobody_since = 0.0
        self._nobody_at = -ELECTION_SECONDS
        self._patience = patience
        self.silent = False
        """Whether the last request got no answer at all, not even that there is nothing."""
        self.interruptions = 0
        """How often the consumer or the subscription had to be set up again, or the connection went."""

    async def open(self) -> None:
        """Raises Unavailable; then nothing is left open."""
        self._connection.lost.append(self._on_lost)
        try:
            await self._set_up()
        except BaseException:
            await self.close()
            raise

    async def pull(self, limit: int, wait: float) -> list[Arrival]:
        """Up to `limit` arrivals; at once when there is one, [] after `wait` seconds. Raises Unavailable."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        patient = False
        async with self._busy:
            while not self._closed:
                if self._arrived or limit <= 0:
                    return [self._arrived.popleft() for _ in range(min(limit, len(self._arrived)))]
                left = deadline - loop.time()
                if not await self._connection.until_connected(left):
                    self._connection.require()
                left = min(SLICE_SECONDS, deadline - loop.time())
                status = await self._request(limit, left, patient)
                self.silent = status == SILENT
                if self._arrived:
                    continue
                if status not in (FILLED, NO_MESSAGES, TIMED_OUT, LOST):
                    await self._heal(status)
                if deadline - loop.time() <= 0:
                    return []
                # A server that answers "nothing" at once instead of waiting for the first one is asked to wait.
                patient = status == NO_MESSAGES
        raise Unavailable("the inbox is closed")

    async def renew(self) -> None:
        """Drop what has arrived and start over with a new consumer. Raises Unavailable."""
        async with self._busy:
            self._arrived.clear()
            await self._set_up()

    async def close(self) -> None:
        """Hand back what was not taken, and unsubscribe."""
        if self._closed:
            return
        self._closed = True
        self._connection.lost.remove(self._on_lost)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(LOST)
        answer(self._connection, [arrival.reply for arrival in self._arrived], b"-NAK")
        self._arrived.clear()
        if self._feed is not None:
            await self._connection.stop_feed(self._feed)

    async def _request(self, limit: int, wait: float, patient: bool) -> int:
        """Ask once and wait until the server says the request is over; returns its status.

        "no_wait" with "expires" means: all there is now, else the first one to come. Nothing stays promised afterwards.
        """
        self._number += 1
        self._current = b"%b.%d" % (self._inbox, self._number)
        self._credit = 1 if patient else limit
        self._ended = asyncio.get_running_loop().create_future()
        expires = b',"expires":%d' % int(wait * NANOSECONDS) if wait > 0 else b""
        body = b'{"batch":%d%b,"max_bytes":%d%b}' % (
            self._credit,
            b"" if patient else b',"no_wait":true',
            max(PULL_BYTES, 2 * self._connection.max_payload),
            expires,
        )
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}".encode()
        self._connection.write(b"PUB %b %b %d\r\n%b\r\n" % (subject, self._current, len(body), body))
        try:
            async with asyncio.timeout(max(0.0, wait) + SLACK_SECONDS):
                return await self._ended
        except TimeoutError:
            return SILENT

    def _on_message(self, subject: bytes, reply: bytes, data: bytes, header: bytes | None) -> None:
        if reply.startswith(b"$JS.ACK."):
            self._arrived.append(Arrival(subject, reply, data, header))
            self._credit -= 1
            status = FILLED if self._credit <= 0 else 100
        elif subject == self._current and header is not None and header[9:12].isdigit():
            status = int(header[9:12])
            self._said = header[13 : header.find(b"\r")]
            if self._said == ALL_SENT and self._credit > 0:
                self._loop.call_later(QUORUM_SECONDS, self._end_request, self._number)
                return
        else:
            return
        if status != 100 and self._ended is not None and not self._ended.done():
            self._ended.set_result(status)

    def _end_request(self, number: int) -> None:
        """What was announced as sent and did not come is lost: its server went before the others had it."""
        if number == self._number and self._ended is not None and not self._ended.done():
            self._ended.set_result(FILLED)

    async def _heal(self, status: int) -> None:
        """Set up again what may have gone: the consumer, or the subscription that brings its messages."""
        if self._only_without_leader(status):
            await asyncio.sleep(PAUSE_SECONDS)
            return
        said = self._said.decode("ascii", "replace")
        self._log.info("A pull is set up again", stream=self._stream, consumer=self._consumer, status=status, said=said)
        self.interruptions += 1
        try:
            await self._set_up()
        except ApiError:
            raise
        except Unavailable as error:
            # The server has just come back and its streams have not; the caller's wait is the patience.
            self._log.debug("The bus is not ready", error=error.detail)
        await asyncio.sleep(0.1)

    def _only_without_leader(self, status: int) -> bool:
        """Whether this is what an election in a cluster looks like; true for no longer than one takes."""
        if not self._connection.clustered:
            return False
        if status == CONFLICT and self._said in MOVED:
            return True
        now = self._loop.time()
        if status != NOBODY:
            return False
        if now - self._nobody_at > ELECTION_SECONDS:
            self._nobody_since = now
        self._nobody_at = now
        return now - self._nobody_since < self._patience

    async def _set_up(self) -> None:
        if self._feed is not None:
            await self._connection.stop_feed(self._feed)
        inbox = self._connection.new_inbox()
        self._inbox = inbox.encode()
        # The server stops sending when nobody listens, so what a lost request still brings dies with its inbox.
        self._feed = await self._connection.feed(f"{inbox}.*", self._on_message)
        self._consumer = await self._ensure()

    def _on_lost(self) -> None:
        self.interruptions += 1
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(LOST)


def answer(connection: Connection, replies: Sequence[bytes], verb: bytes) -> bool:
    """Send one acknowledgement verb to many messages as one block; False when it had to be dropped."""
    if not replies:
        return True
    tail = b" %d\r\n%b\r\n" % (len(verb), verb)
    return connection.write_late(b"".join([b"PUB %b%b" % (reply, tail) for reply in replies]))


def nak(delay: float) -> bytes:
    """The verb that hands a message back, to come again after `delay` seconds."""
    return b"-NAK" if delay <= 0 else b'-NAK {"delay":%d}' % int(delay * NANOSECONDS)
