"""Estimates stay probabilities, follow experience and forget slowly."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_engines.domain.estimates import FORGETTING, Track, completion_ms, moved

outcomes = st.lists(st.booleans(), max_size=60)


def taught(history: list[bool]) -> Track:
    track = Track()
    for success in history:
        track.learn(success)
    return track


@given(outcomes)
def test_success_is_a_probability_and_doubt_its_spread(history: list[bool]) -> None:
    track = taught(history)
    assert 0.0 < track.success < 1.0
    assert 0.0 < track.doubt <= math.sqrt(0.125)


@given(outcomes)
def test_a_success_raises_the_estimate_and_a_failure_lowers_it(history: list[bool]) -> None:
    before = taught(history).success
    assert taught([*history, True]).success > before
    assert taught([*history, False]).success < before


def test_nothing_known_is_one_half_with_the_widest_doubt() -> None:
    assert Track().success == 0.5
    assert Track().doubt == pytest.approx(math.sqrt(0.125))


def test_doubt_shrinks_with_experience() -> None:
    assert taught([True, False] * 50).doubt < taught([True, False] * 5).doubt < Track().doubt


def test_old_outcomes_are_forgotten() -> None:
    assert taught([True] * 1000 + [False] * 700).success < 0.15


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=50))
def test_a_moving_average_stays_among_its_samples(samples: list[float]) -> None:
    track = Track()
    for sample in samples:
        track.learn(True, service_ms=sample)
    assert track.service_ms is not None
    assert min(samples) - 1e-6 <= track.service_ms <= max(samples) * (1 + 1e-9)


def test_the_first_ten_samples_are_a_plain_mean() -> None:
    average = None
    for count, sample in enumerate([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0], start=1):
        average = moved(average, sample, count)
    assert average == pytest.approx(5.5)


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf])
def test_impossible_times_are_not_learned(wrong: float) -> None:
    track = Track()
    track.learn(True, service_ms=wrong)
    assert track.service_ms is None


def test_quality_is_learned_only_within_its_range() -> None:
    track = Track()
    track.learn(True, quality=0.8)
    before = track.quality
    track.learn(True, quality=1.5)
    track.learn(True, quality=-0.1)
    assert track.quality == before


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=200))
def test_quality_is_the_mean_of_the_judgements_and_one_imagined_perfect_one(judged: list[float]) -> None:
    """With forgetting: each judgement weighs FORGETTING for every later one; the imagined one never fades."""
    track = Track()
    for quality in judged:
        track.learn(True, quality=quality)
    weights = [FORGETTING**age for age in reversed(range(len(judged)))]
    expected = (sum(w * q for w, q in zip(weights, judged, strict=True)) + 1.0) / (sum(weights) + 1.0)
    assert track.quality == pytest.approx(expected)


@given(st.floats(0.01, 1e4), st.integers(0, 1000), st.integers(1, 100), st.floats(0, 1000))
def test_completion_grows_with_load_and_lag_and_never_beats_the_service_time(
    service: float, in_flight: int, slots: int, lag: float
) -> None:
    expected = completion_ms(service, in_flight, slots, lag)
    assert expected >= service
    assert completion_ms(service, in_flight + 1, slots, lag) >= expected
    assert completion_ms(service, in_flight, slots + 1, lag) <= expected


def test_a_free_slot_costs_the_service_time_and_a_full_house_a_round_more() -> None:
    assert completion_ms(100.0, 9, 10) == 100.0
    assert completion_ms(100.0, 19, 10) == 200.0
    assert completion_ms(100.0, 0, 10, loop_lag_ms=100.0) == 200.0
