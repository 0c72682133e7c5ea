"""The loads of `engines bench`, put on a system of our own making that refuses, stalls, loses and lies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent_engines.domain.errors import AgentEnginesError, InvalidRequest, NotFound, QueueFull
from agent_engines.domain.messages import Acceptance
from agent_engines.domain.tasks import TaskRequest, TaskStatus, TaskView
from agent_engines.testing.bench.durability import filesystem_of
from agent_engines.testing.bench.load import Load
from agent_engines.testing.bench.measurement import OURSELVES, Measurement
from agent_engines.testing.bench.plan import Plan, Shape
from agent_engines.testing.bench.tally import LOST, UNENDED, WRONG, Tally, summary
from agent_engines.testing.bench.target import require_performer


def view(task_id: str, status: TaskStatus, result: Any = None) -> TaskView:
    return TaskView(
        task_id=task_id,
        request_id=task_id,
        task_type="echo",
        status=status,
        selected_agent="a",
        priority=3,
        attempts=1,
        submitted_at=0.0,
        result=result,
    )


class Handle:
    def __init__(self, task_id: str, outcome: Callable[[str], Awaitable[TaskView]]) -> None:
        self.task_id = task_id
        self.acceptance = Acceptance(
            task_id=task_id,
            request_id=task_id,
            status=TaskStatus.QUEUED,
            selected_agent="a",
            confidence=1.0,
            propensity=1.0,
            strategy="",
            reasoning="",
            policy_version="",
        )
        self._outcome = outcome

    async def outcome(self, timeout: float | None = None) -> TaskView:
        async with asyncio.timeout(timeout):
            return await self._outcome(self.task_id)


class Obedient:
    """Answers after `pause` seconds; notes how many were outstanding at most."""

    def __init__(self, pause: float = 0.001) -> None:
        self.pause = pause
        self.payloads: dict[str, Any] = {}
        self.outstanding = 0
        self.most = 0

    async def submit_request(self, request: TaskRequest) -> Handle:
        task_id = f"t{len(self.payloads)}"
        self.payloads[task_id] = request.payload
        self.outstanding += 1
        self.most = max(self.most, self.outstanding)
        return Handle(task_id, self.ended)

    async def submit_many(self, requests: Sequence[TaskRequest], *, return_exceptions: bool = False) -> list[Any]:
        assert return_exceptions
        return [await self._answer(request) for request in requests]

    async def ended(self, task_id: str) -> TaskView:
        await asyncio.sleep(self.pause)
        self.outstanding -= 1
        return view(task_id, TaskStatus.SUCCESS, self.payloads[task_id])

    async def task(self, task_id: str) -> TaskView:
        return view(task_id, TaskStatus.RUNNING)

    async def _answer(self, request: TaskRequest) -> Any:
        try:
            return await self.submit_request(request)
        except AgentEnginesError as error:
            return error


class Refusing(Obedient):
    """Its queue is full; it wants to be left alone for a minute."""

    async def submit_request(self, request: TaskRequest) -> Handle:
        raise QueueFull("full", retry_after=60)


class Silent(Obedient):
    """Accepts, and nothing ever ends. It does not know what it was given first."""

    async def ended(self, task_id: str) -> TaskView:
        await asyncio.Event().wait()
        raise AssertionError

    async def task(self, task_id: str) -> TaskView:
        if task_id == "t0":
            raise NotFound("no such task")
        return view(task_id, TaskStatus.SUCCESS if task_id == "t1" else TaskStatus.RUNNING)


def request(number: int) -> TaskRequest:
    return TaskRequest(task_type="echo", payload={"n": number})


def load(system: Obedient, **options: Any) -> Load:
    return Load(system, request, echoes=True, **options)


def tally() -> Tally:
    return Tally(begun=time.perf_counter())


async def test_a_crowd_keeps_its_number_outstanding_and_no_more() -> None:
    system, found = Obedient(), tally()
    await load(system).closed(found, outstanding=5, seconds=0.1)
    assert system.most == 5
    assert found.sent == found.accepted == found.done == len(found.end_seconds) >= 5
    assert found.bad == 0
    assert min(found.end_seconds) >= 0.0009
    assert found.durability == {"committed": found.accepted}


async def test_refusals_are_counted_by_reason_and_not_hammered() -> None:
    """A refused caller waits, and still ends when the time is over."""
    found = tally()
    await load(Refusing()).closed(found, outstanding=4, seconds=0.2)
    assert found.refused == {"429 queue full": 4}
    assert found.accepted == 0
    assert time.perf_counter() - found.begun < 1.0


async def test_a_burst_is_handed_in_at_once_and_every_end_is_seen() -> None:
    system, found = Obedient(), tally()
    await load(system).burst(found, tasks=1_234, seconds=30.0)
    assert found.sent == found.done == 1_234
    assert len(set(map(str, system.payloads.values()))) == 1_234
    refused = tally()
    await load(Refusing()).burst(refused, tasks=700, seconds=30.0)
    assert refused.refused == {"429 queue full": 700}


async def test_a_burst_leaves_no_more_outstanding_than_it_may_and_ends_with_its_time() -> None:
    system, found = Obedient(0.0005), tally()
    await load(system, most=1_000).burst(found, tasks=1_000_000, seconds=0.3)
    assert system.most <= 1_000
    assert 0 < found.sent < 100_000
    assert found.sent == found.done


async def test_an_open_loop_counts_the_wait_of_tasks_it_was_late_with() -> None:
    """The whole loop is stopped once; every task that was due meanwhile waited, and the figures say so."""

    class Stalling(Obedient):
        async def submit_request(self, request: TaskRequest) -> Handle:
            if request.payload == {"n": 10}:
                time.sleep(0.2)
            return await super().submit_request(request)

    found = tally()
    await load(Stalling()).open_loop(found, rate=200, seconds=0.3)
    assert found.sent == found.done == 60
    assert sum(late > 0.1 for late in found.end_seconds) >= 15
    assert sum(late > 0.1 for late in found.accept_seconds) >= 15


async def test_an_open_loop_stops_sending_at_its_limit_and_tells_what_it_did_not_send() -> None:
    system, found = Silent(), tally()
    await load(system, most=7, patience=0.3).open_loop(found, rate=1_000, seconds=0.1)
    found.due = 100
    assert system.most == 7
    assert found.sent < 100
    figures = summary(found)
    assert figures["unsent"] == 100 - found.sent
    assert figures["latency_ms"]["p50"] is None, "most of them never ended"


async def test_tasks_of_a_burst_that_have_no_end_keep_their_place_among_the_outstanding() -> None:
    system, found = Silent(), tally()
    await load(system, most=1_000, patience=0.05).burst(found, tasks=5_000, seconds=0.5)
    assert found.sent == system.most == 1_000


async def test_nothing_is_sent_after_the_limit_even_if_there_is_room() -> None:
    """The loop stands still until the time is over: what was due meanwhile is told, not made up for."""

    class Stalling(Obedient):
        async def submit_request(self, request: TaskRequest) -> Handle:
            if request.payload == {"n": 10}:
                time.sleep(0.8)
            return await super().submit_request(request)

    found = tally()
    await load(Stalling()).open_loop(found, rate=200, seconds=0.1)
    assert found.sent < 20


async def test_what_was_not_seen_to_end_is_asked_about() -> None:
    found = tally()
    under_load = load(Silent(), patience=0.05)
    await under_load.closed(found, outstanding=3, seconds=0.01)
    assert found.waiting == {"t0", "t1", "t2"}
    await under_load.settle(found)
    assert found.ends == {LOST: 1, "success": 1, UNENDED: 1}
    assert found.bad == 2


async def test_a_result_that_is_another_is_told_as_wrong() -> None:
    class Lying(Obedient):
        async def ended(self, task_id: str) -> TaskView:
            return view(task_id, TaskStatus.SUCCESS, {"n": "another"})

    found = tally()
    await load(Lying()).burst(found, tasks=3, seconds=1.0)
    assert found.ends == {WRONG: 3}
    assert found.done == 0


async def test_an_interrupted_measurement_has_what_was_measured_so_far() -> None:
    """Of the load that was under way too: its tasks are accounted for one by one."""
    system = Obedient(0.002)
    measurement = Measurement(system, load(system), Plan(seconds=300.0, rate=5.0), {})
    running = asyncio.ensure_future(measurement.run())
    while Shape.LONE not in measurement.tallies or measurement.tallies[Shape.LONE].done < 20:
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    (figures,) = measurement.figures()
    assert (figures["load"], figures["outstanding"]) == ("lone", 1)
    assert figures["done"] >= 20
    assert figures["sent"] - figures["done"] == figures["under_way"] <= 1
    assert figures["cpu_s_per_1000"].keys() == {OURSELVES}


async def test_a_measurement_puts_on_every_load_and_sizes_its_burst() -> None:
    system = Obedient()
    measurement = Measurement(system, load(system), Plan(seconds=1.0, outstanding=4, rate=50.0), {})
    await measurement.prove(request(0))
    await measurement.run()
    figures = {one["load"]: one for one in measurement.figures()}
    assert list(figures) == ["lone", "crowd", "burst", "open"]
    assert figures["burst"]["sent"] == figures["burst"]["tasks"] == measurement.burst_tasks
    assert figures["open"]["sent"] in range(12, 14)
    assert sum(one.sent for one in measurement.all) == len(system.payloads), "probes and warm-up are owned up to"


async def test_no_further_load_is_put_on_a_system_that_does_not_end_its_tasks() -> None:
    system = Silent()
    measurement = Measurement(system, load(system, patience=0.05), Plan(seconds=1.0, outstanding=4), {})
    await measurement.run()
    assert (measurement.tallies, measurement.complete) == ({}, False)
    assert len(system.payloads) == 4, "the warm-up's"


async def test_nothing_is_measured_when_the_first_task_fails() -> None:
    class Failing(Obedient):
        async def ended(self, task_id: str) -> TaskView:
            return view(task_id, TaskStatus.FAILED)

    system = Failing()
    measurement = Measurement(system, load(system), Plan(), {})
    with pytest.raises(AgentEnginesError, match="--payload"):
        await measurement.prove(request(0))


def test_a_task_type_nobody_performs_is_told_with_those_that_are() -> None:
    require_performer([{"capabilities": ["greet", "echo"]}], "echo")
    with pytest.raises(InvalidRequest, match="there are: echo, greet"):
        require_performer([{"capabilities": ["greet"]}, {"capabilities": ["echo"]}], "sing")
    with pytest.raises(InvalidRequest, match="there is no agent"):
        require_performer([], "echo")


MOUNTS = """\
overlay / overlay rw,relatime 0 0
tmpfs /tmp tmpfs rw 0 0
/dev/sda1 /srv/my\\040data ext4 rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/tmp/x/data", "tmpfs"), ("/tmpfoo", "overlay"), ("/srv/my data/e", "ext4"), ("/srv", "overlay")],
)
def test_a_folder_is_on_the_file_system_mounted_nearest_above_it(folder: str, kind: str) -> None:
    assert filesystem_of(Path(folder), MOUNTS) == kind
