"""Thinning: few are all taken, of many about the wanted number, whatever comes in what order."""

from __future__ import annotations

from random import Random

import pytest

from agent_engines.runtime.thinning import Thinning


def taken(rate: float, seconds: float, *, batch: int = 1) -> float:
    """Outcomes taken a second, of `rate` a second that arrive in batches; the first two seconds are not counted."""
    thinning, found = Thinning(Random(1)), 0
    for place in range(int(rate * seconds)):
        now = (place // batch * batch) / rate
        found += thinning.takes(1000.0 + now) and now >= 2.0
    return found / (seconds - 2.0)


@pytest.mark.parametrize("batch", [1, 100, 500])
@pytest.mark.parametrize("rate", [1_000.0, 5_000.0, 20_000.0])
def test_of_many_about_two_hundred_a_second_are_taken(rate: float, batch: int) -> None:
    assert 100.0 < taken(rate, 20.0, batch=batch) < 420.0


def test_all_of_few_are_taken() -> None:
    assert taken(50.0, 20.0) == pytest.approx(50.0, rel=0.01)


def test_what_is_taken_does_not_depend_on_how_it_ended() -> None:
    thinning, rng = Thinning(Random(3)), Random(4)
    kept = {True: 0, False: 0}
    seen = {True: 0, False: 0}
    for place in range(100_000):
        good = rng.random() < 0.3
        seen[good] += 1
        kept[good] += thinning.takes(1000.0 + place / 5_000.0)
    shares = {good: kept[good] / seen[good] for good in (True, False)}
    assert shares[True] == pytest.approx(shares[False], rel=0.15)


def test_after_a_rush_all_are_taken_again() -> None:
    thinning = Thinning(Random(5))
    for place in range(10_000):
        thinning.takes(1000.0 + place / 10_000.0)
    late = [thinning.takes(1010.0 + place) for place in range(20)]
    assert all(late[2:])
