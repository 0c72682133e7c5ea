"""Answers to submissions: accepted, accepted before, or refused and why."""

from __future__ import annotations

from agent_engines.domain.decisions import Decision
from agent_engines.domain.errors import AgentEnginesError, Conflict, InvalidRequest, NoEligibleAgent, Unavailable
from agent_engines.domain.messages import Acceptance, Refusal, SubmitResult
from agent_engines.domain.tasks import Task, TaskStatus
from agent_engines.ports.ledger import Known

from .fleet import Roster


def refusal(error: AgentEnginesError) -> Refusal:
    """An error as it travels: the class's name and what the caller needs."""
    return Refusal(
        kind=_public_name(error),
        detail=str(error),
        field=error.field if isinstance(error, InvalidRequest) else None,
        retry_after=error.retry_after if isinstance(error, Unavailable) else None,
    )


def _public_name(error: AgentEnginesError) -> str:
    """The nearest class that callers know: adapters raise finer ones of their own."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == AgentEnginesError.__module__)


COMMITTED = "committed"
JOURNAL = "journal"
"""Accepted while the ledger was away: the bus alone keeps the task until the ledger is back."""


def accepted(task_id: str, decision: Decision, *, existing: bool = False, durability: str = COMMITTED) -> Acceptance:
    """The task is queued; `existing`: it was before."""
    return Acceptance(
        task_id=task_id,
        request_id=decision.request_id,
        status=TaskStatus.QUEUED,
        selected_agent=decision.selected_agent,
        confidence=decision.confidence,
        propensity=decision.propensity,
        strategy=decision.strategy,
        reasoning=decision.reasoning,
        policy_version=decision.policy_version,
        durability=durability,
        existing=existing,
    )


def first_answer(task: Task, known: Known, *, durability: str = COMMITTED) -> SubmitResult:
    """The answer the first submission with this key got, or Conflict when it asked for something else."""
    if known.body_hash != task.body_hash:
        return SubmitResult(refused=refusal(Conflict("this idempotency key was used for a request with another body")))
    if known.decision is not None:
        answer = accepted(known.task_id, known.decision, existing=True, durability=durability)
        return SubmitResult(accepted=answer)
    return SubmitResult(
        accepted=Acceptance(
            task_id=known.task_id,
            request_id=task.request_id,
            status=TaskStatus.QUEUED,
            selected_agent=None,
            confidence=0.0,
            propensity=0.0,
            strategy="",
            reasoning="The decision of the first submission is not kept any more.",
            policy_version="",
            existing=True,
        )
    )


def nobody(task_type: str, roster: Roster, retry_after: float) -> NoEligibleAgent:
    """The error that says why each agent fell."""
    reasons = "; ".join(f"{fallen.agent}: {fallen.reason}" for fallen in roster.rejected[:10])
    more = f"; and {len(roster.rejected) - 10} more" if len(roster.rejected) > 10 else ""
    why = f" ({reasons}{more})" if reasons else " (no agent has been heard from)"
    return NoEligibleAgent(f"no agent can perform {task_type!r} now{why}", retry_after=retry_after)
