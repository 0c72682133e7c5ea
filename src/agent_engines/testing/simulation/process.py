"""Processes of the simulation: groups of tasks that can be killed, frozen and thawed as one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)
"""Whose code runs now; tasks, timers and callbacks inherit it."""


class Process:
    """One operating-system process. Everything spawned in it, and spawned by that, belongs to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.frozen = False
        self.parked: list[asyncio.Handle] = []
        """Callbacks that came due while it was frozen."""
        self.on_death: list[Callable[[], None]] = []
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self.context: Context = copy_context()
        self.context.run(PROCESS.set, self)

    def __repr__(self) -> str:
        return f"<{self.name}>"

    @property
    def tasks(self) -> list[asyncio.Task[Any]]:
        """What has not ended, oldest first."""
        return list(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run `work` inside this process."""
        return asyncio.get_running_loop().create_task(work, name=name, context=self.context.copy())

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Called by the loop for each task that begins in this process."""
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        if not self.alive:
            task.cancel()

    def freeze(self) -> None:
        """SIGSTOP: nothing of it runs; its connections stay open and its leases run out."""
        self.frozen = self.alive

    def thaw(self) -> list[asyncio.Handle]:
        """SIGCONT: what was due meanwhile, in order, for the loop to run now."""
        self.frozen = False
        parked, self.parked = self.parked, []
        return parked

    def kill(self) -> None:
        """SIGKILL: it touches nothing any more; its ports answer with a cancellation, which only unwinds its stacks."""
        if not self.alive:
            return
        self.alive = False
        for callback in self.on_death:
            callback()
        for task in self.tasks:
            task.cancel()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled():
            # Looked at, so that an error in unwinding is not told as "never retrieved".
            task.exception()
