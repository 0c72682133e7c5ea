"""The scaling matrix is total, monotone, and warns once an episode."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_engines.domain.scaling import (
    CALM_SECONDS,
    MOST_REPLICAS,
    URGENCY,
    CapacityWatch,
    ScalingAction,
    advise,
    most_urgent,
    used_share,
)


@pytest.mark.parametrize(
    ("waiting", "action", "more"),
    [
        (0, "none", 0),
        (100, "none", 0),
        (101, "monitor", 0),
        (500, "monitor", 0),
        (501, "scale_up", 1),
        (750, "scale_up", 1),
        (751, "scale_up", 2),
        (1000, "scale_up", 2),
        (1001, "emergency", 3),
        (2000, "emergency", 3),
        (2001, "emergency", 4),
    ],
)
def test_the_matrix_at_its_edges(waiting: int, action: str, more: int) -> None:
    advice = advise(waiting)
    assert (advice.action, advice.add_replicas) == (action, more)


@given(st.integers(-(10**9), 10**9))
def test_every_queue_gets_advice_within_the_bounds_of_its_band(waiting: int) -> None:
    advice = advise(waiting)
    low, high = {
        ScalingAction.NONE: (0, 0),
        ScalingAction.MONITOR: (0, 0),
        ScalingAction.SCALE_UP: (1, 2),
        ScalingAction.EMERGENCY: (3, MOST_REPLICAS),
    }[advice.action]
    assert low <= advice.add_replicas <= high
    assert str(max(0, waiting)) in advice.reason


@given(st.integers(0, 20_000), st.integers(0, 20_000))
def test_a_longer_queue_never_gets_calmer_advice(one: int, other: int) -> None:
    calm, urgent = advise(min(one, other)), advise(max(one, other))
    assert URGENCY.index(calm.action) <= URGENCY.index(urgent.action)
    assert calm.add_replicas <= urgent.add_replicas


def test_the_fleet_is_as_urgent_as_its_most_urgent_agent() -> None:
    assert most_urgent([ScalingAction.MONITOR, ScalingAction.EMERGENCY, ScalingAction.NONE]) == "emergency"
    assert most_urgent([]) == "none"


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 1000), st.integers(0, 10**5))
def test_the_used_share_is_never_negative_and_grows_with_work(w: int, r: int, slots: int, size: int) -> None:
    assert 0.0 <= used_share(w, r, slots, size) <= used_share(w + 1, r, slots, size)


def test_the_fuller_of_slots_and_queue_counts() -> None:
    assert used_share(0, 8, 10, 1000) == 0.8
    assert used_share(900, 0, 10_000, 1000) == 0.9
    assert used_share(0, 0, 0, 0) == 0.0
    assert used_share(1, 0, 0, 0) == 1.0


def test_a_flickering_load_is_one_episode() -> None:
    watch = CapacityWatch()
    changes = [watch.update(float(t), 1.0 if t % 2 else 0.1) for t in range(100)]
    assert changes.count(True) == 1
    assert watch.active


def test_an_episode_ends_after_calm_and_the_next_one_warns_again() -> None:
    watch = CapacityWatch()
    assert watch.update(0.0, 0.8)
    assert not watch.update(CALM_SECONDS - 1, 0.79)
    assert watch.update(CALM_SECONDS, 0.79)
    assert not watch.active
    assert watch.update(CALM_SECONDS + 1, 0.8)


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0, 2)), max_size=60))
def test_every_change_is_told_exactly_once(readings: list[tuple[float, float]]) -> None:
    watch, now, active = CapacityWatch(), 0.0, False
    for pause, share in readings:
        now += pause
        told = watch.update(now, share)
        assert told == (watch.active != active)
        active = watch.active
