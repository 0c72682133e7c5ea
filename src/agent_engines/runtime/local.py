"""Running tasks without any server: the same checks, handlers, time limits and retries, in this process only."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import msgspec

from agent_engines.domain.messages import TaskMessage
from agent_engines.domain.tasks import TaskError, TaskRequest, TaskStatus
from agent_engines.domain.validation import to_task
from agent_engines.ports.bus import Delivery
from agent_engines.ports.telemetry import Log, Span

from .attempt import Attempt, Outcome, Stop
from .executor import Executor
from .plain_log import PlainLog
from .running import Running

PATIENCE_SECONDS = 5.0
"""A retry that is due later than this is reported instead of waited for."""


class LocalClock:
    """The machine's own time."""

    def now(self) -> float:
        return time.time_ns() / 1e9

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _NoSpan:
    traceparent: str | None = None

    def set(self, **attributes: Any) -> None:
        """Nobody measures."""


class LocalTelemetry:
    """Logs only: an engine without connections has nobody who counts."""

    def log(self, logger: str) -> Log:
        return PlainLog(logger)

    def task_done(self, agent: str, status: str, seconds: float | None) -> None: ...

    def queue_size(self, agent: str, size: int) -> None: ...

    def decided(self, strategy: str, outcome: str) -> None: ...

    def breaker(self, agent: str, state: int) -> None: ...

    def count(self, name: str, amount: float = 1, **labels: str) -> None: ...

    def gauge(self, name: str, value: float, **labels: str) -> None: ...

    def forget(self, name: str, **labels: str) -> None: ...

    tracing = False

    def span(
        self, name: str, *, parent: str | None = None, kind: str = "internal", **attributes: Any
    ) -> AbstractContextManager[Span]:
        return nullcontext(_NoSpan())


class LocalRunner:
    """Runs requests one attempt after the other until they end."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._running = Running()

    async def run(self, request: TaskRequest) -> dict[str, Any]:
        """The task's end as a mapping; see Engine.handle_task. Raises InvalidRequest."""
        message = self._message(request)
        while True:
            attempt = Attempt(message, Delivery(message, 1, None))
            outcome = await self._attempt(attempt)
            wait = None if outcome.retry_at is None else outcome.retry_at - self._executor.parts.clock.now()
            if wait is None or wait > PATIENCE_SECONDS:
                return _told(attempt, outcome)
            await self._executor.parts.clock.sleep(wait)
            message = msgspec.structs.replace(message, attempt=message.attempt + 1, generation=message.generation + 1)

    async def close(self) -> None:
        """Stop what still runs. May be called twice."""
        for attempt in self._running:
            self._running.interrupt(attempt, Stop.CANCELLED)
        tasks = [attempt.task for attempt in self._running if attempt.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=2.0)
        self._running.close()

    async def _attempt(self, attempt: Attempt) -> Outcome:
        early = self._executor.gate(attempt)
        if early is not None:
            return early
        ended: list[Outcome | None] = []

        async def run() -> None:
            ended.append(await self._executor.run(attempt))

        # A task of its own: a time limit must cancel the handler, not the caller.
        attempt.task = asyncio.get_running_loop().create_task(run(), name=f"handle {attempt.message.task_type}")
        self._running.add(attempt)
        try:
            await asyncio.shield(attempt.task)
        except asyncio.CancelledError:
            if not attempt.task.done():
                self._running.interrupt(attempt, Stop.CANCELLED)
                await asyncio.wait({attempt.task})
            raise
        finally:
            self._running.discard(attempt)
        outcome = ended[0]
        assert outcome is not None, "nobody tells a local attempt to hand its task back"
        return outcome

    def _message(self, request: TaskRequest) -> TaskMessage:
        now = self._executor.parts.clock.now()
        task = to_task(request, now=now, origin="", new_id=lambda: str(uuid.uuid4()))
        handler = self._executor.parts.handlers.get(task.task_type)
        own = 1 if handler is None else handler.capability.max_attempts
        return TaskMessage(
            task_id=task.task_id,
            request_id=task.request_id,
            task_type=task.task_type,
            agent=self._executor.parts.agent,
            max_attempts=task.max_attempts or own,
            priority=task.priority,
            payload=task.payload,
            requirements=task.requirements,
            metadata=task.metadata,
            timeout_seconds=task.timeout_seconds,
            deadline=task.deadline,
            submitted_at=now,
        )


def _told(attempt: Attempt, outcome: Outcome) -> dict[str, Any]:
    told: dict[str, Any] = {
        "status": str(_plain(outcome.status)),
        "task_id": attempt.message.task_id,
        "attempts": attempt.message.attempt,
        "execution_time_ms": None if attempt.elapsed is None else attempt.elapsed * 1000.0,
    }
    if outcome.status is TaskStatus.SUCCESS:
        told["result"] = msgspec.json.decode(outcome.result)
    else:
        error = outcome.error or TaskError("Unknown", "")
        told["error"] = {"type": error.type, "message": error.message, "retryable": error.retryable}
    return told


def _plain(status: TaskStatus) -> TaskStatus:
    """Without servers there is no dead letter box and nobody who retries later."""
    return TaskStatus.FAILED if status in (TaskStatus.DEAD_LETTER, TaskStatus.RETRYING) else status
