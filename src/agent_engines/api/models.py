"""What the API writes and reads as JSON. Times are ISO 8601 UTC, durations say their unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

from agent_engines.domain.agents import AgentMode
from agent_engines.domain.budgets import Spend
from agent_engines.domain.decisions import Candidate, Decision, Rejection
from agent_engines.domain.explanation import explanation
from agent_engines.domain.iso_times import iso
from agent_engines.domain.messages import Acceptance
from agent_engines.domain.tasks import TaskError, TaskStatus, TaskView
from agent_engines.domain.terms import DEFAULT_TENANT, TENANT, Affinity, Budget
from agent_engines.domain.traces import TRACEPARENT
from agent_engines.ports.ledger import DeadLetter, Page
from agent_engines.ports.service import AgentView, ReplicaView

from .times import iso_always

Item = TypeVar("Item")
TraceParent = Annotated[
    str, Meta(pattern=f"^{TRACEPARENT.pattern}$", description="its trace, if not that of the traceparent header")
]
TenantName = Annotated[str, Meta(pattern=f"^{TENANT.pattern}$", description="on whose account")]


class TaskSubmission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a caller asks for. Checked by `domain/validation.py`; this is its description."""

    task_type: Annotated[str, Meta(min_length=1, max_length=128, description="what kind of work this is")]
    payload: Annotated[Any, Meta(description="any JSON value, at most 32 levels deep")] = None
    requirements: Annotated[dict[str, Any] | None, Meta(description="what the agent must be or have")] = None
    priority: Annotated[int, Meta(ge=1, le=5)] | None = None
    timeout_seconds: Annotated[float, Meta(gt=0, le=604_800)] | None = None
    deadline: Annotated[
        str | float | None, Meta(description="ISO 8601 with an offset, or epoch seconds; in the future")
    ] = None
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    max_attempts: Annotated[int, Meta(ge=1, le=100)] | None = None
    metadata: dict[str, Any] | None = None
    request_id: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    run_at: Annotated[
        str | float | None,
        Meta(description="not before this moment: ISO 8601 with an offset, or epoch seconds; at most 366 days ahead"),
    ] = None
    strategy: Annotated[
        str | None, Meta(description="by which strategy the agent is chosen, if not as the router is configured")
    ] = None
    features: Annotated[
        list[float] | None,
        Meta(description="what the task looks like: 1 to 256 finite numbers, the same ones for every task of its type"),
    ] = None
    embedding: Annotated[list[float] | None, Meta(description="1 to 4,096 finite numbers")] = None
    tenant: TenantName | None = None
    budget: Annotated[Budget | None, Meta(description="what all attempts together may use up")] = None
    affinity: Annotated[Affinity | None, Meta(description="tasks with the same key meet the same agent")] = None
    traceparent: TraceParent | None = None


class BatchSubmission(msgspec.Struct, frozen=True, kw_only=True):
    """1 to 1,000 submissions. A bare list of them is accepted as well."""

    tasks: Annotated[list[TaskSubmission], Meta(min_length=1, max_length=1000)]


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """A task that will not be lost any more."""

    task_id: str
    request_id: str
    status: TaskStatus
    selected_agent: str | None
    confidence: float
    propensity: float
    strategy: str
    reasoning: str
    policy_version: str
    durability: str

    @classmethod
    def of(cls, acceptance: Acceptance) -> Accepted:
        return cls(
            task_id=acceptance.task_id,
            request_id=acceptance.request_id,
            status=acceptance.status,
            selected_agent=acceptance.selected_agent,
            confidence=acceptance.confidence,
            propensity=acceptance.propensity,
            strategy=acceptance.strategy,
            reasoning=acceptance.reasoning,
            policy_version=acceptance.policy_version,
            durability=acceptance.durability,
        )


class ErrorBody(msgspec.Struct, frozen=True):
    """Why a task did not succeed."""

    type: str
    message: str
    retryable: bool

    @classmethod
    def of(cls, error: TaskError | None) -> ErrorBody | None:
        return None if error is None else cls(error.type, error.message, error.retryable)


