"""Sliding windows and anomalies against the plain computation over all events."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_engines.domain.anomalies import Baseline, Interval
from agent_engines.domain.windows import RELATIVE_ACCURACY, SlidingWindow, WindowSummary, merged

SPAN, BUCKETS = 60.0, 12
WIDTH = SPAN / BUCKETS

times = st.lists(st.floats(0, 200), min_size=1, max_size=80).map(sorted)
events = times.flatmap(
    lambda at: st.lists(st.tuples(st.floats(0.01, 60_000), st.booleans()), min_size=len(at), max_size=len(at)).map(
        lambda rest: [(t, ms, error) for t, (ms, error) in zip(at, rest, strict=True)]
    )
)


def filled(rows: list[tuple[float, float, bool]]) -> SlidingWindow:
    window = SlidingWindow(SPAN, BUCKETS)
    for at, ms, error in rows:
        window.add(at, ms, error=error)
    return window


def still_inside(rows: list[tuple[float, float, bool]], now: float) -> list[tuple[float, float, bool]]:
    newest = math.floor(now / WIDTH)
    return [row for row in rows if newest - BUCKETS < math.floor(row[0] / WIDTH) <= newest]


def exact_quantile(values: list[float], share: float) -> float:
    return sorted(values)[math.floor(share * (len(values) - 1))]


@given(events, st.floats(0, 120))
def test_counts_are_those_of_the_events_still_inside(rows: list[tuple[float, float, bool]], later: float) -> None:
    now = rows[-1][0] + later
    summary = filled(rows).summary(now)
    inside = still_inside(rows, now)
    assert summary.count == len(inside)
    assert summary.errors == sum(error for _, _, error in inside)


@given(events)
def test_percentiles_are_within_one_percent_of_the_exact_ones(rows: list[tuple[float, float, bool]]) -> None:
    now = rows[-1][0]
    summary = filled(rows).summary(now)
    times = [ms for _, ms, _ in still_inside(rows, now)]
    for found, share in ((summary.p50_ms, 0.5), (summary.p95_ms, 0.95), (summary.p99_ms, 0.99)):
        assert found == pytest.approx(exact_quantile(times, share), rel=RELATIVE_ACCURACY * 1.001)


@given(events, st.integers(1, 4))
def test_merging_windows_is_the_same_as_one_window_of_everything(
    rows: list[tuple[float, float, bool]], parts: int
) -> None:
    now = rows[-1][0]
    pieces = [filled(rows[i::parts]) for i in range(parts)]
    together, alone = merged(pieces, now), filled(rows).summary(now)
    assert (together.count, together.errors) == (alone.count, alone.errors)
    assert together.p95_ms == pytest.approx(alone.p95_ms)


@given(st.integers(1, 20), st.floats(0, 1000))
def test_a_steady_stream_shows_its_own_rate(per_second: int, start: float) -> None:
    window = SlidingWindow(SPAN, BUCKETS)
    step = 1.0 / per_second
    for i in range(150 * per_second):
        window.add(start + i * step, 1.0)
    assert window.summary(start + 150).rate_per_s == pytest.approx(per_second, rel=0.05)


def test_a_young_window_does_not_dilute_its_rate_over_time_it_has_not_seen() -> None:
    window = SlidingWindow(SPAN, BUCKETS)
    for i in range(100):
        window.add(1000.0 + i * 0.1, 1.0)
    assert window.summary(1010.0).rate_per_s == pytest.approx(10.0)


def test_an_outcome_older_than_the_window_is_dropped_and_a_late_one_counts_in_its_own_slice() -> None:
    window = SlidingWindow(SPAN, BUCKETS)
    window.add(100.0, 1.0)
    window.add(70.0, 1.0)
    window.add(10.0, 1.0)
    assert window.summary(100.0).count == 2
    assert window.summary(131.0).count == 1


def test_times_that_are_no_times_are_counted_but_not_measured() -> None:
    window = SlidingWindow()
    for strange in (None, float("nan"), -1.0):
        window.add(1.0, strange)
    assert window.summary(1.0) == WindowSummary(count=3, seconds=5.0)


def test_an_absurd_time_does_not_grow_the_sketch() -> None:
    window = SlidingWindow()
    window.add(1.0, 0.0)
    window.add(1.0, float("inf"))
    assert window.summary(1.0).p99_ms == 0.0
    assert window.summary(1.0).count == 2


def test_quality_and_cost_are_means_over_those_that_told() -> None:
    window = SlidingWindow()
    window.add(1.0, 1.0, quality=1.0, cost=0.5)
    window.add(1.0, 1.0, quality=0.0)
    window.add(1.0, 1.0)
    summary = window.summary(1.0)
    assert (summary.quality, summary.cost) == (0.5, 0.5)


def learned(count: int = 20, *, errors: int = 0) -> Baseline:
    baseline = Baseline()
    for i in range(count):
        assert baseline.observe(Interval(50, errors, 10.0 + i % 3)) == ()
    return baseline


def test_a_latency_far_above_its_own_past_is_an_anomaly_and_a_lower_one_is_not() -> None:
    (found,) = learned().observe(Interval(50, 0, 30.0))
    assert found.signal == "latency"
    assert found.usual == pytest.approx(11.0)
    assert learned().observe(Interval(50, 0, 1.0)) == ()


def test_a_very_steady_past_does_not_make_noise_an_anomaly() -> None:
    baseline = Baseline()
    for _ in range(20):
        assert baseline.observe(Interval(50, 0, 10.0)) == ()
    assert baseline.observe(Interval(50, 0, 12.0)) == ()


def test_errors_far_above_the_usual_share_are_an_anomaly() -> None:
    (found,) = learned(errors=1).observe(Interval(50, 10, 11.0))
    assert (found.signal, found.value) == ("errors", 0.2)


def test_an_agent_that_always_fails_is_no_news() -> None:
    assert learned(errors=50).observe(Interval(50, 50, 11.0)) == ()


def test_too_little_past_or_too_few_tasks_say_nothing() -> None:
    assert learned(7).observe(Interval(50, 50, 500.0)) == ()
    assert learned().observe(Interval(4, 4, 500.0)) == ()


def test_a_lasting_change_becomes_the_new_normal() -> None:
    baseline = learned(18)
    verdicts = [baseline.observe(Interval(50, 0, 40.0)) for _ in range(36)]
    assert verdicts[0]
    assert verdicts[-1] == ()


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100), st.none() | st.floats(0, 1e6)), max_size=60))
def test_no_sequence_of_intervals_breaks_the_judge(rows: list[tuple[int, int, float | None]]) -> None:
    baseline = Baseline()
    for count, errors, median_ms in rows:
        for found in baseline.observe(Interval(count, min(errors, count), median_ms)):
            assert found.z > 3.5
            assert found.value > found.usual
