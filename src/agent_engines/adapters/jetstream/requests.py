"""Requests and acknowledged publishes over one shared reply subject, with our own bounded window.

nats-py waits for one acknowledgement at a time, or pipelines without deadlines; here up to WINDOW publishes are under
way, each has a deadline, and whatever is ambiguous (timeout, lost connection) is sent once more with the same id.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from agent_engines.domain.errors import Conflict, QueueFull, TooLarge, Unavailable

from .connection import Connection

WINDOW = 2_000
WINDOW_BYTES = 32 << 20
PUBLISH_SECONDS = 5.0
"""Deadline of a publish, its repetition included."""
GRACE_SECONDS = 1.0
"""How long a publish waits for a connection that is away before it fails; a restarted server is back sooner."""
SWEEP_SECONDS = 0.1
NO_RESPONDERS = b"NATS/1.0 503"

QUEUE_FULL = 10077
"""The server's "stream store failed": "maximum messages (or bytes) exceeded", or its disk took nothing."""
MESSAGE_TOO_LARGE = 10054
WRONG_LAST_SEQUENCE = (10071, 10164)
LEADERLESS = frozenset({10008, 10009, 10023})
"""A cluster that cannot answer just now: system temporarily unavailable, not leader, insufficient resources."""


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One message to publish; `header` is a ready header block or empty."""

    subject: bytes
    payload: bytes
    header: bytes = b""


class Reply(msgspec.Struct, frozen=True, gc=False):
    data: bytes
    header: bytes | None


class ApiError(Unavailable):
    """The server answered with an error of its own; `code` is its err_code."""

    def __init__(self, detail: str, code: int) -> None:
        super().__init__(detail)
        self.code = code


class Ambiguous(Unavailable):
    """No answer: it may or may not have happened."""


class NobodyThere(Unavailable):
    """Nobody serves that subject (no stream, no consumer, or the server is still starting)."""


class _ErrorBody(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct, gc=False):
    seq: int = 0
    error: _ErrorBody | None = None


_answers = msgspec.json.Decoder(_Answer)

Outcome = Reply | Unavailable


@dataclass(slots=True, eq=False)
class Flight:
    """Some messages sent together; `landed` when the last of them has its outcome."""

    outcomes: list[Outcome | None]
    left: int
    landed: asyncio.Future[None]

    def settle(self, index: int, outcome: Outcome) -> None:
        if self.outcomes[index] is None:
            self.outcomes[index] = outcome
            self.left -= 1
            if self.left == 0 and not self.landed.done():
                self.landed.set_result(None)


class Requests:
    """The table of everything that waits for a reply."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._inbox = connection.new_inbox().encode()
        self._prefix = len(self._inbox) + 1
        self._next = 0
        self._waiting: dict[bytes, tuple[Flight, int, float, int]] = {}
        self._bytes = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None
        connection.lost.append(self.fail_all)

    async def open(self) -> None:
        await self._connection.feed(f"{self._inbox.decode()}.*", self._on_reply)

    @property
    def under_way(self) -> int:
        return len(self._waiting)

    async def request(self, subject: str, payload: bytes, timeout: float, header: bytes = b"") -> Reply:
        """One request, one reply. Raises Ambiguous (nobody answered), NobodyThere."""
        self._connection.require()
        flight = self._flight(1)
        self._send(Outgoing(subject.encode(), payload, header), flight, 0, self._loop.time() + timeout)
        await flight.landed
        outcome = flight.outcomes[0]
        if isinstance(outcome, Reply):
            return outcome
        raise outcome or Ambiguous(f"no answer on {subject}")

    async def publish(self, message: Outgoing) -> int:
        """Returns the stream sequence. Raises QueueFull, Conflict, TooLarge, Unavailable."""
        deadline = self._loop.time() + PUBLISH_SECONDS
        if self._has_room(len(message.payload)):
            flight = self._flight(1)
            self._send(message, flight, 0, deadline - PUBLISH_SECONDS / 2)
            await flight.landed
            first = flight.outcomes[0]
            outcome = acknowledged(first) if isinstance(first, Reply) else first
            if outcome is not None and not self._worth_repeating(outcome, first=True):
                return _sequence(outcome)
        return _sequence((await self._publish_all((message,), deadline))[0])

    async def publish_all(self, messages: Sequence[Outgoing]) -> list[int | Exception]:
        """Pipelined; one stream sequence or exception each, in order."""
        return await self._publish_all(messages, self._loop.time() + PUBLISH_SECONDS)

    async def _publish_all(self, messages: Sequence[Outgoing], deadline: float) -> list[int | Exception]:
        if not await self._connection.until_connected(GRACE_SECONDS):
            self._connection.require()
        limit = self._connection.max_payload
        outcomes: list[int | Exception | None] = [
            TooLarge(f"the message has {len(m.payload)} bytes, the bus takes {limit}")
            if len(m.payload) + len(m.header) > limit
            else None
            for m in messages
        ]
        left = [index for index, outcome in enumerate(outcomes) if outcome is None]
        first = True
        while left:
            await self._attempt(messages, left, outcomes, deadline)
            left = [index for index in left if self._worth_repeating(outcomes[index], first=first)]
            if not left or deadline - self._loop.time() < SWEEP_SECONDS:
                break
            if not first:
                await asyncio.sleep(SWEEP_SECONDS)
            first = False
            if not await self._connection.until_connected(deadline - self._loop.time()):
                break
        return [Ambiguous("the bus did not answer") if outcome is None else outcome for outcome in outcomes]

    async def _attempt(
        self, messages: Sequence[Outgoing], indexes: list[int], outcomes: list[int | Exception | None], deadline: float
    ) -> None:
        """Send these and wait; the first attempt may use half of the time, so that there is a second one."""
        flight = self._flight(len(indexes))
        attempt_ends = min(deadline, self._loop.time() + PUBLISH_SECONDS / 2)
        block: list[bytes] = []
        roomy = self._has_room_for(len(indexes), max([len(messages[index].payload) for index in indexes]))
        for position, index in enumerate(indexes):
            message = messages[index]
            if not roomy and not self._has_room(len(message.payload)):
                self._write(block)
                if not await self._admit(len(message.payload), attempt_ends):
                    flight.settle(position, Ambiguous("the bus is not connected or does not answer"))
                    continue
            block.append(self._command(message, flight, position, attempt_ends))
        self._write(block)
        await flight.landed
        for position, index in enumerate(indexes):
            outcome = flight.outcomes[position]
            outcomes[index] = acknowledged(outcome) if isinstance(outcome, Reply) else outcome

    def _worth_repeating(self, outcome: int | Exception | None, *, first: bool) -> bool:
        if isinstance(outcome, Ambiguous):
            return True
        # After a lost connection the server may be back before its streams are, and a cluster elects a new leader:
        # then nobody answers for a moment.
        leaderless = isinstance(outcome, NobodyThere) or (isinstance(outcome, ApiError) and outcome.code in LEADERLESS)
        return leaderless and (not first or self._connection.clustered)

    def _has_room(self, size: int) -> bool:
        waiting = len(self._waiting)
        fits = waiting < WINDOW and (self._bytes + size <= WINDOW_BYTES or not waiting)
        return fits and size <= self._connection.max_payload and self._connection.connected

    def _has_room_for(self, count: int, size: int) -> bool:
        """Whether so many messages of at most `size` bytes can be sent without a wait in between."""
        waiting = len(self._waiting)
        fits = waiting + count <= WINDOW and self._bytes + count * size <= WINDOW_BYTES
        return fits and self._has_room(size)

    async def _admit(self, size: int, deadline: float) -> bool:
        """Wait for room in the window; False when there is no connection or the time is over."""
        while self._connection.connected:
            if self._has_room(size):
                return True
            turn: asyncio.Future[None] = self._loop.create_future()
            self._queue.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                # The turn may have been given already; it must not get lost with this caller.
                self._let_next_in()
                raise
            if self._loop.time() >= deadline:
                self._let_next_in()
                return False
        return False

    def _flight(self, size: int) -> Flight:
        return Flight([None] * size, size, self._loop.create_future())

    def _send(self, message: Outgoing, flight: Flight, index: int, deadline: float) -> None:
        self._connection.write(self._command(message, flight, index, deadline))

    def _write(self, block: list[bytes]) -> None:
        """Many commands at once; before every wait, since whoever waits for room waits for their answers."""
        if block:
            self._connection.write(b"".join(block))
            block.clear()

    def _command(self, message: Outgoing, flight: Flight, index: int, deadline: float) -> bytes:
        """The bytes to send; from here on an answer is expected."""
        self._next += 1
        token = b"%x" % self._next
        size = len(message.payload)
        self._waiting[token] = (flight, index, deadline, size)
        self._bytes += size
        if message.header:
            head = len(message.header)
            command = b"HPUB %b %b.%b %d %d\r\n%b%b\r\n" % (
                message.subject, self._inbox, token, head, head + size, message.header, message.payload
            )  # fmt: skip
        else:
            command = b"PUB %b %b.%b %d\r\n%b\r\n" % (message.subject, self._inbox, token, size, message.payload)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        return command

    def _on_reply(self, subject: bytes, _reply: bytes, data: bytes, header: bytes | None) -> None:
        if header is not None and header.startswith(NO_RESPONDERS) and not data:
            self._settle(subject[self._prefix :], NobodyThere("nobody serves this on the bus"))
        else:
            self._settle(subject[self._prefix :], Reply(data, header))

    def _settle(self, token: bytes, outcome: Outcome) -> None:
        entry = self._waiting.pop(token, None)
        if entry is None:
            return
        flight, index, _, size = entry
        self._bytes -= size
        flight.settle(index, outcome)
        if self._queue:
            self._let_next_in()

    def _let_next_in(self) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _sweep(self) -> None:
        now = self._loop.time()
        late = [token for token, (_, _, deadline, _) in self._waiting.items() if deadline <= now]
        for token in late:
            self._settle(token, Ambiguous("the bus did not answer in time"))
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep) if self._waiting else None

    def fail_all(self) -> None:
        """The connection went: nobody will answer these any more."""
        for token in list(self._waiting):
            self._settle(token, Ambiguous("the connection to the bus was lost"))
        for turn in self._queue:
            if not turn.done():
                turn.set_result(None)
        self._queue.clear()


def acknowledged(reply: Reply) -> int | Exception:
    """What the server's answer to a publish means: a sequence, or the error to raise."""
    try:
        answer = _answers.decode(reply.data)
    except msgspec.MsgspecError:
        return Ambiguous("the bus gave an answer that cannot be read")
    error = answer.error
    if error is None:
        return answer.seq
    if error.err_code == QUEUE_FULL and "maximum" in error.description:
        return QueueFull(f"the queue takes no more: {error.description}", retry_after=1.0)
    if error.err_code in WRONG_LAST_SEQUENCE:
        return Conflict(f"changed meanwhile: {error.description}")
    if error.err_code == MESSAGE_TOO_LARGE:
        return TooLarge(error.description)
    return ApiError(f"the bus refused: {error.description}", error.err_code)


def _sequence(outcome: int | Exception) -> int:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
