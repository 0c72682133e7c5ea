"""Retries stay a share of the ordinary work, whatever comes in which order."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from agent_engines.domain.retry_budget import FLOOR_PER_SECOND, RATIO, WINDOW_SLICES, RetryBudget

FLOOR = int(FLOOR_PER_SECOND * WINDOW_SLICES)


@dataclass(frozen=True)
class Step:
    seconds: float
    ordinary: int
    wanted: int


STEPS = st.lists(
    st.builds(Step, seconds=st.floats(0.0, 5.0), ordinary=st.integers(0, 2000), wanted=st.integers(0, 1000)),
    max_size=60,
)


@given(STEPS)
def test_retries_never_exceed_a_fifth_or_the_floor_in_any_window(steps: list[Step]) -> None:
    budget, now = RetryBudget(), 0.0
    sent: list[tuple[int, int, int]] = []
    for step in steps:
        now += step.seconds
        budget.ordinary(now, step.ordinary)
        granted = min(step.wanted, budget.left(now))
        budget.spent(now, granted)
        sent.append((int(now), step.ordinary, granted))
        recent = [one for one in sent if one[0] > int(now) - WINDOW_SLICES]
        ordinary, retries = sum(one[1] for one in recent), sum(one[2] for one in recent)
        assert granted == 0 or retries <= max(FLOOR, RATIO * ordinary)


@given(STEPS)
def test_whoever_waits_gets_on_within_one_window(steps: list[Step]) -> None:
    budget, now = RetryBudget(), 0.0
    for step in steps:
        now += step.seconds
        budget.ordinary(now, step.ordinary)
        budget.spent(now, min(step.wanted, budget.left(now)))
    assert budget.left(now + WINDOW_SLICES) == FLOOR


def test_a_fifth_of_busy_traffic_and_the_floor_of_none() -> None:
    budget = RetryBudget()
    assert budget.left(100.0) == 30
    budget.ordinary(100.0, 1000)
    assert budget.left(100.0) == 200
    budget.spent(105.0, 150)
    assert budget.left(105.0) == 50
    assert budget.left(110.0) == 0, "the traffic has left the window, the retries have not"
    assert budget.left(115.0) == 30


def test_more_retries_than_allowed_leave_nothing_rather_than_less() -> None:
    budget = RetryBudget()
    budget.spent(1.0, 500)
    assert budget.left(1.0) == 0
