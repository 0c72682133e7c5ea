"""What a handler knows about its task, and what it may tell while it runs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import msgspec

from agent_engines.domain.errors import InvalidRequest
from agent_engines.domain.messages import Progress, TaskMessage
from agent_engines.domain.retry import readable
from agent_engines.domain.terms import MOST_TOKENS
from agent_engines.ports.telemetry import Log

from .results import first_unstorable

MAX_PROGRESS_BYTES = 64 * 1024
THREAD_PROGRESS_SECONDS = 5.0

ProgressSink = Callable[[Progress], Awaitable[None]]


class _Told:
    """An awaitable that is done: progress told from a thread has been sent when the call returns."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


class TaskContext:
    """Given to handlers that ask for it. `deadline`: epoch seconds or None; `attempt` and `generation` count from 1.

    `task_id` is the same in every attempt: use it as the idempotency key for third parties.
    """

    __slots__ = (
        "_cancelled",
        "_cost",
        "_logger",
        "_loop",
        "_message",
        "_now",
        "_quality",
        "_sink",
        "_tokens",
        "traceparent",
    )

    def __init__(
        self,
        message: TaskMessage,
        logger: Log,
        *,
        now: Callable[[], float],
        loop: asyncio.AbstractEventLoop | None = None,
        sink: ProgressSink | None = None,
        traceparent: str | None = None,
    ) -> None:
        self._message = message
        self._logger = logger
        self._now = now
        self._loop = loop
        self._sink = sink
        self._cancelled = False
        self._quality: float | None = None
        self._cost: float | None = None
        self._tokens: int | None = None
        self.traceparent = traceparent
        """W3C trace header to pass on; None when tracing is off and nothing came in."""

    @property
    def task_id(self) -> str:
        return self._message.task_id

    @property
    def request_id(self) -> str:
        return self._message.request_id

    @property
    def task_type(self) -> str:
        return self._message.task_type

    @property
    def attempt(self) -> int:
        return self._message.attempt

    @property
    def max_attempts(self) -> int:
        return self._message.max_attempts

    @property
    def generation(self) -> int:
        """Counts dispatches: a fencing token for stores that can compare."""
        return self._message.generation

    @property
    def priority(self) -> int:
        return self._message.priority

    @property
    def deadline(self) -> float | None:
        return self._message.deadline

    @property
    def metadata(self) -> dict[str, Any]:
        return self._message.metadata

    @property
    def requirements(self) -> dict[str, Any]:
        return self._message.requirements

    @property
    def headers(self) -> dict[str, str]:
        """Headers to put on calls to other services so that they join this task's trace."""
        return {} if self.traceparent is None else {"traceparent": self.traceparent}

    @property
    def logger(self) -> Log:
        return self._logger

    @property
    def cancelled(self) -> bool:
        """True once this attempt should stop (cancelled, timed out or shutting down). Plain `def` handlers ask this."""
        return self._cancelled

    @property
    def judged_quality(self) -> float | None:
        return self._quality

    @property
    def used_tokens(self) -> int | None:
        return self._tokens

    @property
    def paid_cost(self) -> float | None:
        return self._cost

    def stop(self) -> None:
        """Used by the runtime: from now on `cancelled` is True."""
        self._cancelled = True

    def quality(self, value: float) -> None:
        """Report how good the work is, 0..1, when the handler can judge it. Raises InvalidRequest."""
        number = _number(value)
        if not 0.0 <= number <= 1.0:
            raise InvalidRequest(f"quality must be from 0 to 1, not {value!r}", field="quality")
        self._quality = number

    def cost(self, value: float) -> None:
        """Report what the work cost, in the fleet's currency. Raises InvalidRequest."""
        number = _number(value)
        if not 0.0 <= number < math.inf:
            raise InvalidRequest(f"cost must be 0 or more, not {value!r}", field="cost")
        self._cost = number

    def tokens(self, value: int) -> None:
        """Report how many tokens the work took. Raises InvalidRequest."""
        number = _number(value)
        if not 0 <= number <= MOST_TOKENS or number != int(number):
            raise InvalidRequest(f"tokens must be a whole number from 0, not {value!r}", field="tokens")
        self._tokens = int(number)

    def progress(self, fraction: float | None, message: str = "", data: Any = None) -> Awaitable[None]:
        """Tell how far the work is (0..1 or None), to be awaited; from a plain `def` handler call it without await.

        Losable: a bus that is away does not disturb the handler. Raises InvalidRequest (`data` is not JSON or over 64 KiB).
        """
        told = Progress(
            task_id=self._message.task_id,
            attempt=self._message.attempt,
            fraction=_share(fraction),
            message=readable(message),
            data=_checked(data),
            at=self._now(),
        )
        if self._in_loop():
            return self._tell(told)
        if self._loop is not None and not self._loop.is_closed() and not self._cancelled:
            waiting = asyncio.run_coroutine_threadsafe(self._tell(told), self._loop)
            try:
                waiting.result(THREAD_PROGRESS_SECONDS)
            except TimeoutError:
                waiting.cancel()
                self._logger.debug("Progress was not sent in time", task_id=self._message.task_id)
        return _Told()

    async def _tell(self, progress: Progress) -> None:
        if self._sink is not None:
            await self._sink(progress)

    def _in_loop(self) -> bool:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return False
        return True


def _number(value: object) -> float:
    """NaN, which fits no range, for what is not a number."""
    return float(value) if isinstance(value, int | float) else math.nan


def _share(fraction: float | None) -> float | None:
    if fraction is None or not math.isfinite(fraction):
        return None
    return min(max(float(fraction), 0.0), 1.0)


def _checked(data: Any) -> Any:
    if data is None:
        return None
    place = first_unstorable(data)
    if place is not None:
        raise InvalidRequest(f"progress data has {place}", field="data")
    try:
        size = len(msgspec.json.encode(data))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"progress data is not a JSON value: {error}", field="data") from error
    if size > MAX_PROGRESS_BYTES:
        raise InvalidRequest(f"progress data is {size} bytes of JSON, the limit is {MAX_PROGRESS_BYTES}", field="data")
    return data
