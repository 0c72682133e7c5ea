"""Poison: who is buried, after how many deaths, and who runs beside whom."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent_engines.domain.poison import (
    ALONE_STARTS,
    HOLD_SECONDS,
    LANE_SECONDS,
    STARTS_BEFORE_BURIAL,
    UNNOTED_MOST,
    Company,
    Place,
    Starts,
    unnoted,
)

REPLICAS = st.text("abc", min_size=1, max_size=4)


def test_what_always_ends_its_process_is_buried_after_four_noted_starts_the_last_two_alone() -> None:
    starts, places = Starts(attempt=1), []
    while starts.place is not Place.BURIED:
        places.append(starts.place)
        starts = starts.started("r")
    assert places == [Place.SHARED, Place.SINGLE, Place.ALONE, Place.ALONE]
    assert len(places) == STARTS_BEFORE_BURIAL
    assert starts.reason.startswith("its process ended 4 times while it ran, 2 of them with nothing else running: r, r")


@given(st.lists(st.tuples(st.booleans(), REPLICAS), max_size=60))
def test_nobody_is_buried_who_was_not_started_alone_twice_without_an_end(story: list[tuple[bool, str]]) -> None:
    """Starts and orderly hand-backs in any order: burial needs two deaths alone, and a withdrawn start counts for nothing."""
    starts, alone, shared = Starts(attempt=1), 0, 0
    open_starts: list[Place] = []
    for begins, replica in story:
        if begins and starts.place is not Place.BURIED:
            open_starts.append(starts.place)
            alone += starts.place is Place.ALONE
            shared += starts.place is not Place.ALONE
            starts = starts.started(replica)
        elif open_starts and not begins and len(open_starts) <= 8:
            gone = open_starts.pop()
            alone -= gone is Place.ALONE
            shared -= gone is not Place.ALONE
            starts = starts.withdrawn()
        assert (starts.alone, starts.shared) == (alone, shared)
        assert (starts.place is Place.BURIED) == (alone >= ALONE_STARTS)


@given(st.integers(0, 2), st.integers(0, 2), st.floats(1, 9), st.floats(0, 9), st.integers(1, 5))
def test_guilt_survives_being_sent_again_but_not_a_report_or_a_redrive(
    shared: int, alone: int, buried: float, dispatched: float, attempt: int
) -> None:
    note = Starts(attempt=attempt, shared=shared, alone=alone)
    assert note.about(attempt, dispatched) == note, "sent again for want of news"
    assert note.about(attempt + 1, dispatched) == Starts(attempt=attempt + 1), "a report led to the next attempt"
    ended = Starts(attempt=attempt, shared=shared, alone=alone, buried=buried)
    assert ended.about(attempt, dispatched).place is (Place.BURIED if dispatched <= buried else Place.SHARED)


@given(st.integers(1, 10_000))
def test_without_notes_a_task_runs_often_and_not_for_ever(deliveries: int) -> None:
    place = unnoted(deliveries)
    assert (place is Place.BURIED) == (deliveries > UNNOTED_MOST)
    if deliveries < UNNOTED_MOST:
        order = [Place.SHARED, Place.SINGLE, Place.ALONE, Place.LATER, Place.BURIED]
        assert order.index(place) <= order.index(unnoted(deliveries + 1))


class Doors(RuleBasedStateMachine):
    """Ordinary tasks and suspects come and go as the company lets them, while time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.company = Company()
        self.now = 0.0
        self.others = 0
        self.suspects: list[Place] = []
        self.shut_for = 0.0
        self.open_for = 0.0

    @rule(seconds=st.floats(0.0, 20.0), waits=st.booleans())
    def time_passes(self, seconds: float, waits: bool) -> None:
        if Place.ALONE not in self.suspects:
            if self.company.shut:
                self.shut_for += seconds
            else:
                self.open_for += seconds
        self.now += seconds
        if waits:
            self.company.wait_alone(self.now)
        else:
            self.company.nobody_waits(self.now)

    @precondition(lambda self: not self.company.shut)
    @rule()
    def another_begins(self) -> None:
        self.others += 1

    @precondition(lambda self: self.others)
    @rule()
    def another_ends(self) -> None:
        self.others -= 1

    @rule(place=st.sampled_from([Place.SHARED, Place.SINGLE, Place.ALONE]))
    def a_suspect_comes(self, place: Place) -> None:
        if self.company.may_begin(place, self.others + len(self.suspects), self.now):
            self.company.begin(place, self.now)
            self.suspects.append(place)

    @precondition(lambda self: self.suspects)
    @rule(data=st.data())
    def a_suspect_ends(self, data: st.DataObject) -> None:
        place = self.suspects.pop(data.draw(st.integers(0, len(self.suspects) - 1)))
        self.company.end(place, self.now)

    @invariant()
    def who_runs_alone_runs_alone(self) -> None:
        if Place.ALONE in self.suspects:
            assert len(self.suspects) == 1
            assert self.others == 0
            assert self.company.shut


TestDoors = Doors.TestCase
TestDoors.settings = settings(max_examples=40)


def test_one_more_single_is_let_in_when_the_last_one_did_no_harm_for_a_while() -> None:
    company = Company()
    assert company.may_begin(Place.SINGLE, 3, 0.0)
    company.begin(Place.SINGLE, 0.0)
    assert not company.may_begin(Place.SINGLE, 4, LANE_SECONDS / 2)
    assert company.may_begin(Place.SHARED, 4, LANE_SECONDS / 2)
    assert company.may_begin(Place.SINGLE, 4, LANE_SECONDS)
    company.end(Place.SINGLE, 1.0)
    assert company.may_begin(Place.SINGLE, 3, 1.0)


@pytest.mark.parametrize("longest", [0.1, 7.0, 300.0])
def test_solitude_comes_for_any_neighbours_and_costs_them_at_most_half_of_the_time(longest: float) -> None:
    """Neighbours of the longest kind begin whenever they may; the doors are never shut longer than they were open, but for one hold."""
    company, now, step = Company(), 0.0, max(0.05, longest / 500)
    ends: list[float] = [longest]
    shut, opened, last, was_shut = 0.0, 0.0, 0.0, False
    while True:
        ends = [end for end in ends if end > now]
        company.wait_alone(now)
        if company.may_begin(Place.ALONE, len(ends), now):
            break
        if company.shut:
            shut, last = shut + step, (last if was_shut else 0.0) + step
        else:
            opened += step
            ends.append(now + longest)
        was_shut = company.shut
        assert shut - last <= opened + 2 * step
        now += step
        assert now < 20 * longest + 10 * HOLD_SECONDS, "waited without bound"
