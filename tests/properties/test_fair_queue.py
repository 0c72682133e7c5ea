"""Tenants inside a priority: by weight, whatever the length of their queues; nobody is lost and nobody starves."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from agent_engines.domain.admission import BEHIND, MOST_TENANTS, Shares
from agent_engines.domain.priority_queue import PriorityQueue

arrivals = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 5)), max_size=60)
weights = st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0])


def served(queue: PriorityQueue[tuple[str, int]], most: int | None = None) -> list[tuple[str, int]]:
    out: list[tuple[str, int]] = []
    while (most is None or len(out) < most) and (item := queue.pop()) is not None:
        out.append(item)
    return out


@given(arrivals)
def test_everything_comes_out_once_and_each_tenants_level_in_order(items: list[tuple[str, int]]) -> None:
    queue: PriorityQueue[tuple[str, int, int]] = PriorityQueue(100)
    for number, (tenant, level) in enumerate(items):
        queue.put(number, (tenant, level, number), priority=level, now=float(number), tenant=tenant)
    out: list[tuple[str, int, int]] = queue.clear()
    assert sorted(out) == sorted((tenant, level, number) for number, (tenant, level) in enumerate(items))
    for pair in {(tenant, level) for tenant, level, _ in out}:
        numbers = [number for tenant, level, number in out if (tenant, level) == pair]
        assert numbers == sorted(numbers)


@given(arrivals)
def test_strict_priorities_stay_strict_between_tenants(items: list[tuple[str, int]]) -> None:
    queue: PriorityQueue[int] = PriorityQueue(100, ageing_seconds=None)
    for number, (tenant, level) in enumerate(items):
        queue.put(number, level, priority=level, now=0.0, tenant=tenant)
    out = queue.clear()
    assert out == sorted(out)


@given(st.integers(20, 60), st.integers(1, 15), st.integers(0, 30))
def test_a_flood_delays_a_latecomer_by_one_turn_each(flood: int, few: int, begun: int) -> None:
    queue: PriorityQueue[tuple[str, int]] = PriorityQueue(200)
    for number in range(flood):
        queue.put(("a", number), ("a", number), priority=3, now=0.0, tenant="a")
    served(queue, begun if begun < flood else flood - 1)
    for number in range(few):
        queue.put(("b", number), ("b", number), priority=3, now=1.0, tenant="b")
    tenants = [tenant for tenant, _ in served(queue)]
    last = max(place for place, tenant in enumerate(tenants) if tenant == "b")
    assert last <= 2 * few, tenants


@given(weights, weights)
def test_service_follows_the_weights_while_both_wait(one: float, two: float) -> None:
    queue: PriorityQueue[tuple[str, int]] = PriorityQueue(2000)
    for number in range(400):
        queue.put(("a", number), ("a", number), priority=3, now=0.0, tenant="a", weight=one)
        queue.put(("b", number), ("b", number), priority=3, now=0.0, tenant="b", weight=two)
    counts = Counter(tenant for tenant, _ in served(queue, 300))
    assert abs(counts["a"] / 300 - one / (one + two)) < 0.02


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=80))
def test_an_idle_tenant_saves_nothing_up(steps: list[tuple[str, bool]]) -> None:
    """However unevenly tenants came before, from now on they take turns."""
    queue: PriorityQueue[tuple[str, int]] = PriorityQueue(500)
    for number, (tenant, take) in enumerate(steps):
        queue.put(("old", number), (tenant, number), priority=3, now=0.0, tenant=tenant)
        if take:
            queue.pop()
    served(queue)
    for number in range(20):
        queue.put(("a", number), ("a", number), priority=3, now=0.0, tenant="a")
    for number in range(20):
        queue.put(("b", number), ("b", number), priority=3, now=0.0, tenant="b")
    counts = Counter(tenant for tenant, _ in served(queue, 20))
    assert counts["a"] == counts["b"] == 10


def test_nobody_waits_for_ever_beside_a_tenant_that_always_comes_back() -> None:
    queue: PriorityQueue[str] = PriorityQueue(50)
    queue.put("patient", "patient", priority=5, now=0.0, tenant="b")
    now = 0.0
    for number in range(200):
        now += 1.0
        queue.put(number, "busy", priority=1, now=now, tenant="a")
        if queue.pop() == "patient":
            assert now <= 5 * 10.0 + 2.0
            return
    raise AssertionError("the patient one never ran")


@given(st.lists(st.tuples(st.sampled_from("abc"), weights, st.floats(0, 5)), max_size=80))
def test_a_lone_or_leading_tenant_is_never_behind(steps: list[tuple[str, float, float]]) -> None:
    shares, now = Shares(), 0.0
    for tenant, weight, seconds in steps:
        now += seconds
        shares.note(tenant, weight, now)
    behind = [name for name, (_, weight) in list(shares.taken.items()) if shares.behind(name, weight, now)]
    assert len(behind) < max(1, len(shares.taken))
    if len(shares.taken) == 1:
        assert behind == []


def test_the_door_stays_open_for_who_had_little() -> None:
    shares = Shares()
    for number in range(1000):
        shares.note("flood", 1.0, number / 1000)
    assert shares.behind("quiet", 1.0, 1.0)
    assert not shares.behind("flood", 1.0, 1.0)
    let_in = 0
    while shares.behind("quiet", 1.0, 1.0):
        shares.note("quiet", 1.0, 1.0)
        let_in += 1
    assert abs(let_in / (1000 + let_in) - BEHIND / 2) < 0.02


def test_shares_remember_a_bounded_number_of_names() -> None:
    shares = Shares()
    for number in range(5 * MOST_TENANTS):
        shares.note(f"t{number}", 1.0, 0.0)
    assert len(shares.taken) <= MOST_TENANTS + 2
