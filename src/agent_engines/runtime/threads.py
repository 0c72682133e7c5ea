"""Threads for plain `def` handlers: bounded, made when needed, and never in the way of the process's end.

The standard pool's threads keep a process alive until the last handler returns; these are daemons, so a handler that
hangs for ever costs a thread, not the shutdown.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

MAX_THREADS = 256


class _Call:
    """One call on its way to a thread and back."""

    __slots__ = ("arguments", "context", "function", "future", "loop", "wanted")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.function = function
        self.arguments = arguments
        self.context = contextvars.copy_context()
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.wanted = True

    def settle(self, result: Any, problem: BaseException | None) -> None:
        if self.future.done():
            return
        if problem is None:
            self.future.set_result(result)
        elif isinstance(problem, StopIteration):
            # A future refuses StopIteration: it would end the coroutine that awaits it.
            self.future.set_exception(RuntimeError(f"the handler raised {problem!r}"))
        else:
            self.future.set_exception(problem)


class HandlerThreads:
    """At most `size` threads (256 at the very most). Calls beyond wait in line; one that was given up meanwhile is skipped."""

    def __init__(self, size: int, *, name: str) -> None:
        self._size = min(size, MAX_THREADS)
        self._name = name
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._open_calls = 0
        self.abandoned = 0
        """Calls nobody waits for any more (timed out or cancelled) that have not come back yet."""
        self._closed = False
        self.on_return: Callable[[], None] | None = None
        """Called when an abandoned call has come back: its thread is free again."""

    def resize(self, size: int) -> None:
        """As many as there are slots now: settings may come after the engine was made. Threads that are there stay."""
        self._size = min(size, MAX_THREADS)

    @property
    def alive(self) -> int:
        return sum(thread.is_alive() for thread in self._threads)

    async def run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Call in a thread, with the caller's context variables. Cancelling leaves the thread to end by itself."""
        if self._closed:
            raise RuntimeError("the engine has stopped, no handler can run")
        call = _Call(function, arguments)
        self._open_calls += 1
        call.future.add_done_callback(self._came_back)
        if self._open_calls > len(self._threads) and len(self._threads) < self._size:
            self._start_one()
        self._calls.put(call)
        try:
            return await asyncio.shield(call.future)
        except asyncio.CancelledError:
            if not call.future.done():
                call.wanted = False
                self.abandoned += 1
                call.future.add_done_callback(self._abandoned_came_back)
            raise

    def close(self) -> None:
        """Let idle threads end now and busy ones after their call. May be called twice."""
        if not self._closed:
            self._closed = True
            for _ in self._threads:
                self._calls.put(None)

    async def closed(self, seconds: float) -> int:
        """Close, wait up to `seconds` for the threads to end; how many are still in a handler then."""
        self.close()
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self.alive and loop.time() < until:
            await asyncio.sleep(0.005)
        return self.alive

    def _start_one(self) -> None:
        name = f"{self._name}-{len(self._threads) + 1}"
        thread = threading.Thread(target=_work, args=(self._calls,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _came_back(self, future: asyncio.Future[Any]) -> None:
        self._open_calls -= 1

    def _abandoned_came_back(self, future: asyncio.Future[Any]) -> None:
        self.abandoned -= 1
        if self.on_return is not None:
            self.on_return()


def _work(calls: SimpleQueue[_Call | None]) -> None:
    while (call := calls.get()) is not None:
        _answer(call)
        # Nothing of a finished call may be kept alive by an idle thread.
        del call


def _answer(call: _Call) -> None:
    result: Any = None
    problem: BaseException | None = None
    if call.wanted:
        try:
            result = call.context.run(call.function, *call.arguments)
        except BaseException as error:
            problem = error
    try:
        call.loop.call_soon_threadsafe(call.settle, result, problem)
    except RuntimeError:
        # The loop has closed: nobody is left to be told.
        return
