"""The retry rule: again, when, never."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_engines.domain.errors import InvalidRequest, PermanentFailure, RetryLater, Unavailable
from agent_engines.domain.retry import MAX_ERROR_CHARACTERS, Failure, GiveUp, RetryAt, RetryRule, readable
from agent_engines.domain.tasks import TaskError, TaskStatus

RULE = RetryRule()
RETRYABLE = Failure(TaskError("Boom", "it broke", retryable=True))
FATAL = Failure(TaskError("Boom", "it broke", retryable=False))
NOW = 1_000.0

attempts = st.integers(1, 200)
seeds = st.integers(0, 2**32)
deadlines = st.none() | st.floats(NOW - 100, NOW + 200)
told = st.none() | st.floats(allow_nan=True, allow_infinity=True)


@given(attempts, attempts, deadlines, told, seeds)
def test_no_retry_is_ever_scheduled_past_the_deadline_or_into_the_past(
    attempt: int, max_attempts: int, deadline: float | None, after: float | None, seed: int
) -> None:
    failure = Failure(RETRYABLE.error, after)
    verdict = RULE.decide(
        failure, attempt=attempt, max_attempts=max_attempts, deadline=deadline, now=NOW, rng=random.Random(seed)
    )
    if isinstance(verdict, RetryAt):
        assert verdict.at >= NOW
        assert attempt < max_attempts
        assert deadline is None or verdict.at < deadline
    else:
        assert verdict.status in (TaskStatus.EXPIRED, TaskStatus.DEAD_LETTER)


@given(attempts, attempts, deadlines, seeds)
def test_what_cannot_be_retried_fails_at_once(
    attempt: int, max_attempts: int, deadline: float | None, seed: int
) -> None:
    verdict = RULE.decide(
        FATAL, attempt=attempt, max_attempts=max_attempts, deadline=deadline, now=NOW, rng=random.Random(seed)
    )
    assert verdict == GiveUp(TaskStatus.FAILED)


@given(st.integers(1, 99), seeds)
def test_the_delay_doubles_from_half_a_second_up_to_a_minute_with_full_jitter(attempt: int, seed: int) -> None:
    verdict = RULE.decide(RETRYABLE, attempt=attempt, max_attempts=100, deadline=None, now=NOW, rng=random.Random(seed))
    expected = random.Random(seed).random() * min(60.0, 0.5 * 2 ** (attempt - 1))
    assert isinstance(verdict, RetryAt)
    assert verdict.at == pytest.approx(NOW + expected)


@given(st.floats(0, 1e6), seeds)
def test_a_told_delay_is_honoured_exactly(after: float, seed: int) -> None:
    failure = Failure.of(RetryLater("busy", after_seconds=after))
    verdict = RULE.decide(failure, attempt=1, max_attempts=2, deadline=None, now=NOW, rng=random.Random(seed))
    assert verdict == RetryAt(NOW + after)


def test_no_attempts_left_is_a_dead_letter() -> None:
    verdict = RULE.decide(RETRYABLE, attempt=3, max_attempts=3, deadline=None, now=NOW, rng=random.Random(1))
    assert verdict == GiveUp(TaskStatus.DEAD_LETTER)


def test_a_passed_deadline_is_expired_even_on_the_last_attempt() -> None:
    verdict = RULE.decide(RETRYABLE, attempt=3, max_attempts=3, deadline=NOW, now=NOW, rng=random.Random(1))
    assert verdict == GiveUp(TaskStatus.EXPIRED)


def test_a_told_delay_past_the_deadline_is_expired() -> None:
    failure = Failure.of(RetryLater("busy", after_seconds=60.0))
    verdict = RULE.decide(failure, attempt=1, max_attempts=3, deadline=NOW + 30, now=NOW, rng=random.Random(1))
    assert verdict == GiveUp(TaskStatus.EXPIRED)


@pytest.mark.parametrize(
    ("error", "retryable", "after"),
    [
        (ValueError("x"), True, None),
        (RetryLater("x"), True, None),
        (RetryLater("x", after_seconds=7), True, 7),
        (Unavailable("x", retry_after=3.0), True, 3.0),
        (PermanentFailure("x"), False, None),
        (InvalidRequest("x", field="f"), False, None),
    ],
)
def test_exceptions_say_whether_and_when_to_try_again(error: Exception, retryable: bool, after: float | None) -> None:
    failure = Failure.of(error)
    assert (failure.error.type, failure.error.message) == (type(error).__name__, "x")
    assert (failure.error.retryable, failure.after_seconds) == (retryable, after)


@given(
    st.text(st.characters()) | st.text(st.sampled_from(["a", "\x00", "\ud800", "é", "😀"])).map(lambda text: text * 700)
)
def test_error_texts_are_bounded_and_storable(text: str) -> None:
    shown = readable(text)
    assert len(shown) <= MAX_ERROR_CHARACTERS
    assert "\x00" not in shown
    assert shown.encode("utf-8").decode() == shown
