"""The soak's estimator: a steady leak is seen, steps, saw teeth and noise are not taken for one."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "soak"))
from slope import floors, slope

SECONDS = [float(at) for at in range(0, 1800, 5)]


def test_a_steady_leak_is_seen_through_saw_teeth_and_noise() -> None:
    """Two MiB an hour under teeth of three MiB: the interval holds the truth and excludes zero."""
    rng = Random(1)
    samples = [(at, 50 + 2 * at / 3600 + 3 * (at % 60) / 60 + rng.uniform(0, 0.05)) for at in SECONDS]
    found = slope(floors(samples))
    assert found.low <= 2.0 <= found.high
    assert found.low > 1.0
    assert found.middle == pytest.approx(2.0, abs=0.2)


def test_one_step_is_no_leak() -> None:
    samples = [(at, 50.0 + (2.0 if at > 600 else 0.0)) for at in SECONDS]
    assert slope(floors(samples)).low == 0.0


def test_nothing_but_noise_has_an_interval_around_zero() -> None:
    rng = Random(2)
    found = slope(floors([(at, 50 + rng.uniform(0, 1)) for at in SECONDS]))
    assert found.low <= 0.0 <= found.high


def test_the_floor_of_a_minute_is_its_lowest_sample() -> None:
    assert floors([(0, 5.0), (30, 3.0), (59, 4.0), (61, 9.0)]) == [(30, 3.0), (61, 9.0)]


def test_too_few_samples_say_nothing() -> None:
    with pytest.raises(ValueError, match="five"):
        slope([(0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0)])
