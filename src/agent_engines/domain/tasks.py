"""Tasks: what someone submitted, and the states it goes through.

submit -> queued -> running -> success
             ^         |-> retrying -> queued (next attempt, possibly another agent)
             |         |-> failed | dead_letter | cancelled | expired
             |-> cancelled | expired            (terminal states never change)
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from .budgets import Spend
from .hints import Hints
from .terms import DEFAULT_TENANT, NO_TERMS, Affinity, Budget, Terms

DEFAULT_PRIORITY = 3
DEFAULT_MAX_ATTEMPTS = 3
"""For tasks whose submitter and handler said nothing."""
MAX_TASK_TYPE_LENGTH = 128
NO_PAYLOAD = msgspec.Raw(b"null")


class TaskStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCESS = "success"
    FAILED = "failed"
    DEAD_LETTER = "dead_letter"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset(
    {
        TaskStatus.SUCCESS,
        TaskStatus.FAILED,
        TaskStatus.DEAD_LETTER,
        TaskStatus.CANCELLED,
        TaskStatus.EXPIRED,
    }
)


class PriorityClass(StrEnum):
    """Five priorities share three queues, so that a flood of low work cannot refuse urgent work."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @classmethod
    def of(cls, priority: int) -> PriorityClass:
        """1 and 2 are high, 3 is normal, 4 and 5 are low."""
        if priority <= 2:
            return cls.HIGH
        return cls.NORMAL if priority == DEFAULT_PRIORITY else cls.LOW


class TaskError(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Why an attempt or a task did not succeed, as the outside sees it."""

    type: str
    message: str
    retryable: bool = False


class TaskRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a caller asks for. `payload` is any JSON value. Times: seconds; `deadline`, `run_at`: epoch seconds.

    Written without its defaults: a router of an older release refuses fields it does not know.
    """

    task_type: str
    payload: Any = None
    requirements: dict[str, Any] = {}
    priority: int = DEFAULT_PRIORITY
    timeout_seconds: float | None = None
    deadline: float | None = None
    idempotency_key: str | None = None
    max_attempts: int | None = None
    metadata: dict[str, Any] = {}
    request_id: str | None = None
    run_at: float | None = None
    """Not before this moment; the task waits in the ledger until then. A time that has passed means now."""
    strategy: str | None = None
    """By which strategy the agent is chosen; None: as the router is configured."""
    features: list[float] | None = None
    """What the task looks like, in numbers that mean the same for every task of its type (domain/hints.py)."""
    embedding: list[float] | None = None
    tenant: str = DEFAULT_TENANT
    """On whose account it runs."""
    budget: Budget | None = None
    affinity: Affinity | None = None
    traceparent: str | None = None
    """The trace it belongs to, as a W3C header; None: that of the submission it comes with."""


class Task(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An accepted request: identified, validated, its payload kept as the caller's own JSON bytes."""

    task_id: str
    request_id: str
    task_type: str
    payload: msgspec.Raw = NO_PAYLOAD
    requirements: dict[str, Any] = {}
    priority: int = DEFAULT_PRIORITY
    timeout_seconds: float | None = None
    deadline: float | None = None
    idempotency_key: str | None = None
    body_hash: bytes = b""
    max_attempts: int | None = None
    metadata: dict[str, Any] = {}
    submitted_at: float = 0.0
    origin: str = ""
    traceparent: str | None = None
    run_at: float | None = None
    hints: Hints | None = None
    terms: Terms = NO_TERMS


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """A task as the outside sees it: `GET /v1/tasks/{id}`. Times are epoch seconds, written as ISO 8601 at the edge."""

    task_id: str
    request_id: str
    task_type: str
    status: TaskStatus
    selected_agent: str | None
    priority: int
    attempts: int
    submitted_at: float
    started_at: float | None = None
    completed_at: float | None = None
    execution_time_ms: float | None = None
    result: Any = None
    error: TaskError | None = None
    trace_id: str | None = None
    deadline: float | None = None
    metadata: dict[str, Any] = {}
    quality: float | None = None
    cost: float | None = None
    run_at: float | None = None
    """When it was submitted to run later: the moment it was to wait for."""
    terms: Terms = NO_TERMS
    spent: Spend | None = None
    """What all its attempts used up: only where one task with terms is asked for."""
