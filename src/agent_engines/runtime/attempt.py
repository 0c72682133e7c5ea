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


class Attempt:
    """One attempt while this process holds it. Loop times are `loop.time()` seconds, `started_at` is epoch seconds."""

    __slots__ = (
        "announced",
        "begun",
        "context",
        "delivery",
        "doubtful",
        "due",
        "elapsed",
        "entered",
        "handler",
        "key",
        "lease_lost",
        "leased_at",
        "measured_from",
        "message",
        "place",
        "started_at",
        "starts",
        "stop",
        "task",
        "timeout",
        "traceparent",
    )

    def __init__(self, message: TaskMessage, delivery: Delivery) -> None:
        self.message = message
        self.delivery = delivery
        """The newest arrival; when the lease ran out meanwhile, it is not the first."""
        self.key: Key = (message.task_id, message.generation)
        self.leased_at = inf
        """When the lease was given or renewed, on the clock of Leases; inf: there is none to lose."""
        self.lease_lost = False
        self.doubtful = delivery.count > 1 or message.generation - message.hedge > message.attempt
        """It was somewhere before and brought no report from there: its start is noted. A hedge is no such sign."""
        self.place: Place | None = None
        """Where it may run, once that is known of a doubtful one."""
        self.starts: Starts | None = None
        self.handler: Handler | None = None
        self.context: TaskContext | None = None
        self.task: asyncio.Task[None] | None = None
        self.stop: Stop | None = None
        self.entered = False
        self.announced = False
        self.begun = 0.0
        self.measured_from = 0.0
        """Of the clock, not of the loop: a loop's time stands still for a millisecond or as long as one turn lasts."""
        self.due = 0.0
        self.timeout = 0.0
        self.started_at: float | None = None
        self.elapsed: float | None = None
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
