"""Again? When? Never? The rule for attempts that did not succeed.

not retryable                    -> failed
the deadline has passed          -> expired
no attempts left                 -> dead_letter
told a delay past the deadline   -> expired
otherwise                        -> again, after the told delay or an exponential one with full jitter
"""

from __future__ import annotations

import math
import random
from typing import TypeAlias

import msgspec

from .errors import ContractViolation, InvalidRequest, PermanentFailure, RetryLater, Unavailable
from .tasks import TaskError, TaskStatus

MAX_ERROR_CHARACTERS = 2_000
MAX_DOUBLINGS = 64
"""2**64 half seconds are past any cap; beyond, floats would overflow."""

NEVER_AGAIN = (PermanentFailure, InvalidRequest, ContractViolation)


class Failure(msgspec.Struct, frozen=True):
    """Why an attempt did not succeed; `after_seconds` is the delay somebody asked for, None: choose one."""

    error: TaskError
    after_seconds: float | None = None

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Sort an exception: RetryLater and Unavailable say when; PermanentFailure, InvalidRequest and ContractViolation never again."""
        named = TaskError(
            type=type(error).__name__, message=readable(str(error)), retryable=not isinstance(error, NEVER_AGAIN)
        )
        if isinstance(error, RetryLater):
            return cls(named, error.after_seconds)
        if isinstance(error, Unavailable):
            return cls(named, error.retry_after)
        return cls(named)


class RetryAt(msgspec.Struct, frozen=True):
    """Try again, not before `at` (epoch seconds)."""

    at: float


class GiveUp(msgspec.Struct, frozen=True):
    """The task ends here: failed, dead_letter or expired."""

    status: TaskStatus


Verdict: TypeAlias = RetryAt | GiveUp


class RetryRule(msgspec.Struct, frozen=True, kw_only=True):
    """Exponential backoff with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"). Seconds."""

    base_seconds: float = 0.5
    factor: float = 2.0
    cap_seconds: float = 60.0

    def ceiling(self, attempt: int) -> float:
        """The longest delay after attempt number `attempt` (from 1), seconds."""
        doublings = min(max(attempt - 1, 0), MAX_DOUBLINGS)
        return min(self.cap_seconds, self.base_seconds * self.factor**doublings)

    def decide(
        self,
        failure: Failure,
        *,
        attempt: int,
        max_attempts: int,
        deadline: float | None,
        now: float,
        rng: random.Random,
    ) -> Verdict:
        """What happens after attempt number `attempt` (from 1) of `max_attempts` failed at `now` (epoch seconds).

        A computed delay shrinks to fit the deadline; a told delay does not, the one who told it knows better.
        """
        if not failure.error.retryable:
            return GiveUp(TaskStatus.FAILED)
        if deadline is not None and now >= deadline:
            return GiveUp(TaskStatus.EXPIRED)
        if attempt >= max_attempts:
            return GiveUp(TaskStatus.DEAD_LETTER)
        told = failure.after_seconds
        if told is not None and math.isfinite(told):
            at = now + max(told, 0.0)
            return RetryAt(at) if deadline is None or at < deadline else GiveUp(TaskStatus.EXPIRED)
        window = self.ceiling(attempt)
        if deadline is not None:
            window = min(window, deadline - now)
        at = now + rng.random() * window
        # Rounding may land a float exactly on the deadline.
        return RetryAt(at) if deadline is None or at < deadline else RetryAt(now)


def readable(text: str) -> str:
    """Bound an error text to 2,000 characters that every store takes: no NUL, no lone surrogates."""
    if len(text) > MAX_ERROR_CHARACTERS:
        text = text[: MAX_ERROR_CHARACTERS - 1] + "…"
    if "\x00" in text:
        text = text.replace("\x00", "\\x00")
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text[:MAX_ERROR_CHARACTERS]
