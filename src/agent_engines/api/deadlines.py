"""Deadlines: many waits of one length under one timer. asyncio.timeout for each request costs a third of the request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

Value = TypeVar("Value")


class Deadlines:
    """Ends whatever takes longer than `seconds`. All waits are equally long, so the first to begin is the first due."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def hold(self, work: Callable[[], Awaitable[Value]]) -> Value:
        """The result of `work()`. Raises TimeoutError past the deadline. One at a time in each asyncio task."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline needs a task to end")
        loop = task.get_loop()
        self._due[task] = due = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(due, self._sweep)
        try:
            return await work()
        except asyncio.CancelledError:
            # Someone else may have cancelled it as well; then it stays cancelled.
            if task in self._late and task.uncancel() <= 0:
                raise TimeoutError from None
            raise
        finally:
            self._due.pop(task, None)
            self._late.discard(task)

    def _sweep(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task, due in list(self._due.items()):
            if due > now:
                self._timer = loop.call_at(due, self._sweep)
                return
            del self._due[task]
            self._late.add(task)
            task.cancel()
