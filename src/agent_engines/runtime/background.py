"""Tracked work: every coroutine started in the background has a name, an owner and an end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from agent_engines.ports.telemetry import Log


class Background:
    """Owns tasks of one service. After `stop()` none of them is left."""

    def __init__(self, log: Log) -> None:
        self._log = log
        # In the order of their start: a set of tasks would be stopped in another order in every run.
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._stopping = False

    @property
    def names(self) -> list[str]:
        return sorted(task.get_name() for task in self._tasks)

    def spawn(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run once; an exception is logged, never lost."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def keep(self, name: str, work: Callable[[], Awaitable[Any]], *, pause: float = 1.0) -> asyncio.Task[Any]:
        """Run for ever: when `work` raises, log it, wait `pause` seconds and call it again; when it returns, it is done."""
        return self.spawn(name, self._keep(name, work, pause))

    async def stop(self) -> None:
        """Cancel everything and wait until it is gone. May be called twice."""
        self._stopping = True
        while self._tasks:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*list(self._tasks), return_exceptions=True)

    async def _keep(self, name: str, work: Callable[[], Awaitable[Any]], pause: float) -> None:
        while True:
            try:
                await work()
                return
            except Exception as error:
                if self._stopping:
                    # What was cancelled ended in another error: there will be no second cancellation.
                    self._log.warning("Background work failed while it was stopped", work=name, error=repr(error))
                    return
                self._log.warning("Background work failed and starts again", work=name, error=repr(error))
                await asyncio.sleep(pause)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if task.cancelled() or self._stopping:
            return
        error = task.exception()
        if error is not None:
            self._log.error("Background work ended with an error", work=task.get_name(), error=repr(error))