class Waited(Accepted, frozen=True, kw_only=True):
    """`POST /route-task?wait=`: also what became of it, as far as it is known when the wait is over."""

    attempts: int
    result: Any
    error: ErrorBody | None
    execution_time_ms: float | None
    submitted_at: str
    started_at: str | None
    completed_at: str | None
    trace_id: str | None

    @classmethod
    def after(cls, accepted: Acceptance, view: TaskView) -> Waited:
        return cls(
            task_id=accepted.task_id,
            request_id=accepted.request_id,
            status=view.status,
            selected_agent=view.selected_agent or accepted.selected_agent,
            confidence=accepted.confidence,
            propensity=accepted.propensity,
            strategy=accepted.strategy,
            reasoning=accepted.reasoning,
            policy_version=accepted.policy_version,
            durability=accepted.durability,
            attempts=view.attempts,
            result=view.result,
            error=ErrorBody.of(view.error),
            execution_time_ms=view.execution_time_ms,
            submitted_at=iso_always(view.submitted_at),
            started_at=iso(view.started_at),
            completed_at=iso(view.completed_at),
            trace_id=view.trace_id,
        )


class BatchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One entry in `results` for each task, in order: an Accepted, or `{"error": Problem}`."""

    accepted: int
    refused: int
    results: list[Any]


class TaskBody(msgspec.Struct, frozen=True, kw_only=True):
    """A task as it is now. `result` is null in lists."""

    task_id: str
    request_id: str
    task_type: str
    status: TaskStatus
    selected_agent: str | None
    priority: int
    attempts: int
    result: Any
    error: ErrorBody | None
    execution_time_ms: float | None
    submitted_at: str
    started_at: str | None
    completed_at: str | None
    deadline: str | None
    trace_id: str | None
    metadata: dict[str, Any]
    quality: float | None
    cost: float | None
    run_at: str | msgspec.UnsetType = msgspec.UNSET
    """Only for a task that was submitted to run later."""
    tenant: str = DEFAULT_TENANT
    budget: Budget | msgspec.UnsetType = msgspec.UNSET
    affinity: Affinity | msgspec.UnsetType = msgspec.UNSET
    spent: Spend | msgspec.UnsetType = msgspec.UNSET
    """What all attempts used up: only where one task that names a tenant, budget or affinity is shown."""

    @classmethod
    def of(cls, view: TaskView) -> TaskBody:
        return cls(
            task_id=view.task_id,
            request_id=view.request_id,
            task_type=view.task_type,
            status=view.status,
            selected_agent=view.selected_agent,
            priority=view.priority,
            attempts=view.attempts,
            result=view.result,
            error=ErrorBody.of(view.error),
            execution_time_ms=view.execution_time_ms,
            submitted_at=iso_always(view.submitted_at),
            started_at=iso(view.started_at),
            completed_at=iso(view.completed_at),
            deadline=iso(view.deadline),
            trace_id=view.trace_id,
            metadata=view.metadata,
            quality=view.quality,
            cost=view.cost,
            run_at=iso(view.run_at) or msgspec.UNSET,
            tenant=view.terms.tenant,
            budget=view.terms.budget or msgspec.UNSET,
            affinity=view.terms.affinity or msgspec.UNSET,
            spent=view.spent or msgspec.UNSET,
        )


class EndedQuestion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which of these tasks have ended? With `wait`, the answer is held until at least one has."""

    task_ids: Annotated[list[str], Meta(min_length=1, max_length=1000, description="UUIDs")]
    wait: Annotated[float, Meta(ge=0, le=300, description="seconds to wait for one of them to end")] = 0.0


class EndedTasks(msgspec.Struct, frozen=True, kw_only=True):
    """In no order. Tasks that have not ended, or are not known, are left out. `more`: others have ended too; ask again."""

    items: list[TaskBody]
    more: bool


class TaskState(msgspec.Struct, frozen=True):
    """Where a task stands after it was asked to stop."""

    task_id: str
    status: TaskStatus


