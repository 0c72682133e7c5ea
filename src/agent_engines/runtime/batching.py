"""Group commit: whoever comes while one batch is under way travels in the next one.

Batches are as large as the load makes them and no larger: alone, an item goes at once; under load, hundreds share one
commit or one message. There is no timer, so an idle system adds no latency.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from itertools import repeat
from typing import Any, Generic, TypeVar

from agent_engines.domain.errors import QueueFull, Unavailable

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class _Together(Generic[Answer]):
    """The answers of items that were put together: one future for all, done when the last of them is there."""

    __slots__ = ("answers", "future", "left")

    def __init__(self, size: int) -> None:
        self.future: asyncio.Future[list[Answer | BaseException]] = asyncio.get_running_loop().create_future()
        self.answers: list[Any] = [None] * size
        self.left = size

    def settle(self, place: int, answer: Answer | BaseException) -> None:
        self.answers[place] = answer
        self.left -= 1
        if self.left == 0 and not self.future.done():
            self.future.set_result(self.answers)


_Asked = asyncio.Future[Answer] | _Together[Answer] | None
"""Whoever waits for an answer: alone, with others, or nobody."""


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
        self._waiting: deque[tuple[Item, _Asked[Answer], int]] = deque()
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
        return [item for item, _, _ in self._waiting]

    def put(self, item: Item) -> asyncio.Future[Answer]:
        """Queue one item; the future holds its answer. Raises QueueFull, Unavailable (closed)."""
        self.check()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future, 0))
        self._begin()
        return future

    def put_all(self, items: Sequence[Item]) -> asyncio.Future[list[Answer | BaseException]]:
        """Queue items that whoever puts them waits for together: one answer or error for each, in order.

        They are as separate as any others: only whether there is room must be asked before, with `check`.
        """
        together: _Together[Answer] = _Together(len(items))
        self._waiting.extend(zip(items, repeat(together), range(len(items))))
        if items:
            self._begin()
        else:
            together.future.set_result([])
        return together.future

    def post(self, item: Item) -> None:
        """Queue one item whose answer nobody waits for. Raises QueueFull, Unavailable (closed)."""
        self.check()
        self._waiting.append((item, None, 0))
        self._begin()

    def check(self, beside: int = 0) -> None:
        """Raises QueueFull, Unavailable (closed) when one more item beside so many others is not taken."""
        if self._closed:
            raise Unavailable("this process is shutting down")
        if len(self._waiting) + beside >= self._max_waiting:
            raise QueueFull("too many requests wait for a commit", retry_after=1.0)

    def _begin(self) -> None:
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

    async def _run_batch(self, batch: list[tuple[Item, _Asked[Answer], int]]) -> None:
        try:
            answers = await self._flush([item for item, _, _ in batch])
            if len(answers) != len(batch):
                raise RuntimeError(f"flush answered {len(answers)} of {len(batch)} items")
        except asyncio.CancelledError:
            for _, asked, _ in batch:
                if asked is not None:
                    (asked.future if isinstance(asked, _Together) else asked).cancel()
            raise
        except Exception as error:
            answers = [error] * len(batch)
        self.settled += len(batch)
        for (_, asked, place), answer in zip(batch, answers, strict=True):
            if asked is None:
                continue
            if isinstance(asked, _Together):
                asked.settle(place, answer)
            elif not asked.done():
                _tell(asked, answer)


def _tell(asked: asyncio.Future[Answer], answer: Answer | BaseException) -> None:
    if isinstance(answer, BaseException):
        asked.set_exception(answer)
        # An abandoned caller must not turn into an "exception was never retrieved" line.
        asked.exception()
    else:
        asked.set_result(answer)
