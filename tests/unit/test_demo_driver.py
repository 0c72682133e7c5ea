"""The driver and the counting, with a client that keeps everything in memory."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agent_engines.demo.driver import LARGEST_BURST, DriveOptions, bursts, drive, listed
from agent_engines.demo.results import References, Run, percentiles, summarize
from agent_engines.demo.table import end_table
from agent_engines.domain.errors import QueueFull
from agent_engines.domain.tasks import TaskRequest, TaskStatus, TaskView


def view(number: int, agent: str = "svm", **changes: Any) -> TaskView:
    given: dict[str, Any] = {
        "status": TaskStatus.SUCCESS,
        "submitted_at": 100.0,
        "completed_at": 100.0 + number / 1000,
        "execution_time_ms": float(number),
        "quality": 1.0,
        "cost": 0.5,
        **changes,
    }
    return TaskView(
        task_id=f"t{number}", request_id="r", task_type="read", selected_agent=agent, priority=3, attempts=1, **given
    )


class Handle:
    def __init__(self, task_id: str, found: TaskView | None) -> None:
        self.task_id = task_id
        self._found = found

    async def outcome(self, timeout: float | None = None) -> TaskView:
        if self._found is None:
            raise TimeoutError
        return self._found


class Recorder:
    """Takes everything but `refuse`; `silent` ones never get an outcome; lists in pages of two."""

    def __init__(self, *, refuse: int = 0, silent: int = 0) -> None:
        self.bursts: list[int] = []
        self.known: list[TaskView] = []
        self._refuse = refuse
        self._silent = silent

    async def submit_many(self, requests: Any, *, return_exceptions: bool = False) -> list[Any]:
        assert return_exceptions
        self.bursts.append(len(requests))
        return [self._take() for _ in requests]

    def _take(self) -> Any:
        if self._refuse:
            self._refuse -= 1
            return QueueFull("the queue of svm is full")
        number = len(self.known) + 1
        if self._silent:
            self._silent -= 1
            self.known.append(view(number, status=TaskStatus.RUNNING, completed_at=None))
            return Handle(f"t{number}", None)
        self.known.append(view(number))
        return Handle(f"t{number}", self.known[-1])

    async def tasks(self, **filters: Any) -> dict[str, Any]:
        at = int(filters.get("cursor", 0))
        items = [{"task_id": one.task_id, "status": one.status.value} for one in self.known[at : at + 2]]
        return {"items": items, "next_cursor": str(at + 2) if at + 2 < len(self.known) else None}


async def run(client: Recorder, count: int, **changes: Any) -> Run:
    requests = [TaskRequest(task_type="read") for _ in range(count)]
    return await drive(client, requests, count_terminal=listed(client), options=DriveOptions(rate=0, **changes))


async def test_everything_is_sent_and_every_outcome_comes_back() -> None:
    client = Recorder()
    found = await run(client, 300)
    assert (found.submitted, found.accepted, found.terminal, len(found.views)) == (300, 300, 300, 300)
    assert sum(client.bursts) == 300
    assert len(client.bursts) > 5
    assert summarize(found)["lost"] == 0


async def test_lost_is_counted_in_the_ledger_and_not_in_what_came_back() -> None:
    client = Recorder()
    found = await run(client, 50)
    client.known[7] = view(8, status=TaskStatus.RUNNING)
    recount = await listed(client)([one.task_id for one in found.views])
    assert recount == 49
    lost = summarize(Run(submitted=50, accepted=50, terminal=recount, seconds=1.0, views=found.views))
    assert lost["lost"] == 1


async def test_a_refused_task_is_refused_and_not_lost_and_a_silent_one_is_lost() -> None:
    found = summarize(await run(Recorder(refuse=3, silent=2), 50))
    assert (found["tasks"], found["refused"], found["terminal"], found["lost"]) == (50, 3, 45, 2)
    assert found["refusals"] == ["the queue of svm is full"]


async def test_progress_goes_to_the_end_even_when_tasks_are_refused() -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    client = Recorder(refuse=3, silent=1)
    requests = [TaskRequest(task_type="read")] * 40
    await drive(client, requests, count_terminal=listed(client), options=DriveOptions(rate=0), console=screen)
    assert "40/40" in screen.file.getvalue()  # type: ignore[attr-defined]


@given(st.integers(0, 3000), st.integers(0, 1000))
def test_bursts_add_up_and_repeat_for_a_seed(count: int, seed: int) -> None:
    made = list(bursts(count, DriveOptions(seed=seed)))
    assert sum(size for size, _ in made) == count
    assert all(1 <= size <= LARGEST_BURST and pause >= 0 for size, pause in made)
    assert made == list(bursts(count, DriveOptions(seed=seed)))


def test_bursts_come_at_the_wanted_rate() -> None:
    made = list(bursts(100_000, DriveOptions(rate=200)))
    assert sum(pause for _, pause in made) == pytest.approx(500, rel=0.1)


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_percentiles_are_values_that_occurred_and_rise(values: list[float]) -> None:
    found = percentiles(values)
    assert set(found.values()) <= set(values)
    assert found["p50"] <= found["p95"] <= found["p99"] <= max(values)  # type: ignore[operator]


def test_the_summary_counts_each_agent() -> None:
    views = (*(view(n) for n in range(1, 76)), *(view(n, "cheap", quality=0.0, cost=0.1) for n in range(76, 101)))
    known = References.of({"svm": [1, 1, 0], "cheap": [0, 1, 1]}, {"svm": [2, 2, 2], "cheap": [1, 1, 1]})
    found = summarize(Run(submitted=100, accepted=100, terminal=100, seconds=2.0, views=views), known)
    cheap, svm = found["agents"]
    assert (cheap["agent"], cheap["tasks"], cheap["share"], cheap["quality"]) == ("cheap", 25, 0.25, 0.0)
    assert (svm["work_ms"]["p50"], svm["work_ms"]["p95"], svm["work_ms"]["p99"]) == (38, 72, 75)
    assert svm["latency_ms"]["p50"] == pytest.approx(38)
    assert (found["quality"], found["throughput_per_s"]) == (0.75, 50.0)
    assert found["total_cost"] == pytest.approx(75 * 0.5 + 25 * 0.1)
    assert found["references"]["best_single"] == {"name": "cheap", "quality": pytest.approx(2 / 3), "cost": 1.0}
    assert found["references"]["oracle"] == {"name": "oracle", "quality": 1.0, "cost": pytest.approx(4 / 3)}


def test_a_task_nobody_judged_counts_by_its_success() -> None:
    views = (
        view(1, quality=None),
        view(2, quality=None, status=TaskStatus.DEAD_LETTER),
        view(3, status=TaskStatus.CANCELLED),
    )
    assert summarize(Run(submitted=3, accepted=3, terminal=3, seconds=1.0, views=views))["quality"] == 0.5


def shown(summary: dict[str, Any]) -> str:
    screen = Console(file=io.StringIO(), width=110)
    screen.print(end_table(summary))
    return screen.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_shows_agents_totals_and_what_is_lost() -> None:
    views = tuple(view(n) for n in range(1, 101))
    known = References.of({"svm": [1.0], "cheap": [0.0]}, {"svm": [2.0], "cheap": [1.0]})
    text = shown(summarize(Run(submitted=101, accepted=101, terminal=100, seconds=2.0, views=views), known))
    for expected in ("svm", "100.0 %", "50 ms", "95 ms", "99 ms", "50 tasks/s", "lost        1", "best single agent"):
        assert expected in text


def test_nothing_at_all_still_makes_a_table() -> None:
    text = shown(summarize(Run(submitted=0, accepted=0, terminal=0, seconds=0.0, views=())))
    assert "lost        0" in text
