"""Group commit: whoever comes while one batch is under way travels in the next one.

Batches are as large as the load makes them and no larger: alone, an item goes at once; under load, hundreds share one
commit or one message. There is no timer, so an idle system adds no latency.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from typing import Generic, TypeVar

from agent_engines.domain.errors import QueueFull, Unavailable

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher(Generic[Item, Answer]):
    """Calls `flush(items)` with what has gathered; it returns one answer for each item, in order.

    An answer that is an exception is raised to that item's caller only; an exception raised by `flush` goes to all of
    the batch. At most `max_waiting` items wait (QueueFull beyond), `max_batch` travel together, `lanes` batches at once;
    beside others a batch begins only when `crowd` items wait, since two small commits cost nearly twice what one does.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | BaseException]]],
        *,
        max_batch: int = 500,
        max_waiting: int = 20_000,
        lanes: int = 1,
        crowd: int = 1,
    ) -> None:
        self._flush = flush
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._lanes = lanes
        self._crowd = crowd
        self._waiting: deque[tuple[Item, asyncio.Future[Answer] | None]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False
        self._surroundings = copy_context()
        self.settled = 0
        """Items that have their answer, since the beginning."""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def waiting(self) -> list[Item]:
        """What is in no batch yet, in order."""
        return [item for item, _ in self._waiting]

    def put(self, item: Item) -> asyncio.Future[Answer]:
        """Queue one item; the future holds its answer. Raises QueueFull, Unavailable (closed)."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._add(item, future)
        return future

    def post(self, item: Item) -> None:
        """Queue one item whose answer nobody waits for. Raises QueueFull, Unavailable (closed)."""
        self._add(item, None)

    def _add(self, item: Item, future: asyncio.Future[Answer] | None) -> None:
        if self._closed:
            raise Unavailable("this process is shutting down")
        if len(self._waiting) >= self._max_waiting:
            raise QueueFull("too many requests wait for a commit", retry_after=1.0)
        self._waiting.append((item, future))
        busy = len(self._running)
        if not busy or (busy < self._lanes and len(self._waiting) >= self._crowd):
            self._start_lane()

    async def close(self) -> None:
        """Refuse new items and wait until all that were taken have their answer."""
        self._closed = True
        while self._running:
            await asyncio.gather(*self._running, return_exceptions=True)

    def _start_lane(self) -> None:
        # Not in the trace of the one who happened to come first: it serves others too.
        lane = asyncio.get_running_loop().create_task(
            self._run_lane(), name="batch-lane", context=self._surroundings.copy()
        )
        self._running.add(lane)
        lane.add_done_callback(self._running.discard)

    async def _run_lane(self) -> None:
        try:
            # One turn of the loop lets everything that is ready now join the first batch.
            await asyncio.sleep(0)
            while self._waiting:
                size = min(self._max_batch, len(self._waiting))
                batch = [self._waiting.popleft() for _ in range(size)]
                await self._run_batch(batch)
        finally:
            # Done callbacks run a turn later, after those who got their answer have put the next item: nobody would take it.
            lane = asyncio.current_task()
            if lane is not None:
                self._running.discard(lane)

    async def _run_batch(self, batch: list[tuple[Item, asyncio.Future[Answer] | None]]) -> None:
        try:
            answers = await self._flush([item for item, _ in batch])
            if len(answers) != len(batch):
                raise RuntimeError(f"flush answered {len(answers)} of {len(batch)} items")
        except asyncio.CancelledError:
            for _, future in batch:
                if future is not None:
                    future.cancel()
            raise
        except Exception as error:
            answers = [error] * len(batch)
        self.settled += len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future is None or future.done():
                continue
            if isinstance(answer, BaseException):
                future.set_exception(answer)
                # An abandoned caller must not turn into an "exception was never retrieved" line.
                future.exception()
            else:
                future.set_result(answer)
