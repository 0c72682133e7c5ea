"""One attempt as named steps over one value.

gates, in order: cancelled -> expired -> unknown; the first that answers decides, nothing runs
run: decode the payload, call the handler, encode its result
judge: success, or what the retry rule says about the failure
"""

from __future__ import annotations

import asyncio
import inspect
import random
import signal
import threading
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from agent_engines.domain.budgets import NOTHING, Spend
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.retry import Failure, RetryAt, RetryRule, readable
from agent_engines.domain.series import POISONED
from agent_engines.domain.tasks import TaskError, TaskStatus
from agent_engines.ports.clock import Clock
from agent_engines.ports.telemetry import Log, Telemetry

from .attempt import Attempt, Outcome, Stop
from .cancellations import Cancellations
from .complaints import Complaints
from .context import ProgressSink, TaskContext
from .handlers import BadPayload, Handler
from .results import MAX_RESULT_BYTES, BadResult
from .threads import HandlerThreads

STILL_RUNNING = Outcome(TaskStatus.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorParts:
    """What an executor works with. `task_timeout`: seconds, for handlers that set none; `max_result_bytes`: of JSON."""

    agent: str
    replica: str
    handlers: Mapping[str, Handler]
    telemetry: Telemetry
    clock: Clock
    threads: HandlerThreads
    rng: random.Random
    task_timeout: float = 300.0
    max_result_bytes: int = MAX_RESULT_BYTES
    progress: ProgressSink | None = None
    price: Spend = NOTHING
    """Declared for one task: what an attempt is taken to have used up that reported nothing."""


class Executor:
    """Turns an attempt into an outcome; touches no bus."""

    def __init__(self, parts: ExecutorParts, *, rule: RetryRule | None = None) -> None:
        self.parts = parts
        self.cancellations = Cancellations()
        self.log: Log = parts.telemetry.log(parts.agent)
        self._rule = rule or RetryRule()
        self._complaints = Complaints(self.log)
        self._tracing = parts.telemetry.tracing

    def gate(self, attempt: Attempt) -> Outcome | None:
        """The outcome of an attempt that must not run; None: `attempt` is prepared, run it."""
        message, parts = attempt.message, self.parts
        if attempt.stop is Stop.CANCELLED or self.cancellations.covers(message):
            return _ended(TaskStatus.CANCELLED, "Cancelled", "cancelled before it started")
        now = parts.clock.now()
        if message.deadline is not None and now >= message.deadline:
            return _ended(TaskStatus.EXPIRED, "Expired", "the deadline passed before the task could start")
        attempt.handler = parts.handlers.get(message.task_type)
        if attempt.handler is None:
            return self._unknown(attempt)
        self._prepare(attempt, attempt.handler, now)
        return None

    def run(self, attempt: Attempt) -> Coroutine[Any, Any, Outcome | None]:
        """Run a prepared attempt to its outcome; None: it was told to shut down, hand the task back."""
        traced = self._tracing or attempt.message.traceparent is not None
        return self._traced(attempt) if traced else self._outcome(attempt)

    def report(self, attempt: Attempt, outcome: Outcome) -> Report:
        """What to tell the recorder about this outcome."""
        started, elapsed, context = attempt.started_at, attempt.elapsed, attempt.context
        ended: float | None = None
        if outcome is STILL_RUNNING:
            kind, context = ReportKind.STARTED, None
        else:
            kind = ReportKind.RETRY if outcome.retry_at is not None else ReportKind.FINAL
            ended = self.parts.clock.now() if started is None or elapsed is None else started + elapsed
        message = attempt.message
        # What never ran cost nothing; what runs still will be told at its end.
        price = NOTHING if ended is None or elapsed is None else self.parts.price
        return Report(
            kind=kind,
            task_id=message.task_id,
            request_id=message.request_id,
            task_type=message.task_type,
            agent=message.agent,
            replica=self.parts.replica,
            generation=message.generation,
            attempt=message.attempt,
            delivery=attempt.delivery.count,
            status=outcome.status,
            result=outcome.result,
            error=outcome.error,
            started_at=started,
            completed_at=ended,
            execution_time_ms=None if elapsed is None else elapsed * 1000.0,
            retry_at=outcome.retry_at,
            quality=None if context is None else context.judged_quality,
            cost=told(context and context.paid_cost, price.cost),
            tokens=told(context and context.used_tokens, price.tokens),
            tenant=message.tenant,
            priority=message.priority,
            submitted_at=message.submitted_at,
            origin=message.origin,
            traceparent=attempt.traceparent,
            capability=message.capability,
        )

    def started(self, attempt: Attempt) -> Report:
        """What to tell about an attempt that takes a while."""
        return self.report(attempt, STILL_RUNNING)

    def poisoned(self, reason: str) -> Outcome:
        """How a task ends that ends its process."""
        return _ended(TaskStatus.DEAD_LETTER, POISONED, readable(reason))

    def failed(self, attempt: Attempt, failure: Failure) -> Outcome:
        """Let the retry rule decide about a failure."""
        message = attempt.message
        verdict = self._rule.decide(
            failure,
            attempt=message.attempt,
            max_attempts=message.max_attempts,
            deadline=message.deadline,
            now=self.parts.clock.now(),
            rng=self.parts.rng,
        )
        if isinstance(verdict, RetryAt):
            return Outcome(TaskStatus.RETRYING, error=failure.error, retry_at=verdict.at)
        return Outcome(verdict.status, error=failure.error)

    def _unknown(self, attempt: Attempt) -> Outcome:
        kind = attempt.message.task_type
        detail = f"agent {self.parts.agent} has no handler for {kind!r}"
        return self.failed(attempt, Failure(TaskError("UnknownTaskType", readable(detail), retryable=True)))

    def _prepare(self, attempt: Attempt, handler: Handler, now: float) -> None:
        message, parts = attempt.message, self.parts
        loop = asyncio.get_running_loop()
        limit = handler.capability.timeout_seconds or parts.task_timeout
        if message.timeout_seconds is not None:
            limit = min(limit, message.timeout_seconds)
        if message.deadline is not None:
            limit = min(limit, message.deadline - now)
        attempt.timeout = limit
        attempt.started_at = now
        attempt.begun = loop.time()
        attempt.due = attempt.begun + limit
        attempt.measured_from = parts.clock.monotonic()
        if handler.takes_context:
            attempt.context = TaskContext(message, self.log, now=parts.clock.now, loop=loop, sink=parts.progress)

    async def _traced(self, attempt: Attempt) -> Outcome | None:
        message = attempt.message
        span = self.parts.telemetry.span(
            "process", parent=message.traceparent, kind="consumer", task_id=message.task_id, task_type=message.task_type
        )
        with span as entered:
            attempt.traceparent = entered.traceparent or message.traceparent
            outcome = await self._outcome(attempt)
            if outcome is None or outcome.status is not TaskStatus.SUCCESS:
                entered.set(outcome="handed back" if outcome is None else str(outcome.status))
            return outcome

    async def _outcome(self, attempt: Attempt) -> Outcome | None:
        attempt.entered = True
        handler, context, parts = attempt.handler, attempt.context, self.parts
        assert handler is not None
        try:
            if attempt.stop is not None:
                raise asyncio.CancelledError
            if context is not None:
                context.traceparent = attempt.traceparent
            attempt.measured_from = parts.clock.monotonic()
            arguments = handler.arguments(context, attempt.message.payload)
            if handler.is_async:
                value: Any = await handler.function(*arguments)
            else:
                value = await parts.threads.run(handler.function, arguments)
                if inspect.isawaitable(value):
                    value = await value
            return Outcome(TaskStatus.SUCCESS, handler.result(value, limit=parts.max_result_bytes))
        except BaseException as error:
            return self._judged(attempt, error)
        finally:
            attempt.elapsed = parts.clock.monotonic() - attempt.measured_from

    def _judged(self, attempt: Attempt, error: BaseException) -> Outcome | None:
        """Sort what came out of a handler. Re-raises what is not the handler's: outside cancellation, a real Ctrl-C."""
        if isinstance(error, GeneratorExit):
            raise error
        if attempt.stop is Stop.CANCELLED:
            return _ended(TaskStatus.CANCELLED, "Cancelled", "cancelled while it ran")
        if attempt.stop is Stop.SHUTDOWN:
            return None
        if attempt.stop is Stop.TIMEOUT:
            return self.failed(attempt, Failure(_timed_out(attempt)))
        if isinstance(error, BadPayload | BadResult):
            return self.failed(attempt, Failure(error.error))
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise error
            return self.failed(
                attempt, Failure(TaskError("CancelledError", "the handler cancelled itself", retryable=True))
            )
        if isinstance(error, Exception):
            self._complaints.hear(attempt.message.task_type, attempt.message.task_id, error, attempt.begun)
            return self.failed(attempt, Failure.of(error))
        if isinstance(error, KeyboardInterrupt) and _interrupts_here():
            raise error
        detail = readable(f"the handler raised {type(error).__name__}: {error}")
        return self.failed(attempt, Failure(TaskError("HandlerExit", detail, retryable=False)))


def _ended(status: TaskStatus, kind: str, detail: str) -> Outcome:
    return Outcome(status, error=TaskError(kind, detail, retryable=False))


def _timed_out(attempt: Attempt) -> TaskError:
    return TaskError("Timeout", f"no result within {attempt.timeout:.3g} seconds", retryable=True)


def _interrupts_here() -> bool:
    """Would a Ctrl-C be raised right here? Then a KeyboardInterrupt is the operator's, not the handler's."""
    in_main = threading.current_thread() is threading.main_thread()
    return in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler


Number = TypeVar("Number", int, float)


def told(reported: Number | None, declared: Number) -> Number | None:
    """What the handler reported, else what the agent declared; None: nothing is known."""
    return reported if reported is not None else declared or None
