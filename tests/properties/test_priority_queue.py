"""The priority queue against a sorted list: bounded, most urgent first, first come first served, ageing."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from machine_settings import machine

from agent_engines.domain.errors import Conflict, QueueFull
from agent_engines.domain.priority_queue import PriorityQueue

AGEING = 10.0
CAPACITY = 8


class QueueAgainstSortedList(RuleBasedStateMachine):
    """Every step is also done to a plain list that is sorted by the documented rank."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: PriorityQueue[int] = PriorityQueue(CAPACITY, ageing_seconds=AGEING)
        self.model: list[tuple[float, int]] = []
        self.now = 0.0
        self.number = 0

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(priority=st.integers(1, 5))
    def put(self, priority: int) -> None:
        self.number += 1
        if len(self.model) == CAPACITY:
            with pytest.raises(QueueFull):
                self.queue.put(self.number, self.number, priority=priority, now=self.now)
            return
        self.queue.put(self.number, self.number, priority=priority, now=self.now)
        self.model.append((self.now + priority * AGEING, self.number))

    @rule()
    def pop(self) -> None:
        self.model.sort()
        expected = self.model.pop(0)[1] if self.model else None
        assert self.queue.pop() == expected

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(self.model))
        self.model.remove(chosen)
        assert self.queue.remove(chosen[1]) == chosen[1]
        assert self.queue.remove(chosen[1]) is None

    @invariant()
    def same_size(self) -> None:
        assert len(self.queue) == len(self.model)
        assert self.queue.full == (len(self.model) == CAPACITY)
        assert sorted(self.queue) == sorted(number for _, number in self.model)


TestQueueAgainstSortedList = QueueAgainstSortedList.TestCase
TestQueueAgainstSortedList.settings = machine(steps=50)


def test_a_full_queue_refuses_instead_of_dropping() -> None:
    queue: PriorityQueue[str] = PriorityQueue(1)
    queue.put("a", "first", priority=5, now=0.0)
    with pytest.raises(QueueFull):
        queue.put("b", "second", priority=1, now=0.0)
    assert queue.pop() == "first"


def test_the_same_key_is_refused_while_it_waits_and_welcome_afterwards() -> None:
    queue: PriorityQueue[str] = PriorityQueue(5)
    queue.put("a", "first", priority=3, now=0.0)
    with pytest.raises(Conflict):
        queue.put("a", "again", priority=3, now=0.0)
    queue.remove("a")
    queue.put("a", "later", priority=3, now=0.0)
    assert queue.clear() == ["later"]


def test_level_five_overtakes_level_one_that_came_forty_seconds_later() -> None:
    queue: PriorityQueue[str] = PriorityQueue(5, ageing_seconds=10.0)
    queue.put("old", "old", priority=5, now=0.0)
    queue.put("new", "new", priority=1, now=40.1)
    assert queue.clear() == ["old", "new"]


def test_level_one_goes_first_when_it_came_less_than_forty_seconds_later() -> None:
    queue: PriorityQueue[str] = PriorityQueue(5, ageing_seconds=10.0)
    queue.put("old", "old", priority=5, now=0.0)
    queue.put("new", "new", priority=1, now=39.9)
    assert queue.clear() == ["new", "old"]


def test_a_level_out_of_range_is_the_nearest_one() -> None:
    queue: PriorityQueue[str] = PriorityQueue(5, ageing_seconds=10.0)
    queue.put("far", "far", priority=99, now=0.0)
    queue.put("five", "five", priority=5, now=0.0)
    queue.put("near", "near", priority=-7, now=0.0)
    queue.put("one", "one", priority=1, now=0.0)
    assert queue.clear() == ["near", "one", "far", "five"]


def test_of_two_with_the_same_rank_the_first_goes_first_whatever_their_keys() -> None:
    queue: PriorityQueue[str] = PriorityQueue(5)
    for key in ("b", "c", "a"):
        queue.put(key, key, priority=3, now=1.0)
    assert queue.clear() == ["b", "c", "a"]


def test_an_item_that_was_removed_and_came_again_waits_at_its_new_place() -> None:
    queue: PriorityQueue[str] = PriorityQueue(5, ageing_seconds=10.0)
    queue.put("a", "old", priority=1, now=0.0)
    queue.put("b", "b", priority=3, now=0.0)
    queue.remove("a")
    queue.put("a", "new", priority=5, now=0.0)
    assert queue.clear() == ["b", "new"]


@pytest.mark.parametrize(("capacity", "ageing"), [(0, 10.0), (-1, 10.0), (1, 0.0), (1, -1.0), (1, float("nan"))])
def test_a_queue_that_could_not_work_is_refused(capacity: int, ageing: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        PriorityQueue(capacity, ageing_seconds=ageing)


def test_it_tells_what_it_holds() -> None:
    queue: PriorityQueue[str] = PriorityQueue(2)
    assert queue.capacity == 2
    assert PriorityQueue[str](2, ageing_seconds=0.5).capacity == 2
    assert "a" not in queue
    queue.put("a", "first", priority=3, now=0.0)
    assert "a" in queue
    assert "b" not in queue
    assert not queue.full
    assert queue.remove("b") is None
    assert queue.remove("a") == "first"
    assert queue.pop() is None


def test_without_ageing_level_one_always_goes_first() -> None:
    queue: PriorityQueue[str] = PriorityQueue(5, ageing_seconds=None)
    queue.put("old", "old", priority=5, now=0.0)
    queue.put("new", "new", priority=1, now=1e9)
    assert queue.clear() == ["new", "old"]


def test_a_clock_that_steps_back_keeps_first_come_first_served() -> None:
    queue: PriorityQueue[str] = PriorityQueue(5)
    queue.put("a", "a", priority=3, now=100.0)
    queue.put("b", "b", priority=3, now=1.0)
    assert queue.clear() == ["a", "b"]


def test_many_removals_leave_no_memory_behind() -> None:
    queue: PriorityQueue[int] = PriorityQueue(2)
    queue.put("stays", -1, priority=5, now=0.0)
    for number in range(10_000):
        queue.put(number, number, priority=1, now=0.0)
        queue.remove(number)
    assert sum(len(level) for level in queue._levels) < 100
    assert queue.clear() == [-1]
