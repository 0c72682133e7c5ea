"""The pure parts of `engines bench`: percentiles, when tasks are due, sizes, and what is summed up."""

from __future__ import annotations

import math

from hypothesis import assume, given
from hypothesis import strategies as st

from agent_engines.domain.errors import NoEligibleAgent, QueueFull
from agent_engines.domain.percentiles import nearest_rank, percentile
from agent_engines.domain.tasks import TaskStatus
from agent_engines.testing.bench.plan import (
    MOST_OUTSTANDING,
    MOST_RATE,
    SMALLEST_PAYLOAD,
    Plan,
    Shape,
    due_after,
    due_within,
    fitting,
    payload,
    size_of,
)
from agent_engines.testing.bench.tally import (
    LOST,
    UNENDED,
    UNREACHABLE,
    WRONG,
    Tally,
    exit_code,
    milliseconds,
    reason_of,
    spent,
    summary,
)

seconds = st.floats(0.0, 1e4)
rates = st.floats(0.1, MOST_RATE)
values = st.lists(st.floats(0.0, 1e6), min_size=1, max_size=300)
shares = st.floats(0.01, 1.0)


@given(values, shares)
def test_a_percentile_occurred_and_the_share_is_not_above_it(found: list[float], share: float) -> None:
    ordered = sorted(found)
    told = nearest_rank(ordered, share)
    assert told in found
    assert sum(value <= told for value in found) >= share * len(found) - 1e-3
    assert sum(value < told for value in found) <= share * len(found) + 1e-3


@given(values, shares, shares)
def test_percentiles_do_not_fall(found: list[float], one: float, other: float) -> None:
    ordered = sorted(found)
    lower, higher = nearest_rank(ordered, min(one, other)), nearest_rank(ordered, max(one, other))
    assert lower is not None
    assert higher is not None
    assert lower <= higher


@given(st.integers(1, 2_000))
def test_a_tail_is_told_only_when_something_lies_beyond_it(count: int) -> None:
    found = range(count)
    assert (percentile(found, 0.99) is not None) == (count >= 100)
    assert (percentile(found, 0.95) is not None) == (count >= 20)
    assert percentile(found, 0.5) is not None
    assert percentile([], 0.5) is None


@given(st.floats(0.0, 50.0), st.floats(0.1, 500.0))
def test_exactly_those_tasks_are_due_whose_moment_is_within(within: float, rate: float) -> None:
    count = due_within(within, rate)
    assert all(due_after(number, rate) < within for number in (count - 1, count - 2) if number >= 0)
    assert due_after(count, rate) >= within


@given(st.integers(1, 5_000), st.integers(0, 5_000))
def test_a_task_that_is_due_at_the_very_end_is_not_within(rate: int, number: int) -> None:
    """Whatever floating point makes of the product of a quotient."""
    moment = due_after(number, rate)
    assert due_within(moment, rate) == number
    assert due_within(math.nextafter(moment, math.inf), rate) == number + 1


@given(rates, st.integers(0, 100_000))
def test_tasks_of_an_open_loop_are_due_evenly_from_the_beginning(rate: float, number: int) -> None:
    assert due_after(0, rate) == 0.0
    assert math.isclose(due_after(number + 1, rate) - due_after(number, rate), 1 / rate, rel_tol=1e-3, abs_tol=1e-9)


@given(st.integers(1, 20_000), st.floats(0.0, 100.0), st.floats(0.01, 60.0))
def test_a_burst_fits_its_time_and_never_more_than_may_be_outstanding(tasks: int, took: float, wanted: float) -> None:
    count = fitting(tasks, took, wanted)
    assert 1 <= count <= MOST_OUTSTANDING
    assert count == 1 or count * took / tasks <= wanted * 1.001


@given(st.integers(0, 10**12 - 1), st.integers(SMALLEST_PAYLOAD, 4096))
def test_a_payload_has_exactly_its_size(number: int, size: int) -> None:
    made = payload(number, size)
    assert size_of(made) == size
    assert payload((number + 1) % 10**12, size) != made


@given(st.floats(0.5, 3600), st.one_of(st.none(), rates))
def test_the_loads_share_the_time(whole: float, rate: float | None) -> None:
    plan = Plan(seconds=whole, rate=rate)
    assert (Shape.OPEN in plan.shapes) == (rate is not None)
    assert math.isclose(plan.share * len(plan.shapes), whole)


@given(st.lists(st.floats(0.0, 100.0), max_size=300), st.integers(0, 300))
def test_what_never_ended_makes_no_percentile_better(found: list[float], never: int) -> None:
    """Otherwise a system that stands still would be measured by what it did before."""
    with_them, without = milliseconds(found, never=never), milliseconds(found)
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        told, known = with_them[name], without[name]
        assert told is None or known is None or told >= known
        if never >= (1 - share) * (len(found) + never) + 1:
            assert told is None, "one of those that never ended"


ENDS = [TaskStatus.SUCCESS.value, TaskStatus.FAILED.value, WRONG, LOST, UNENDED]
events = st.lists(st.sampled_from(["refuse", "unanswered", "take", *ENDS]), max_size=60)


def counted(happened: list[str]) -> Tally:
    """A tally of tasks, each of which came to one of these."""
    tally = Tally(begun=0.0, ended=100.0)
    for number, event in enumerate(happened):
        tally.sent += 1
        if event == "refuse":
            tally.refused[reason_of(QueueFull("full"))] += 1
        elif event != "unanswered":
            tally.take(str(number), "committed", float(number + 1))
            if event != "take":
                tally.end(str(number), event, float(number + 2))
    return tally


@given(events)
def test_every_task_is_in_one_count(happened: list[str]) -> None:
    found = summary(counted(happened))
    failed = sum(found["failed"].values())
    assert found["sent"] == sum(found["refused"].values()) + found["done"] + failed + found["under_way"]
    assert found["accepted"] == sum(event not in ("refuse", "unanswered") for event in happened)
    assert found["refused"] == ({"429 queue full": happened.count("refuse")} if "refuse" in happened else {})
    assert found["done"] == happened.count(ENDS[0])
    assert (found["done_per_s"] is None) == (found["done"] == 0)


@given(events, st.integers(0, 100))
def test_what_was_due_and_not_sent_is_told(happened: list[str], more: int) -> None:
    tally = counted(happened)
    tally.due = len(happened) + more
    assert summary(tally)["unsent"] == more
    tally.due = 0
    assert summary(tally)["unsent"] == 0


@given(events)
def test_the_exit_code_is_0_only_when_all_that_was_accepted_ended_well(happened: list[str]) -> None:
    tally = counted(happened)
    bad = any(event in ENDS[1:] for event in happened)
    assume(happened)
    assert exit_code([Tally(begun=0.0), tally]) == int(bad or tally.accepted == 0)


def test_nobody_answering_is_another_exit_code() -> None:
    silent = Tally(begun=0.0, sent=3)
    silent.refused[UNREACHABLE] = 3
    assert exit_code([silent]) == 3
    assert exit_code([silent, counted([LOST])]) == 1, "what was lost weighs more"
    assert reason_of(NoEligibleAgent("nobody")) == "503 no eligible agent"


names = st.dictionaries(st.sampled_from("abcd"), st.floats(0.0, 100.0))


@given(names, names)
def test_cpu_is_told_of_processes_that_lived_through_it(before: dict[str, float], after: dict[str, float]) -> None:
    found = spent(before, after)
    assert found.keys() == {name for name in before if name in after and after[name] >= before[name]}
    assert all(value >= 0 for value in found.values())
