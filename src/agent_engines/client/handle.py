"""TaskHandle: a submitted task, from the caller's side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from agent_engines.domain.errors import TaskFailed
from agent_engines.domain.messages import Acceptance
from agent_engines.domain.tasks import TaskStatus, TaskView
from agent_engines.ports.service import TaskEvent

from .transport import Transport


class TaskHandle:
    """`acceptance` says who was chosen and why."""

    __slots__ = ("_transport", "_view", "acceptance")

    def __init__(self, acceptance: Acceptance, transport: Transport) -> None:
        self.acceptance = acceptance
        self._transport = transport
        self._view: TaskView | None = None

    def __repr__(self) -> str:
        return f"TaskHandle({self.task_id!r}, agent={self.acceptance.selected_agent!r})"

    @property
    def task_id(self) -> str:
        return self.acceptance.task_id

    @property
    def request_id(self) -> str:
        return self.acceptance.request_id

    async def result(self, timeout: float | None = None) -> Any:
        """What the handler returned. Raises TaskFailed (it ended otherwise), TimeoutError (not ended in `timeout` seconds)."""
        view = await self.outcome(timeout)
        if view.status is TaskStatus.SUCCESS:
            return view.result
        detail = f"{view.error.type}: {view.error.message}" if view.error else "no reason was recorded"
        raise TaskFailed(view.task_id, view.status.value, detail)

    async def outcome(self, timeout: float | None = None) -> TaskView:
        """The whole terminal view, whatever the status. Raises TimeoutError."""
        if self._view is None:
            self._view = await self._transport.outcome(self.task_id, timeout)
        return self._view

    async def status(self) -> TaskView:
        """The task as it is now."""
        return self._view or await self._transport.task(self.task_id)

    def events(self) -> AsyncIterator[TaskEvent]:
        """What happens to the task, from its beginning until it has ended."""
        return self._transport.events(self.task_id)

    async def cancel(self) -> TaskStatus:
        """Ask to stop it; returns where it stands. Raises Conflict when it has ended already."""
        return await self._transport.cancel(self.task_id)