class DecisionBody(msgspec.Struct, frozen=True, kw_only=True):
    """The full record of a choice: enough to explain it and to judge other policies by it."""

    request_id: str
    task_id: str | None
    task_type: str
    selected_agent: str
    confidence: float
    propensity: float
    strategy: str
    policy_version: str
    reasoning: str
    explored: bool
    created_at: str
    candidates: Sequence[Candidate]
    rejected: Sequence[Rejection]
    context: Any
    """What the router looked at: requirements, priority, deadline (epoch seconds), payload size."""
    explanation: list[str]
    """The decision in plain words, from the numbers above."""
    eligible: Sequence[str]
    """All who could have been chosen; `candidates` has numbers for the likeliest of a large fleet."""
    terms: dict[str, float]
    """What one unit of cost (price) and one second (haste) were worth in units of quality; empty for plain rules."""
    fallback: str
    """Why another strategy than the wanted one decided; empty: the wanted one did."""
    deterministic: bool
    """No chance took part although there was a choice: such a decision cannot judge other policies."""
    state_sequence: int | None
    """The last shared lesson that was learned when this was decided."""
    hedge: str = ""
    """Why a task under way at another agent was sent to this one too; empty: it was not."""

    @classmethod
    def of(cls, decision: Decision) -> DecisionBody:
        return cls(
            request_id=decision.request_id,
            task_id=decision.task_id,
            task_type=decision.task_type,
            selected_agent=decision.selected_agent,
            confidence=decision.confidence,
            propensity=decision.propensity,
            strategy=decision.strategy,
            policy_version=decision.policy_version,
            reasoning=decision.reasoning,
            explored=decision.explored,
            created_at=iso_always(decision.created_at),
            candidates=decision.candidates,
            rejected=decision.rejected,
            context=decision.context,
            explanation=explanation(decision),
            eligible=decision.agents,
            terms=decision.terms,
            fallback=decision.fallback,
            deterministic=decision.deterministic,
            state_sequence=decision.state_sequence,
            hedge=decision.hedge,
        )


class AgentBody(msgspec.Struct, frozen=True, kw_only=True):
    """`status`: healthy, suspect, lost, draining, quarantined. `breaker`: closed, half-open, open.

    `breaker_until`: when an open breaker is tried again.
    """

    name: str
    agent_type: str
    status: str
    mode: AgentMode
    breaker: str
    breaker_cause: str
    breaker_until: str | None
    capabilities: Sequence[str]
    metadata: dict[str, Any]
    replicas: Sequence[ReplicaView]
    last_seen: str | None
    notes: Sequence[str]
    """What it declares that routing cannot use, and what is taken instead."""

    @classmethod
    def of(cls, view: AgentView) -> AgentBody:
        return cls(
            name=view.name,
            agent_type=view.agent_type,
            status=view.status,
            mode=view.mode,
            breaker=view.breaker,
            breaker_cause=view.breaker_cause,
            breaker_until=iso(view.breaker_until),
            capabilities=view.capabilities,
            metadata=view.metadata,
            replicas=view.replicas,
            last_seen=iso(view.last_seen),
            notes=view.notes,
        )


class DeadLetterBody(msgspec.Struct, frozen=True, kw_only=True):
    """A task that was given up. `redriven_at` says when someone sent it on its way again."""

    task_id: str
    task_type: str
    agent: str | None
    reason: str
    attempts: int
    created_at: str
    redriven_at: str | None

    @classmethod
    def of(cls, letter: DeadLetter) -> DeadLetterBody:
        return cls(
            task_id=letter.task_id,
            task_type=letter.task_type,
            agent=letter.agent,
            reason=letter.reason,
            attempts=letter.attempts,
            created_at=iso_always(letter.created_at),
            redriven_at=iso(letter.redriven_at),
        )


class Listing(msgspec.Struct, Generic[Item], frozen=True):
    """A page of a list. `next_cursor` goes into `?cursor=`; null on the last page."""

    items: list[Item]
    next_cursor: str | None

    @classmethod
    def of(cls, page: Page, shape: Any) -> Listing[Any]:
        return Listing([shape.of(item) for item in page.items], page.next_cursor)


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the dashboard's first page needs, in one answer. A report is null when its engine does not run.

    While the database does not answer, `counts` and `decisions` are null and `problem` says why; the rest is still told.
    """

    agents: list[AgentBody]
    performance: dict[str, Any] | None
    scaling: dict[str, Any] | None
    counts: dict[str, int] | None
    decisions: list[DecisionBody] | None
    problem: str | None
    server_time: str
