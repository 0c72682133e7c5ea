"""Attempts: one try at one task, from its arrival at the agent to its report."""

from __future__ import annotations

import asyncio
from enum import Enum
from math import inf
from typing import TypeAlias

import msgspec

from agent_engines.domain.messages import TaskMessage
from agent_engines.domain.poison import Place, Starts
from agent_engines.domain.priority_queue import PriorityQueue
from agent_engines.domain.tasks import NO_PAYLOAD, TaskError, TaskStatus
from agent_engines.ports.bus import Delivery

from .context import TaskContext
from .handlers import Handler

Key: TypeAlias = tuple[str, int]
"""(task id, generation): what may run once at a time in one process."""

INSIST_SECONDS = 1.0
"""A handler that swallows its cancellation is told again after this long."""


class Stop(Enum):
    """Why a running attempt is told to stop."""

    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    SHUTDOWN = "shutdown"


class Outcome(msgspec.Struct, frozen=True):
    """How an attempt ended: `status` is terminal, or retrying with `retry_at` (epoch seconds)."""

    status: TaskStatus
    result: msgspec.Raw = NO_PAYLOAD
    error: TaskError | None = None
    retry_at: float | None = None


class Attempt(msgspec.Struct, eq=False):
    """One attempt while this process holds it. Loop times are `loop.time()` seconds, `started_at` is epoch seconds."""

    message: TaskMessage
    delivery: Delivery
    """The newest arrival; when the lease ran out meanwhile, it is not the first."""
    leased_at: float = inf
    """When the lease was given or renewed, on the clock of Leases; inf: there is none to lose."""
    lease_lost: bool = False
    key: Key = ("", 0)
    doubtful: bool = False
    """It was somewhere before and brought no report from there: its start is noted. A hedge is no such sign."""
    place: Place | None = None
    """Where it may run, once that is known of a doubtful one."""
    starts: Starts | None = None
    handler: Handler | None = None
    context: TaskContext | None = None
    task: asyncio.Task[None] | None = None
    stop: Stop | None = None
    entered: bool = False
    announced: bool = False
    begun: float = 0.0
    measured_from: float = 0.0
    """Of the clock, not of the loop: a loop's time stands still for a millisecond or as long as one turn lasts."""
    due: float = 0.0
    timeout: float = 0.0
    started_at: float | None = None
    elapsed: float | None = None
    traceparent: str | None = None

    def __post_init__(self) -> None:
        message = self.message
        self.key = (message.task_id, message.generation)
        self.doubtful = self.delivery.count > 1 or message.generation - message.hedge > message.attempt
        self.traceparent = message.traceparent

    def wait_in(self, queue: PriorityQueue[Attempt], now: float) -> None:
        """Take a place among those of its priority and tenant. Raises QueueFull."""
        message = self.message
        queue.put(self.key, self, priority=message.priority, now=now, tenant=message.tenant, weight=message.weight)

    def interrupt(self, why: Stop) -> None:
        """Tell the handler to stop; the first reason counts. A repeated call cancels again."""
        if self.stop is None:
            self.stop = why
        if self.context is not None:
            self.context.stop()
        # A task cancelled before its first step would end without a word; it looks at `stop` when it begins.
        if self.task is not None and self.entered:
            self.task.cancel()
