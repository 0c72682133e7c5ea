"""Deaths in series: when an agent stops taking tasks, for how long, and what makes it take them again."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_engines.domain.series import (
    LIVED,
    MAX_PAUSE_SECONDS,
    MOST_DEATHS,
    PAUSE_SECONDS,
    WINDOW,
    Intake,
    Series,
    judged,
)
from agent_engines.domain.tasks import TaskError, TaskStatus

DEAD = "dead_letter by RuntimeError of work"
ENDS = st.sampled_from([LIVED, DEAD, "failed by HandlerExit of a", "failed by HandlerExit of b"])


@given(st.lists(ENDS, max_size=80))
def test_it_pauses_at_the_very_end_that_makes_deaths_more_than_half_of_the_last_twenty(ends: list[str]) -> None:
    series, window = Series(), deque[str](maxlen=WINDOW)
    for end in ends:
        window.append(end)
        same = max(window.count("failed by HandlerExit of a"), window.count("failed by HandlerExit of b"))
        too_many = window.count(DEAD) + same > MOST_DEATHS
        assert series.ended(end, 0.0) == too_many
        assert bool(series.reason) == too_many
        if too_many:
            assert series.state is Intake.PAUSED
            return


@given(st.lists(st.sampled_from(["death", "retry"]), min_size=1, max_size=30), st.floats(0.0, 1e6))
def test_each_failed_probe_doubles_the_pause_up_to_five_minutes_and_a_success_ends_it(
    probes: list[str], now: float
) -> None:
    series = Series()
    for _ in range(MOST_DEATHS + 1):
        series.ended(DEAD, now)
    expected = PAUSE_SECONDS
    for probe in probes:
        assert series.until - now == pytest.approx(expected)
        assert not series.probe(series.until - 0.01)
        assert series.probe(series.until)
        now = series.until
        assert series.ended(DEAD, now) if probe == "death" else series.probed(False, now)
        assert series.state is Intake.PAUSED
        expected = min(2 * expected, MAX_PAUSE_SECONDS)
    assert series.probe(series.until)
    assert series.ended(LIVED, series.until)
    assert (series.state, series.reason, series.troubled) == (Intake.TAKING, "", False)


@given(st.lists(ENDS, max_size=WINDOW), st.integers(0, 5))
def test_the_next_process_goes_on_where_the_dead_one_was(ends: list[str], step: int) -> None:
    first, second = Series(), Series()
    for end in ends:
        if first.state is Intake.TAKING:
            first.ended(end, 0.0)
    paused = second.restore(first.ends, step, 0.0)
    assert paused == (first.state is Intake.PAUSED)
    if paused:
        assert second.until == min(PAUSE_SECONDS * 2**step, MAX_PAUSE_SECONDS)


def test_an_agent_whose_tasks_live_has_nothing_to_watch() -> None:
    series = Series()
    series.ended(LIVED, 0.0)
    assert not series.troubled
    series.ended(DEAD, 0.0)
    assert series.troubled
    for _ in range(WINDOW):
        series.ended(LIVED, 0.0)
    assert not series.troubled


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (TaskStatus.DEAD_LETTER, "RuntimeError", "dead_letter by RuntimeError of work"),
        (TaskStatus.DEAD_LETTER, "Timeout", "dead_letter by Timeout of work"),
        (TaskStatus.DEAD_LETTER, "Poisoned", "dead_letter by Poisoned of work"),
        (TaskStatus.DEAD_LETTER, "Undecodable", None),
        (TaskStatus.FAILED, "HandlerExit", "failed by HandlerExit of work"),
        (TaskStatus.FAILED, "UnserializableResult", "failed by UnserializableResult of work"),
        (TaskStatus.FAILED, "InvalidPayload", LIVED),
        (TaskStatus.FAILED, "PermanentFailure", LIVED),
        (TaskStatus.RETRYING, "RuntimeError", None),
        (TaskStatus.CANCELLED, "Cancelled", None),
        (TaskStatus.EXPIRED, "Expired", None),
    ],
)
def test_what_callers_can_bring_about_does_not_speak_against_the_agent(
    status: TaskStatus, kind: str, said: str | None
) -> None:
    assert judged(status, TaskError(kind, "why"), "work") == said
    assert judged(TaskStatus.SUCCESS, None, "work") == LIVED
