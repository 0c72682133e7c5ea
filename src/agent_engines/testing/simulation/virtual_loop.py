"""A seeded world's event loop: one thread, no sockets, no sleeping. When nothing is ready, time jumps to the next timer.

Callbacks run in the order they were scheduled, as on a real loop; different interleavings come from seeded latencies.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

from .process import PROCESS, Process

MAX_TURNS = 50_000
"""Turns without any progress of time after which something must be spinning."""
EPOCH = 1_700_000_000.0


class Stuck(RuntimeError):
    """Nothing will ever happen again, or time does not pass any more."""


class VirtualLoop(asyncio.AbstractEventLoop):
    """As much of an event loop as code without I/O needs. Raises Stuck."""

    def __init__(self) -> None:
        self._now = 0.0
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = 0
        self._idle_turns = 0
        self._closed = False
        self._running = False
        self.turns = 0
        self.complaints: list[dict[str, Any]] = []
        """What a real loop would have logged."""

    def time(self) -> float:
        return self._now

    def run_until_complete(self, future: Any) -> Any:
        """Run until `future` is done. Raises what it raises, or Stuck."""
        asyncio._set_running_loop(self)
        self._running = True
        try:
            task: asyncio.Future[Any] = asyncio.ensure_future(future, loop=self)
            while not task.done():
                self._turn()
            return task.result()
        finally:
            self._running = False
            asyncio._set_running_loop(None)

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        raise Stuck("a thread in a simulation would end its repeatability")

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._order += 1
        heapq.heappush(self._timers, (when, self._order, handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None, **options: Any
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context, **options)
        process = PROCESS.get() if context is None else context.get(PROCESS, None)
        if process is not None:
            process.adopt(task)
        return task

    def thaw(self, process: Process) -> None:
        """Let a frozen process run on, first what came due meanwhile."""
        self._ready.extend(process.thaw())

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True
        self._ready.clear()
        self._timers.clear()

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.complaints.append(context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Asked for by TimerHandle; a cancelled timer is dropped when its time comes."""

    def _turn(self) -> None:
        ready, timers = self._ready, self._timers
        self.turns += 1
        self._idle_turns += 1
        if self._idle_turns > MAX_TURNS:
            raise Stuck(f"time stands still at {self._now:.3f} s: something spins")
        while timers and (timers[0][2].cancelled() or timers[0][0] <= self._now or not ready):
            when, _, handle = heapq.heappop(timers)
            if handle.cancelled():
                continue
            if when > self._now:
                self._now = when
                self._idle_turns = 0
            ready.append(handle)
        if not ready:
            raise Stuck(f"nothing will ever happen again after {self._now:.3f} s")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle.cancelled():
                continue
            process = handle._context.get(PROCESS)  # type: ignore[attr-defined]
            if process is not None and process.frozen:
                process.parked.append(handle)
            else:
                handle._run()


class VirtualClock:
    """Implements ports.clock.Clock over the running virtual loop."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        return EPOCH + self._loop.time()

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def empty_context() -> Context:
    """A context that belongs to no process: the servers' own."""
    context = copy_context()
    context.run(PROCESS.set, None)
    return context
