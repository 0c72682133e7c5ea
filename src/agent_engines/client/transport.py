"""Transport: the way to the system, as the client sees it. HTTP and the bus implement it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from agent_engines.domain.decisions import DecisionContext, Recommendation
from agent_engines.domain.errors import AgentEnginesError
from agent_engines.domain.feedback import FeedbackDraft
from agent_engines.domain.messages import Acceptance
from agent_engines.domain.tasks import TaskRequest, TaskStatus, TaskView
from agent_engines.ports.service import TaskEvent


class Transport(Protocol):
    """Every method raises Unreachable when nobody answers, and the domain's errors for what the server refused."""

    async def submit(
        self, requests: Sequence[TaskRequest], *, fresh: bool = False
    ) -> list[Acceptance | AgentEnginesError]:
        """One answer for each request, in order. `fresh`: no key among them was sent before; a hint that saves time."""
        ...

    async def task(self, task_id: str) -> TaskView: ...

    async def outcome(self, task_id: str, timeout: float | None) -> TaskView:
        """The terminal view. Raises TimeoutError after `timeout` seconds."""
        ...

    async def cancel(self, task_id: str) -> TaskStatus: ...

    def events(self, task_id: str) -> AsyncIterator[TaskEvent]:
        """From the task's beginning to its end, over broken connections."""
        ...

    async def recommend(self, context: DecisionContext) -> Recommendation: ...

    async def read(self, what: str, query: Mapping[str, Any] | None = None) -> Any:
        """JSON under `/v1/<what>`: tasks, tasks/{id}, agents, decisions, dead-letters, performance, policies..."""
        ...

    async def act(self, what: str) -> Any:
        """Do `POST /v1/<what>`, such as `agents/{id}:drain`; returns the JSON answer."""
        ...

    async def change(self, method: str, what: str, body: Any = None) -> Any:
        """Do `method` (POST, PUT, DELETE) on `/v1/<what>` with a JSON body; the JSON answer, None when it has none."""
        ...

    async def feedback(self, task_id: str, draft: FeedbackDraft) -> dict[str, Any]:
        """Judge a task that has ended; the stored judgement."""
        ...

    async def close(self) -> None: ...
