"""The door: refuses the least urgent first, never lets a queue run dry, never lets it grow, and says when to come back."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from agent_engines.domain.admission import (
    CLOSES_AT,
    LATEST_SECONDS,
    SOONEST_SECONDS,
    DrainRate,
    Gate,
    crowded,
)
from agent_engines.domain.journal import KEEP_SHARE, LogState, forget_before
from agent_engines.domain.tasks import PriorityClass

URGENCY = (PriorityClass.HIGH, PriorityClass.NORMAL, PriorityClass.LOW)
TICK = 0.25


@given(waiting=st.integers(0, 10**7), rate=st.floats(0, 10**6), bound=st.floats(0.1, 100), free=st.integers(0, 1000))
def test_whoever_is_less_urgent_is_never_let_in_before_the_more_urgent(
    waiting: int, rate: float, bound: float, free: int
) -> None:
    gate = Gate(bound, free, DrainRate(rate * 10.0, 10.0))
    answers = [gate.retry_after(waiting, priority) for priority in URGENCY]
    waits = [0.0 if answer is None else answer for answer in answers]
    assert waits == sorted(waits)
    assert all(SOONEST_SECONDS <= answer <= LATEST_SECONDS for answer in answers if answer is not None)
    if waiting <= free:
        assert answers == [None, None, None]


@given(waiting=st.integers(1, 10**7), rate=st.floats(1, 10**5), priority=st.sampled_from(URGENCY))
def test_who_comes_back_when_told_is_let_in_if_nobody_else_came(
    waiting: int, rate: float, priority: PriorityClass
) -> None:
    gate = Gate(2.0, 0, DrainRate(rate * 10.0, 10.0))
    late = gate.retry_after(waiting, priority)
    if late is None or late >= LATEST_SECONDS:
        return
    left = max(0, math.floor(waiting - rate * late))
    assert gate.retry_after(left, priority) is None


@given(
    capacity=st.integers(200, 20_000),
    mix=st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)).filter(any),
    times=st.floats(2.0, 8.0),
)
@settings(max_examples=50)
def test_under_overload_what_can_be_done_is_done_and_nobody_waits_long(
    capacity: int, mix: tuple[int, int, int], times: float
) -> None:
    """A queue that empties at `capacity` while several times as much comes, for a minute in steps of 250 ms."""
    bound, free = 2.0, 100
    gate = Gate(bound, free)
    waiting = 0
    done = 0
    longest = 0.0
    shares = [part / sum(mix) * capacity * times * TICK for part in mix]
    for _ in range(240):
        before = waiting
        verdicts = [gate.retry_after(waiting, priority) for priority in URGENCY]
        waiting += sum(round(share) for share, verdict in zip(shares, verdicts, strict=True) if verdict is None)
        longest = max(longest, waiting / capacity)
        served = min(waiting, round(capacity * TICK))
        waiting -= served
        done += served
        gate.rate.note(served, TICK, waiting=max(before, served))
    assert done >= 0.9 * capacity * TICK * 240
    # The bound, the second before a rate is known, and what comes in between two looks.
    assert longest <= bound + (1.0 + TICK) * times + TICK * times


@given(st.lists(st.tuples(st.integers(0, 10_000), st.floats(0.01, 5.0)), min_size=1, max_size=50))
def test_a_measured_rate_lies_between_the_slowest_and_the_fastest_that_was_seen(
    looks: list[tuple[int, float]],
) -> None:
    rate = DrainRate()
    for left, seconds in looks:
        rate.note(left, seconds, waiting=1)
    found = rate.per_second
    if found is None:
        assert sum(seconds for _, seconds in looks) < 2.0 or rate.seconds < 1.0
        return
    seen = [left / seconds for left, seconds in looks]
    assert min(seen) * 0.999 <= found <= max(seen) * 1.001
    rate.forget()
    assert rate.per_second is None
    assert rate.wait(10**6) == 0.0


def test_a_queue_that_stands_still_closes_the_door_and_an_idle_time_says_nothing() -> None:
    rate = DrainRate()
    rate.note(0, 60.0, waiting=0)
    assert rate.per_second is None
    rate.note(0, 2.0, waiting=10)
    assert rate.wait(10) == math.inf
    assert Gate(1.0, 0, rate).retry_after(10, PriorityClass.HIGH) == LATEST_SECONDS


@given(fullness=st.floats(0, 1), bound=st.floats(0.1, 1))
def test_a_crowded_store_is_closed_to_the_least_urgent_first(fullness: float, bound: float) -> None:
    closed = [crowded(fullness, priority, bound=bound) for priority in URGENCY]
    assert closed == sorted(closed)
    assert crowded(bound * CLOSES_AT[PriorityClass.HIGH] * 1.01, PriorityClass.HIGH, bound=bound)


@given(
    first=st.integers(1, 10**6),
    held=st.integers(0, 10**6),
    settled=st.integers(0, 3 * 10**6),
    size=st.integers(1, 10**4),
    bound=st.integers(0, 10**9),
)
def test_a_log_forgets_only_what_is_settled_and_no_more_than_it_must(
    first: int, held: int, settled: int, size: int, bound: int
) -> None:
    last = first + held - 1
    log = LogState(first=first, last=last, settled=min(settled, last), bytes=held * size, bound=bound)
    before = forget_before(log)
    if before is None:
        assert log.fullness <= 0.7 or log.settled < first or held == 0
        return
    assert first < before <= log.settled + 1 <= last + 1
    left = (last - before + 1) * size
    assert left <= KEEP_SHARE * bound or before == log.settled + 1
    assert left + size > KEEP_SHARE * bound - size
