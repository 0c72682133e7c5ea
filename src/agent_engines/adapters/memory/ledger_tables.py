"""The in-memory ledger's tables: dictionaries, and the rows in them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import count

from agent_engines.domain.budgets import NOTHING, Spend, TenantLimits
from agent_engines.domain.decisions import Decision
from agent_engines.domain.feedback import Feedback
from agent_engines.domain.messages import Report
from agent_engines.domain.tasks import DEFAULT_MAX_ATTEMPTS, Task, TaskError, TaskStatus
from agent_engines.ports.clock import Clock
from agent_engines.ports.ledger import AgentRecord, DeadLetter, StoredTask

Epoch = tuple[int, int, int]
"""Generation, attempt, delivery."""


@dataclass(slots=True)
class TaskRow:
    task: Task
    status: TaskStatus
    selected_agent: str | None
    updated_at: float
    generation: int = 1
    attempt: int = 1
    next_run_at: float | None = None
    started_at: float | None = None
    cancel_requested: bool = False
    legs: dict[int, str] | None = None
    """Generations whose failure counts, with their agents, where a hedge made them two; None: the newest alone."""

    @property
    def current(self) -> Collection[int]:
        """Generations whose failure counts; see domain/legs.py."""
        return (self.generation,) if self.legs is None else self.legs

    def stored(self) -> StoredTask:
        return StoredTask(
            task=self.task,
            status=self.status,
            generation=self.generation,
            attempt=self.attempt,
            max_attempts=self.task.max_attempts or DEFAULT_MAX_ATTEMPTS,
            last_agent=self.selected_agent,
        )


@dataclass(slots=True)
class AttemptRow:
    agent: str
    replica: str
    status: TaskStatus
    started_at: float | None
    completed_at: float | None = None
    retry_at: float | None = None
    error: TaskError | None = None
    spent: Spend = NOTHING


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    report: Report
    recorded_at: float


@dataclass(frozen=True, slots=True)
class DecisionRow:
    number: int
    decision: Decision
    generation: int | None


@dataclass(slots=True)
class Tables:
    clock: Clock
    tasks: dict[str, TaskRow] = field(default_factory=dict[str, TaskRow])
    open: dict[str, TaskRow] = field(default_factory=dict[str, TaskRow])
    """The part of `tasks` that has not ended: what claims look through."""
    outcomes: dict[str, OutcomeRow] = field(default_factory=dict[str, OutcomeRow])
    attempts: dict[str, dict[Epoch, AttemptRow]] = field(default_factory=dict[str, dict[Epoch, AttemptRow]])
    letters: dict[str, DeadLetter] = field(default_factory=dict[str, DeadLetter])
    decisions: dict[str, DecisionRow] = field(default_factory=dict[str, DecisionRow])
    feedback: dict[tuple[str, int, str], Feedback] = field(default_factory=dict[tuple[str, int, str], Feedback])
    """By task, generation and source."""
    limits: dict[str, TenantLimits] = field(default_factory=dict[str, TenantLimits])
    spend: dict[tuple[str, float], Spend] = field(default_factory=dict[tuple[str, float], Spend])
    """By tenant and hour."""
    agents: dict[str, AgentRecord] = field(default_factory=dict[str, AgentRecord])
    numbers: count[int] = field(default_factory=count)

    def add_decision(self, name: str, decision: Decision, generation: int | None) -> bool:
        """False when the name is taken."""
        if name in self.decisions:
            return False
        self.decisions[name] = DecisionRow(next(self.numbers), decision, generation)
        return True

    def end(self, report: Report) -> None:
        """Write the terminal row, and everything that follows from it."""
        task_id = report.task_id
        self.outcomes[task_id] = OutcomeRow(report, self.clock.now())
        row = self.open.pop(task_id, None)
        if row is not None:
            row.status = report.status
            row.next_run_at = None
            row.selected_agent = report.agent or row.selected_agent
        if report.agent is not None and report.agent not in self.agents:
            self.agents[report.agent] = AgentRecord(
                name=report.agent,
                agent_type="custom",
                status="healthy",
                capabilities=[],
                metadata={},
                created_at=self.clock.now(),
                last_seen=None,
            )
        if report.status is TaskStatus.DEAD_LETTER:
            error = report.error
            self.letters[task_id] = DeadLetter(
                task_id=task_id,
                task_type=report.task_type,
                agent=report.agent,
                reason=(error and (error.message or error.type)) or "no reason was given",
                attempts=report.attempt,
                created_at=self.clock.now() if report.completed_at is None else report.completed_at,
            )
