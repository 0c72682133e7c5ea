"""The circuit breaker: opens for a reason, stays open for its time, probes carefully."""

from __future__ import annotations

import random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from machine_settings import machine

from agent_engines.domain.breaker import Breaker, BreakerRule, BreakerState, Permit

RULE = BreakerRule(
    threshold=3, error_share=0.5, window_seconds=10.0, min_calls=6, open_seconds=20.0, jitter=0.5, probes=2
)


def breaker(**changes: float) -> Breaker:
    values = {name: getattr(RULE, name) for name in RULE.__struct_fields__} | changes
    return Breaker(BreakerRule(**values), random.Random(7))


def fail(tried: Breaker, now: float, times: int = 1) -> None:
    for _ in range(times):
        permit = tried.permit(now)
        assert permit is not None
        tried.failed(permit, now)


class BreakerKeepsItsPromises(RuleBasedStateMachine):
    """Calls come, go, fail and are forgotten in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = breaker()
        self.out: list[Permit] = []
        self.opened_at: float | None = None

    def seen(self) -> BreakerState:
        return self.breaker.state(self.now)

    @rule(seconds=st.floats(0, 8))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        expected = self.breaker.allows(self.now)
        before = self.seen()
        permit = self.breaker.permit(self.now)
        assert (permit is not None) == expected
        if before is BreakerState.OPEN:
            assert permit is None
        if permit is not None:
            assert permit.probe == (before is BreakerState.HALF_OPEN)
            self.out.append(permit)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), kind=st.sampled_from(["succeeded", "failed", "unused"]))
    def bring_back(self, data: st.DataObject, kind: str) -> None:
        permit = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        before = self.seen()
        if kind == "unused":
            self.breaker.unused(permit)
            assert self.seen() is before
        elif kind == "succeeded":
            self.breaker.succeeded(permit, self.now)
            assert self.seen() in (before, BreakerState.CLOSED)
        else:
            self.breaker.failed(permit, self.now)
            if self.seen() is BreakerState.OPEN and before is not BreakerState.OPEN:
                self.opened_at = self.now

    @invariant()
    def open_lasts_its_time(self) -> None:
        if self.opened_at is not None and self.now < self.opened_at + RULE.open_seconds:
            assert self.seen() is BreakerState.OPEN
        if self.seen() is BreakerState.OPEN:
            assert self.breaker.open_until - self.now <= RULE.open_seconds * (1 + RULE.jitter)

    @invariant()
    def never_more_probes_than_allowed(self) -> None:
        probes = [permit for permit in self.out if permit.probe and permit.period == self.breaker._period]
        assert len(probes) <= RULE.probes


TestBreakerKeepsItsPromises = BreakerKeepsItsPromises.TestCase
TestBreakerKeepsItsPromises.settings = machine(steps=50)


def test_failures_in_a_row_open_it_and_a_success_between_starts_the_count_again() -> None:
    tried = breaker(min_calls=1000)
    fail(tried, 0.0, 2)
    permit = tried.permit(0.0)
    assert permit is not None
    tried.succeeded(permit, 0.0)
    fail(tried, 0.0, 2)
    assert tried.state(0.0) is BreakerState.CLOSED
    fail(tried, 0.0)
    assert tried.state(0.0) is BreakerState.OPEN


def test_half_of_the_window_failing_opens_it_although_never_in_a_row() -> None:
    tried = breaker(threshold=1000)
    for _ in range(3):
        permit = tried.permit(1.0)
        assert permit is not None
        tried.succeeded(permit, 1.0)
    fail(tried, 1.0, 2)
    assert tried.state(1.0) is BreakerState.CLOSED
    fail(tried, 1.0)
    assert tried.state(1.0) is BreakerState.OPEN


def test_failures_that_left_the_window_do_not_count() -> None:
    tried = breaker(threshold=1000)
    fail(tried, 0.0, 5)
    fail(tried, 10.5)
    assert tried.state(10.5) is BreakerState.CLOSED


def test_the_open_time_is_stretched_by_the_given_chance() -> None:
    tried = breaker()
    fail(tried, 0.0, 3)
    assert tried.open_until == pytest.approx(20.0 * (1 + 0.5 * random.Random(7).random()))


def half_open() -> tuple[Breaker, float]:
    tried = breaker()
    fail(tried, 0.0, 3)
    return tried, tried.open_until


def test_exactly_the_allowed_probes_are_given_out_and_all_must_succeed() -> None:
    tried, now = half_open()
    first, second, third = (tried.permit(now) for _ in range(3))
    assert first is not None
    assert second is not None
    assert third is None
    tried.succeeded(first, now)
    assert tried.state(now) is BreakerState.HALF_OPEN
    assert tried.permit(now) is None
    tried.succeeded(second, now)
    assert tried.state(now) is BreakerState.CLOSED


def test_one_failing_probe_opens_it_again() -> None:
    tried, now = half_open()
    fail(tried, now)
    assert tried.state(now) is BreakerState.OPEN
    assert tried.open_until >= now + 20.0


def test_an_unused_probe_is_given_out_again() -> None:
    tried, now = half_open()
    permits = [tried.permit(now) for _ in range(2)]
    assert permits[0] is not None
    tried.unused(permits[0])
    assert tried.permit(now) is not None
    assert tried.permit(now) is None


def test_probes_that_never_come_back_do_not_lock_it_for_ever() -> None:
    tried, now = half_open()
    tried.permit(now)
    tried.permit(now)
    assert tried.permit(now + 19.9) is None
    assert tried.permit(now + 20.0) is not None


def test_a_call_from_before_the_opening_says_nothing_about_the_probing() -> None:
    tried = breaker()
    slow = tried.permit(0.0)
    assert slow is not None
    fail(tried, 0.0, 3)
    now = tried.open_until
    probe = tried.permit(now)
    tried.succeeded(slow, now)
    tried.failed(slow, now)
    assert probe is not None
    assert tried.state(now) is BreakerState.HALF_OPEN


def test_the_numbers_of_the_states_are_those_of_the_metric() -> None:
    assert [int(state) for state in (BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN)] == [0, 1, 2]


def test_another_replicas_opening_is_taken_over_as_it_is() -> None:
    tried = breaker()
    tried.open(5.0, until=9.0)
    assert tried.permit(8.9) is None
    assert tried.permit(9.0) is not None


def test_failures_within_the_window_count_together_and_with_the_oldest_slice_they_go() -> None:
    tried = breaker(threshold=1000)
    fail(tried, 0.0, 3)
    fail(tried, 9.9, 2)
    assert tried.state(9.9) is BreakerState.CLOSED
    fail(tried, 9.9)
    assert tried.state(9.9) is BreakerState.OPEN
    tried = breaker(threshold=1000)
    fail(tried, 0.0, 3)
    fail(tried, 10.0, 3)
    assert tried.state(10.0) is BreakerState.CLOSED


def test_it_may_be_asked_again_at_the_very_moment_its_time_is_over() -> None:
    tried, until = half_open()
    assert tried.state(until - 0.001) is BreakerState.OPEN
    assert tried.state(until) is BreakerState.HALF_OPEN
    assert tried.allows(until)
    assert tried.permit(until) is not None


def test_the_cause_says_how_many_failures_of_what() -> None:
    tried = breaker()
    assert tried.cause == ""
    for _ in range(3):
        permit = tried.permit(0.0)
        assert permit is not None
        tried.failed(permit, 0.0, "Timeout")
    assert tried.cause == "3 failures of Timeout"
    probe = tried.permit(tried.open_until)
    assert probe is not None
    tried.failed(probe, tried.open_until)
    assert tried.cause == "a trial failed"
    tried.close()
    assert tried.cause == ""


def test_closed_again_it_counts_from_nothing_and_old_calls_say_nothing() -> None:
    tried = breaker(min_calls=1000)
    slow = [tried.permit(0.0) for _ in range(6)]
    fail(tried, 0.0, 2)
    tried.close()
    for permit in slow:
        assert permit is not None
        tried.failed(permit, 0.0)
    fail(tried, 0.0, 2)
    assert tried.state(0.0) is BreakerState.CLOSED
    fail(tried, 0.0)
    assert tried.state(0.0) is BreakerState.OPEN


def test_exactly_so_many_calls_are_needed_before_their_share_counts() -> None:
    tried = breaker(threshold=1000, error_share=1.0, min_calls=4)
    for at in (0.0, 0.0, 2.0):
        fail(tried, at)
        assert tried.state(at) is BreakerState.CLOSED
    fail(tried, 2.0)
    assert tried.state(2.0) is BreakerState.OPEN
    tried = breaker(threshold=1000, error_share=1.0, min_calls=4)
    permit = tried.permit(0.0)
    assert permit is not None
    tried.succeeded(permit, 0.0)
    fail(tried, 0.0, 20)
    assert tried.state(0.0) is BreakerState.CLOSED


@pytest.mark.parametrize("failures", [0, 2, 3])
def test_a_success_without_a_permit_counts_while_the_breaker_is_closed_and_only_then(failures: int) -> None:
    plain, tried = breaker(), breaker()
    for one in (plain, tried):
        fail(one, 1.0, failures)
    permit = plain.permit(1.0)
    assert tried.worked(1.0) is (permit is not None)
    if permit is not None:
        plain.succeeded(permit, 1.0)
    for one in (plain, tried):
        if permit is not None:
            fail(one, 1.0, 2)
        assert one.state(1.0) is (BreakerState.CLOSED if failures < 3 else BreakerState.OPEN)
