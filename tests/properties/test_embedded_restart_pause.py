"""The pause before a restart grows, stays within bounds and is forgiven after a healthy life."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent_engines.adapters.embedded.restart_pause import RestartPause

lives = st.lists(st.floats(min_value=0, max_value=100), max_size=100)


def test_the_pause_doubles_up_to_five_seconds() -> None:
    pause = RestartPause()
    assert [pause.after(0) for _ in range(7)] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


@given(lives)
def test_the_pause_stays_within_its_bounds(lived: list[float]) -> None:
    pause = RestartPause()
    assert all(0.2 <= pause.after(seconds) <= 5 for seconds in lived)


@given(lives)
def test_a_healthy_life_is_forgiven(lived: list[float]) -> None:
    pause = RestartPause()
    for seconds in lived:
        pause.after(seconds)
    assert pause.after(30) == 0.2
