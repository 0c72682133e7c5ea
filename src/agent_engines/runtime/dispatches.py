"""Dispatches: a task and the decision about it as the message that goes to the agent, marked with its capability."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from agent_engines.domain.budgets import NOTHING, Spend, left_of
from agent_engines.domain.capability import Capabilities
from agent_engines.domain.decisions import Decision, DecisionContext
from agent_engines.domain.hints import Hints
from agent_engines.domain.messages import TaskMessage
from agent_engines.domain.tasks import Task


class Dispatches:
    """Writes task messages; only reports that carry their capability back are recorded."""

    def __init__(self, capabilities: Capabilities) -> None:
        self._sign = capabilities.sign
        self.weight_of: Callable[[str], float] = lambda tenant: 1.0
        """The share of a tenant; see TenantBooks."""

    def message(
        self, task: Task, decision: Decision, max_attempts: int, now: float, *, generation: int = 1, attempt: int = 1
    ) -> TaskMessage:
        """`now`: epoch seconds of this dispatch."""
        agent = decision.selected_agent
        return TaskMessage(
            task_id=task.task_id,
            request_id=task.request_id,
            task_type=task.task_type,
            agent=agent,
            generation=generation,
            attempt=attempt,
            max_attempts=max_attempts,
            priority=task.priority,
            payload=task.payload,
            requirements=task.requirements,
            metadata=task.metadata,
            timeout_seconds=task.timeout_seconds,
            deadline=task.deadline,
            submitted_at=task.submitted_at,
            origin=task.origin,
            traceparent=task.traceparent,
            capability=self._sign(task.task_id, generation, agent),
            tenant=task.terms.tenant,
            weight=self.weight_of(task.terms.tenant),
            dispatched_at=now,
        )


NOTHING_SAID = Hints()


def context_of(task: Task, request_id: str, *, spent: Spend = NOTHING, price: float | None = None) -> DecisionContext:
    """What a policy may know about a task; of its budget, what is left of it. `price`: of one unit of cost."""
    terms = task.terms if spent == NOTHING else replace(task.terms, budget=left_of(task.terms.budget, spent))
    hints = task.hints or NOTHING_SAID
    return DecisionContext(
        request_id=request_id,
        task_type=task.task_type,
        requirements=task.requirements,
        priority=task.priority,
        deadline=task.deadline,
        payload_bytes=len(memoryview(task.payload)),
        task_id=task.task_id,
        strategy=hints.strategy,
        features=hints.features,
        embedding=hints.embedding,
        terms=terms,
        price=price,
    )
