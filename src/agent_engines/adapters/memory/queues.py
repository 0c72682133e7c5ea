"""One durable queue in memory: leases, redelivery counts, delayed returns, de-duplication."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from agent_engines.adapters.wire import DUPLICATE_WINDOW_SECONDS
from agent_engines.domain.errors import Unavailable
from agent_engines.ports.clock import Clock


@dataclass(slots=True)
class Door:
    """Whether an inbox is still open."""

    is_open: bool = True

    def check(self) -> None:
        """Raises Unavailable."""
        if not self.is_open:
            raise Unavailable("the inbox is closed")


@dataclass(slots=True)
class Held:
    """One stored message. `due` is when it may be delivered (again); None while it waits in line."""

    sequence: int
    raw: bytes
    count: int = 0
    due: float | None = None


@dataclass(slots=True)
class Tally:
    """Messages in all queues that share it."""

    stored: int = 0


class LeasedQueue:
    """Delivers each message until it is acknowledged; an unacknowledged one comes back after the lease."""

    def __init__(self, clock: Clock, *, lease_seconds: float, tally: Tally | None = None) -> None:
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._tally = tally or Tally()
        self._held: dict[int, Held] = {}
        self._ready: deque[int] = deque()
        self._dues: list[tuple[float, int]] = []
        self._seen: dict[str, float] = {}
        self._waiters: set[asyncio.Future[None]] = set()
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._held)

    def put(self, raw: bytes, message_id: str = "") -> None:
        """Store once per id within the window."""
        if message_id:
            if self.knows(message_id):
                return
            self._seen[message_id] = self._clock.monotonic() + DUPLICATE_WINDOW_SECONDS
        self._sequence += 1
        self._held[self._sequence] = Held(self._sequence, raw)
        self._tally.stored += 1
        self._ready.append(self._sequence)
        self.wake()

    def knows(self, message_id: str) -> bool:
        """True when this id was stored within the de-duplication window."""
        now = self._clock.monotonic()
        # Ids were added in the order of their expiry, so only the front can be old.
        while self._seen and next(iter(self._seen.values())) <= now:
            del self._seen[next(iter(self._seen))]
        return message_id in self._seen

    async def pull(self, limit: int, wait: float, inbox: Door) -> list[Held]:
        """Up to `limit` messages, at once when there is one, else after at most `wait` seconds. Raises Unavailable."""
        until = self._clock.monotonic() + wait
        inbox.check()
        while not (taken := self._take(limit)):
            left = until - self._clock.monotonic()
            if limit <= 0 or left <= 0 or not await self._arrival(left):
                return []
            inbox.check()
        return taken

    def ack(self, sequence: int) -> None:
        if self._held.pop(sequence, None) is not None:
            self._tally.stored -= 1

    def release(self, sequence: int, delay: float) -> None:
        held = self._held.get(sequence)
        if held is None or held.due is None:
            return
        if delay <= 0:
            held.due = None
            self._ready.append(sequence)
        else:
            self._schedule(held, delay)
        self.wake()

    def extend(self, sequence: int) -> None:
        held = self._held.get(sequence)
        if held is not None and held.due is not None:
            self._schedule(held, self._lease_seconds)

    def wake(self) -> None:
        """Let everybody who waits look again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _take(self, limit: int) -> list[Held]:
        self._return_what_is_due()
        taken: list[Held] = []
        while self._ready and len(taken) < limit:
            held = self._held.get(self._ready.popleft())
            if held is None or held.due is not None:
                continue
            held.count += 1
            self._schedule(held, self._lease_seconds)
            # A copy: the count of an arrival must not change when the message arrives again.
            taken.append(Held(held.sequence, held.raw, held.count))
        return taken

    def _schedule(self, held: Held, delay: float) -> None:
        held.due = self._clock.monotonic() + delay
        heapq.heappush(self._dues, (held.due, held.sequence))

    def _return_what_is_due(self) -> None:
        now = self._clock.monotonic()
        while self._dues and self._dues[0][0] <= now:
            due, sequence = heapq.heappop(self._dues)
            held = self._held.get(sequence)
            if held is not None and held.due == due:
                held.due = None
                self._ready.append(sequence)

    async def _arrival(self, left: float) -> bool:
        """True when it is worth looking again, False when `left` seconds passed without anything."""
        next_due = self._dues[0][0] - self._clock.monotonic() if self._dues else left
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        sleeper = asyncio.ensure_future(self._clock.sleep(max(0.0, min(left, next_due))))
        try:
            await asyncio.wait({waiter, sleeper}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiters.discard(waiter)
            sleeper.cancel()
        return waiter.done() or next_due < left


class Power:
    """Whether the bus is up: a test switches it off to see what an outage does."""

    def __init__(self) -> None:
        self.on = True

    def check(self) -> None:
        """Raises Unavailable while the bus is off."""
        if not self.on:
            raise Unavailable("the bus does not answer", retry_after=1.0)


class Delivered(Protocol):
    """Anything a log's inbox gives out."""

    @property
    def token(self) -> object: ...


Delivery = TypeVar("Delivery", bound=Delivered)


class LogInbox(Generic[Delivery]):
    """Implements ports.bus.ReportInbox and JournalInbox; a token is the sequence. `read` makes a delivery of a message."""

    def __init__(self, power: Power, queue: LeasedQueue, read: Callable[[Held], Delivery]) -> None:
        self._power = power
        self._queue = queue
        self._read = read
        self._door = Door()

    async def pull(self, limit: int, wait: float) -> list[Delivery]:
        self._power.check()
        return [self._read(held) for held in await self._queue.pull(limit, wait, self._door)]

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._queue.ack(_sequence(delivery))

    async def release(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        for delivery in deliveries:
            self._queue.release(_sequence(delivery), delay)

    async def close(self) -> None:
        self._door.is_open = False
        self._queue.wake()


def _sequence(delivery: Delivered) -> int:
    if not isinstance(delivery.token, int):
        raise TypeError("this delivery came from another bus")
    return delivery.token
