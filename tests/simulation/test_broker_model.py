"""The model of the broker shows the facts that tests/integration/test_broker_facts.py finds in the real one."""

from __future__ import annotations

from random import Random

import pytest

from agent_engines.domain.errors import QueueFull
from agent_engines.testing.evidence import Evidence
from agent_engines.testing.simulation.broker_model import Arrived, ModelQueue, Pull
from agent_engines.testing.simulation.network import Network
from agent_engines.testing.simulation.process import Process
from agent_engines.testing.simulation.virtual_loop import VirtualLoop

LEASE = 5.0


class Bench:
    """A queue in a loop whose time is moved by hand."""

    def __init__(self, *, limit: int = 1_000_000, window: float = 120.0) -> None:
        self.loop = VirtualLoop()
        self.evidence = Evidence()
        self.queue = ModelQueue(Network(self.loop, Random(1)), self.evidence, "task", LEASE, window, limit)
        self.worker = Process("worker")

    def put(self, name: str) -> None:
        self.queue.put(name.encode(), (name,), name)

    def pull(self, limit: int = 10) -> list[Arrived]:
        got: list[Arrived] = []
        pull = Pull(self.worker, limit, got.extend)
        self.queue.pull(pull)
        self.queue.end_pull(pull)
        return got

    def wait(self, seconds: float) -> None:
        async def sleep() -> None:
            waiting = self.loop.create_future()
            self.loop.call_later(seconds, waiting.set_result, None)
            await waiting

        self.loop.run_until_complete(sleep())


def test_what_is_not_acknowledged_comes_again_and_stays_for_ever() -> None:
    bench = Bench()
    bench.put("poison")
    for count in range(1, 50):
        assert [one.count for one in bench.pull()] == [count]
        assert bench.pull() == []
        bench.wait(LEASE + 0.1)


def test_a_late_acknowledgement_of_a_superseded_delivery_counts_and_a_second_one_changes_nothing() -> None:
    bench = Bench()
    bench.put("a")
    [first] = bench.pull()
    bench.wait(LEASE + 0.1)
    [second] = bench.pull()
    bench.queue.ack(first.sequence)
    assert not bench.queue.held
    bench.queue.ack(second.sequence)
    bench.wait(LEASE + 0.1)
    assert bench.pull() == []


def test_extending_restarts_the_lease() -> None:
    bench = Bench()
    bench.put("a")
    [one] = bench.pull()
    bench.wait(LEASE - 1.0)
    bench.queue.extend(one.sequence)
    bench.wait(LEASE - 1.0)
    assert bench.pull() == []


def test_a_released_message_comes_again_after_its_delay() -> None:
    bench = Bench()
    bench.put("a")
    [one] = bench.pull()
    bench.queue.release(one.sequence, 2.0)
    assert bench.pull() == []
    bench.wait(2.1)
    assert [again.count for again in bench.pull()] == [2]


def test_a_duplicate_is_taken_even_by_a_full_queue_and_a_refused_publish_burns_no_id() -> None:
    bench = Bench(limit=1)
    bench.put("a")
    bench.put("a")
    assert len(bench.queue.held) == 1
    with pytest.raises(QueueFull):
        bench.put("b")
    bench.queue.ack(bench.pull()[0].sequence)
    bench.put("b")
    assert [one.raw for one in bench.pull()] == [b"b"]


def test_an_id_is_forgotten_after_the_window() -> None:
    bench = Bench(window=2.0)
    bench.put("a")
    bench.wait(2.1)
    bench.put("a")
    assert len(bench.queue.held) == 2


def test_an_election_repeats_a_delivery_count() -> None:
    bench = Bench()
    bench.put("a")
    assert [one.count for one in bench.pull()] == [1]
    bench.queue.elect()
    bench.wait(LEASE + 0.1)
    assert [one.count for one in bench.pull()] == [1]


def test_a_power_failure_undoes_the_last_second_and_says_so() -> None:
    bench = Bench()
    bench.put("old")
    bench.wait(5.0)
    [old] = bench.pull(1)
    bench.queue.ack(old.sequence)
    bench.put("new")
    bench.queue.lose_power(1.0)
    assert [one.raw for one in bench.pull()] == [b"old"]
    assert [fact.what for fact in bench.evidence.facts] == ["stored", "acked", "stored", "returned", "lost"]
