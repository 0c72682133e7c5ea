"""What the front doors (HTTP, bus gateway, in-process client) need from the intelligence engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

import msgspec

from agent_engines.domain.agents import AgentMode, AgentState, Load
from agent_engines.domain.decisions import Decision, DecisionContext
from agent_engines.domain.messages import SubmitResult
from agent_engines.domain.tasks import TaskRequest, TaskStatus, TaskView

from .feedback import FeedbackService
from .later import RedriveService, ScheduleService
from .ledger import DecisionFilter, LetterFilter, Page, Several, TaskFilter
from .policies import PolicyService
from .tenants import TenantService


class Health(msgspec.Struct, frozen=True):
    """`status` is "healthy" or "unhealthy"; `checks` has one entry for each server this engine needs."""

    status: str
    checks: dict[str, bool]


class Readiness(msgspec.Struct, frozen=True):
    """`status` is "ready" or "not_ready"; `detail` says why not, in a sentence."""

    status: str
    detail: str = ""


class ReplicaView(msgspec.Struct, frozen=True, kw_only=True):
    """`url`: where its HTTP side listens, as far as discovery knows."""

    replica: str
    state: AgentState
    load: Load
    age_seconds: float
    url: str | None = None


class AgentView(msgspec.Struct, frozen=True, kw_only=True):
    """`status`: healthy, suspect (silent for a few seconds), lost, draining, quarantined.

    `breaker_cause`: why it is not closed; `breaker_until`: epoch seconds at which an open one is tried again.
    """

    name: str
    agent_type: str
    status: str
    mode: AgentMode
    capabilities: tuple[str, ...]
    metadata: dict[str, Any]
    replicas: tuple[ReplicaView, ...]
    last_seen: float | None
    breaker: str = "closed"
    breaker_cause: str = ""
    breaker_until: float | None = None
    notes: tuple[str, ...] = ()
    """What it declares that routing cannot use, and what is taken instead."""


class TaskEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One step in a task's life. `id` sorts, is the same on every replica, and resumes a broken stream.

    `event`: queued, running, progress, retrying, success, failed, dead_letter, cancelled, expired.
    """

    id: str
    event: str
    data: dict[str, Any]


class IntelligenceService(Protocol):
    async def submit(
        self,
        requests: Sequence[TaskRequest],
        *,
        origin: str | None = None,
        traceparent: str | None = None,
        fresh: bool = False,
    ) -> list[SubmitResult]:
        """Validate, decide, accept durably and dispatch; one result each, in order. Never raises for one bad request.

        `fresh`: their idempotency keys were made for this call, so that nothing has to be looked up before dispatching.
        """
        ...

    async def recommend(self, context: DecisionContext) -> Decision:
        """Decide and record, dispatch nothing. Raises NoEligibleAgent, InvalidRequest."""
        ...

    async def task(self, task_id: str, wait: float = 0.0) -> TaskView:
        """With `wait`, return as soon as the task is terminal or the seconds are over. Raises NotFound."""
        ...

    async def ended(self, task_ids: Sequence[str], wait: float = 0.0) -> Several:
        """Those that are terminal; with `wait` seconds, as soon as one is. Unknown tasks are not in the answer."""
        ...

    async def tasks(self, wanted: TaskFilter) -> Page: ...

    async def cancel(self, task_id: str) -> TaskStatus:
        """Raises NotFound, Conflict."""
        ...

    async def retry(self, task_id: str) -> TaskView:
        """Run a failed, dead-lettered, cancelled or expired task again. Raises NotFound, Conflict."""
        ...

    def events(self, task_id: str, after: str | None = None) -> AsyncIterator[TaskEvent]:
        """All events past `after`, then live ones, ending with the terminal one. Raises NotFound."""
        ...

    async def decision(self, request_id: str) -> Decision: ...

    async def decisions(self, wanted: DecisionFilter) -> Page: ...

    def agents(self) -> list[AgentView]: ...

    def agent(self, name: str) -> AgentView:
        """Raises NotFound."""
        ...

    async def set_mode(self, name: str, mode: AgentMode) -> AgentView: ...

    async def dead_letters(self, limit: int, cursor: str | None) -> Page: ...

    async def redrive(self, task_id: str) -> TaskView: ...

    @property
    def schedules(self) -> ScheduleService: ...

    @property
    def redrives(self) -> RedriveService: ...

    @property
    def tenants(self) -> TenantService: ...

    @property
    def feedback(self) -> FeedbackService: ...

    @property
    def policies(self) -> PolicyService: ...

    async def letters(self, wanted: LetterFilter) -> Page: ...

    async def report(self, engine: str, what: str) -> dict[str, Any]:
        """Ask the performance or optimizing engine. Raises Unavailable when it does not run."""
        ...

    async def replay(self, policy: str, since: float | None) -> dict[str, Any]:
        """What a policy would have earned on decisions made since (epoch seconds). Raises NotFound, Unavailable."""
        ...

    async def counts(self) -> dict[str, int]:
        """Tasks by status."""
        ...

    async def health(self) -> Health: ...

    async def ready(self) -> Readiness: ...
