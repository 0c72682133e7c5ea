"""Engines on the memory bus: from a published task to its report and acknowledgement."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from engine_bench import Bench

from agent_engines.domain.errors import PermanentFailure, RetryLater
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.tasks import PriorityClass, TaskError, TaskStatus
from agent_engines.runtime.attempt import Attempt, Outcome
from agent_engines.runtime.context import TaskContext
from agent_engines.runtime.executor import Executor

MakeBench = Callable[..., Bench]


@pytest.fixture
async def make() -> AsyncIterator[MakeBench]:
    """Benches that are closed at the end of the test."""
    async with contextlib.AsyncExitStack() as stack:
        made: list[Bench] = []

        def bench(**options: Any) -> Bench:
            one = Bench(**options)
            made.append(one)
            return one

        yield bench
        for one in made:
            stack.push_async_exit(one)


async def started(bench: Bench) -> Bench:
    await bench.__aenter__()
    await bench.start()
    return bench


async def test_a_task_runs_is_reported_with_everything_and_acknowledged(make: MakeBench) -> None:
    bench = make()

    @bench.engine.task("work")
    async def work(context: TaskContext, payload: dict[str, int]) -> dict[str, int]:
        context.quality(0.75)
        context.cost(0.002)
        return {"doubled": payload["n"] * 2}

    await started(bench)
    await bench.send("t1", payload={"n": 21}, priority=2, generation=4, attempt=2, capability="mac", submitted_at=5.0)
    report = await bench.report("t1")
    await bench.empty()
    assert bytes(report.result) == b'{"doubled":42}'
    assert (report.kind, report.status, report.error) == (ReportKind.FINAL, TaskStatus.SUCCESS, None)
    assert (report.agent, report.replica) == ("worker", bench.engine.replica)
    assert (report.generation, report.attempt, report.delivery) == (4, 2, 1)
    assert (report.quality, report.cost) == (0.75, 0.002)
    assert (report.origin, report.capability, report.priority, report.submitted_at) == ("bench", "mac", 2, 5.0)
    assert report.started_at is not None
    assert report.completed_at is not None
    assert report.started_at <= report.completed_at
    assert report.execution_time_ms == pytest.approx((report.completed_at - report.started_at) * 1000, abs=0.01)
    assert bench.telemetry.done["worker", "success"] == 1
    assert bench.telemetry.spans["process"] == 1


async def test_thousands_of_tasks_of_all_priorities_are_each_reported_once(make: MakeBench) -> None:
    bench = make(max_concurrent_tasks=20, queue_size=10)
    ran: list[str] = []

    @bench.engine.task("work")
    async def work(context: TaskContext) -> None:
        ran.append(context.task_id)
        if len(ran) % 7 == 0:
            await asyncio.sleep(0)

    for number in range(2000):
        await bench.send(f"t{number}", priority=number % 5 + 1)
    await started(bench)
    # On a slow machine one may take long enough to be announced too.
    await bench.until(lambda: sum(one.kind is ReportKind.FINAL for one in bench.reports) >= 2000)
    await bench.empty()
    assert sorted(ran) == sorted(f"t{number}" for number in range(2000))
    ended = [report.task_id for report in bench.reports if report.kind is ReportKind.FINAL]
    assert len(set(ended)) == len(ended) == 2000
    assert bench.engine.load().running == bench.engine.load().queued == 0


async def test_an_end_that_cannot_be_told_holds_up_no_other(make: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make()
    together = asyncio.Event()

    @bench.engine.task("work")
    async def work(payload: Any) -> None:
        await together.wait()

    make_report = Executor.report

    def report(executor: Executor, attempt: Attempt, outcome: Outcome) -> Report:
        if attempt.message.task_id == "bad":
            raise RuntimeError("no report of this one")
        return make_report(executor, attempt, outcome)

    monkeypatch.setattr(Executor, "report", report)
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    await bench.send("bad")
    await bench.send("good")
    await started(bench)
    await bench.until(lambda: bench.engine.load().running == 2)
    # Both end in the next turn of the loop, in the order in which they came.
    together.set()
    assert (await bench.report("good")).status is TaskStatus.SUCCESS
    assert [str(problem["exception"]) for problem in problems] == ["no report of this one"]


async def test_urgent_work_on_the_bus_overtakes_when_slots_are_scarce(make: MakeBench) -> None:
    bench = make(max_concurrent_tasks=1)
    order: list[str] = []
    first, go = asyncio.Event(), asyncio.Event()

    @bench.engine.task("work")
    async def work(context: TaskContext) -> None:
        order.append(context.task_id)
        if context.task_id == "first":
            first.set()
            await go.wait()

    await started(bench)
    await bench.send("first", priority=3)
    await first.wait()
    # Pulls that were under way when the only slot was taken have to run out before nothing is fetched ahead.
    await asyncio.sleep(0.3)
    for number in range(3):
        await bench.send(f"low{number}", priority=5)
    for number in range(3):
        await bench.send(f"high{number}", priority=1)
    go.set()
    await bench.until(lambda: len(order) == 7)
    assert order == ["first", "high0", "high1", "high2", "low0", "low1", "low2"]


async def test_nothing_is_fetched_that_could_not_start_soon(make: MakeBench) -> None:
    bench = make(max_concurrent_tasks=3)
    release = asyncio.Event()

    @bench.engine.task("work")
    async def work() -> None:
        await release.wait()

    for number in range(50):
        await bench.send(f"t{number}", priority=3)
    await started(bench)
    await bench.until(lambda: bench.engine.load().running == 3)
    queue = bench.bus.tasks.queue(PriorityClass.NORMAL, "worker")
    fetched = sum(held.count for held in queue._held.values())
    assert fetched == 3
    release.set()
    await bench.until(lambda: len([one for one in bench.reports if one.kind is ReportKind.FINAL]) == 50)


@pytest.mark.parametrize(
    ("error", "status", "kind", "retryable"),
    [
        (ValueError("no good"), TaskStatus.RETRYING, "ValueError", True),
        (RetryLater("busy", after_seconds=5), TaskStatus.RETRYING, "RetryLater", True),
        (PermanentFailure("never"), TaskStatus.FAILED, "PermanentFailure", False),
        (SystemExit(3), TaskStatus.FAILED, "HandlerExit", False),
        (KeyboardInterrupt(), TaskStatus.FAILED, "HandlerExit", False),
        (asyncio.CancelledError(), TaskStatus.RETRYING, "CancelledError", True),
        (StopIteration(1), TaskStatus.RETRYING, "RuntimeError", True),
    ],
)
@pytest.mark.parametrize("plain", [False, True])
async def test_what_a_handler_raises_becomes_the_outcome_and_nothing_else_breaks(
    make: MakeBench, error: BaseException, status: TaskStatus, kind: str, retryable: bool, plain: bool
) -> None:
    bench = make()

    def raises_plainly() -> None:
        raise error

    async def raises() -> None:
        raise error

    bench.engine.task("raise")(raises_plainly if plain else raises)

    @bench.engine.task("work")
    async def work() -> str:
        return "still here"

    await started(bench)
    await bench.send("bad", "raise")
    report = await bench.report("bad")
    assert report.status is status
    assert report.error is not None
    assert (report.error.type, report.error.retryable) == (kind, retryable)
    assert (report.retry_at is not None) == (status is TaskStatus.RETRYING)
    await bench.send("good")
    assert bytes((await bench.report("good")).result) == b'"still here"'


async def test_the_last_attempt_ends_as_a_dead_letter_with_a_bounded_message(make: MakeBench) -> None:
    bench = make()

    @bench.engine.task("work")
    async def work() -> None:
        raise ValueError("x" * 10_000 + "\x00")

    await started(bench)
    await bench.send("t1", attempt=3, max_attempts=3)
    report = await bench.report("t1")
    assert (report.kind, report.status) == (ReportKind.FINAL, TaskStatus.DEAD_LETTER)
    assert report.error is not None
    assert len(report.error.message) == 2000


async def test_a_retry_is_due_later_and_the_task_leaves_the_queue_at_once(make: MakeBench) -> None:
    bench = make()

    @bench.engine.task("work")
    async def work() -> None:
        raise RetryLater("not yet", after_seconds=60)

    await started(bench)
    await bench.send("t1")
    report = await bench.report("t1", ReportKind.RETRY)
    await bench.empty()
    assert report.retry_at is not None
    assert report.completed_at is not None
    assert report.retry_at == pytest.approx(report.completed_at + 60, abs=1)


async def test_a_handler_over_its_time_is_cancelled_and_may_be_tried_again(make: MakeBench) -> None:
    bench = make()
    cleaned = asyncio.Event()

    @bench.engine.task("work", timeout_seconds=0.05)
    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.set()

    await started(bench)
    await bench.send("t1")
    report = await bench.report("t1")
    assert report.status is TaskStatus.RETRYING
    assert report.error == TaskError("Timeout", "no result within 0.05 seconds", retryable=True)
    assert cleaned.is_set()


@pytest.mark.parametrize("limit", ["agent", "handler", "request"])
async def test_the_shortest_of_all_time_limits_counts(make: MakeBench, limit: str) -> None:
    bench = make(task_timeout_seconds=0.05 if limit == "agent" else 60)

    @bench.engine.task("work", timeout_seconds=0.05 if limit == "handler" else None)
    async def work() -> None:
        await asyncio.sleep(60)

    await started(bench)
    await bench.send("t1", timeout_seconds=0.05 if limit == "request" else None)
    report = await bench.report("t1")
    assert report.error is not None
    assert report.error.type == "Timeout"


async def test_a_handler_that_swallows_its_cancellation_is_told_again(make: MakeBench) -> None:
    bench = make()
    told = 0

    @bench.engine.task("work", timeout_seconds=0.05)
    async def work() -> None:
        nonlocal told
        while told < 2:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                told += 1
        raise RuntimeError("at last")

    await started(bench)
    await bench.send("t1")
    report = await bench.report("t1")
    assert report.error is not None
    assert (report.error.type, told) == ("Timeout", 2)


async def test_a_plain_handler_over_its_time_is_reported_although_its_thread_goes_on(make: MakeBench) -> None:
    bench = make(max_concurrent_tasks=1)
    go = threading.Event()
    saw_cancel: list[bool] = []

    @bench.engine.task("slow", timeout_seconds=0.05)
    def slow(context: TaskContext) -> None:
        go.wait(10)
        saw_cancel.append(context.cancelled)

    @bench.engine.task("work")
    def work() -> str:
        return "done"

    await started(bench)
    await bench.send("t1", "slow")
    report = await bench.report("t1")
    assert report.error is not None
    assert report.error.type == "Timeout"
    # The only slot is still taken by the thread: the next task waits for it.
    await bench.send("t2")
    assert bench.engine._threads.abandoned == 1
    go.set()
    assert (await bench.report("t2")).status is TaskStatus.SUCCESS
    assert saw_cancel == [True]


async def test_a_deadline_that_passed_is_expired_without_running(make: MakeBench) -> None:
    bench = make()
    ran: list[str] = []

    @bench.engine.task("work")
    async def work(context: TaskContext) -> None:
        ran.append(context.task_id)

    await started(bench)
    await bench.send("t1", deadline=time.time() - 1)
    report = await bench.report("t1")
    assert (report.kind, report.status, report.started_at) == (ReportKind.FINAL, TaskStatus.EXPIRED, None)
    assert ran == []


async def test_a_deadline_that_passes_while_running_is_expired(make: MakeBench) -> None:
    bench = make()

    @bench.engine.task("work")
    async def work() -> None:
        await asyncio.sleep(60)

    await started(bench)
    await bench.send("t1", deadline=time.time() + 0.2)
    report = await bench.report("t1")
    assert report.status is TaskStatus.EXPIRED
    assert report.error is not None
    assert report.error.type == "Timeout"


async def test_a_task_handed_around_without_being_started_is_no_poison(make: MakeBench) -> None:
    bench = make()
    ran: list[str] = []

    @bench.engine.task("work")
    async def work(context: TaskContext) -> None:
        ran.append(context.task_id)

    await bench.__aenter__()
    await bench.send("t1")
    inbox = await bench.bus.tasks.open_inbox("worker")
    for _ in range(30):
        await inbox.release(await inbox.pull(PriorityClass.NORMAL, 1, 1.0))
    await bench.start()
    report = await bench.report("t1")
    assert (report.status, report.delivery) == (TaskStatus.SUCCESS, 31)
    assert ran == ["t1"]


async def test_an_unknown_task_type_is_sent_back_to_be_decided_again(make: MakeBench) -> None:
    bench = make()

    @bench.engine.task("work")
    async def work() -> None: ...

    await started(bench)
    await bench.send("t1", "else")
    report = await bench.report("t1")
    assert (report.kind, report.status) == (ReportKind.RETRY, TaskStatus.RETRYING)
    assert report.error == TaskError("UnknownTaskType", "agent worker has no handler for 'else'", retryable=True)


@pytest.mark.parametrize(
    ("raw", "reported"),
    [
        (b'{"task_id":"t1","request_id":"r1","task_type":"work","agent":"worker","priority":"high"}', True),
        (b'{"task_id":"t1","generation":3', True),
        (b'{"task_id":"t1","payload":{"capability":"0a"},"priority":"high","capability":"0b.0c"}', True),
        (b"\xff\xfe not json", False),
        (b"", False),
    ],
)
async def test_a_message_nobody_can_read_is_ended_as_far_as_it_says_what_it_is(
    make: MakeBench, raw: bytes, reported: bool
) -> None:
    bench = make()

    @bench.engine.task("work")
    async def work() -> None: ...

    await started(bench)
    await bench.bus.tasks.publish_raw(PriorityClass.NORMAL, "worker", raw)
    await bench.empty()
    assert bench.telemetry.counts["agent_undecodable_tasks_total"] == 1
    if reported:
        report = await bench.report("t1")
        assert report.status is TaskStatus.DEAD_LETTER
        assert report.error is not None
        assert report.error.type == "Undecodable"
        assert report.generation == (3 if b"generation" in raw else 1)
        assert report.capability == ("0b.0c" if b"0b.0c" in raw else ""), "the router's, not the payload's"


async def test_the_same_dispatch_twice_runs_once(make: MakeBench) -> None:
    bench = make(max_concurrent_tasks=5)
    ran: list[int] = []
    go = asyncio.Event()

    @bench.engine.task("work")
    async def work(context: TaskContext) -> None:
        ran.append(context.generation)
        await go.wait()

    await started(bench)
    message = await bench.send("t1")
    copy = msgspec.json.encode(message)
    await bench.bus.tasks.publish_raw(PriorityClass.NORMAL, "worker", copy)
    await bench.until(lambda: bench.engine.load().running == 1)
    go.set()
    await bench.report("t1")
    # A copy that comes after the end is recognised too.
    await bench.bus.tasks.publish_raw(PriorityClass.NORMAL, "worker", copy)
    await bench.send("t1", generation=2)
    await bench.until(lambda: len(ran) == 2)
    assert ran == [1, 2]


async def test_a_long_task_says_that_it_started_and_a_short_one_does_not(make: MakeBench) -> None:
    bench = make()
    go = asyncio.Event()

    @bench.engine.task("work")
    async def work(context: TaskContext) -> None:
        if context.task_id == "long":
            await go.wait()

    await started(bench)
    await bench.send("short")
    await bench.report("short")
    await bench.send("long")
    report = await bench.report("long", ReportKind.STARTED)
    assert (report.status, report.started_at is not None) == (TaskStatus.RUNNING, True)
    go.set()
    await bench.report("long")
    kinds = [one.kind for one in bench.reports]
    assert kinds == [ReportKind.FINAL, ReportKind.STARTED, ReportKind.FINAL]


async def test_a_lease_is_renewed_as_long_as_the_handler_runs(make: MakeBench) -> None:
    bench = make(lease_seconds=0.3)
    ran: list[str] = []

    @bench.engine.task("work")
    async def work(context: TaskContext) -> None:
        ran.append(context.task_id)
        await asyncio.sleep(1.0)

    await started(bench)
    await bench.send("t1")
    report = await bench.report("t1")
    assert (report.delivery, ran) == (1, ["t1"])


async def test_progress_is_told_from_both_kinds_of_handlers(make: MakeBench) -> None:
    bench = make()

    @bench.engine.task("async")
    async def tells(context: TaskContext) -> None:
        await context.progress(0.5, "half", {"rows": 10})

    @bench.engine.task("plain")
    def tells_plainly(context: TaskContext) -> None:
        context.progress(7.0, "more than all")

    await started(bench)
    await bench.send("t1", "async")
    await bench.send("t2", "plain")
    await bench.report("t1")
    await bench.report("t2")
    told: dict[str, Any] = {}
    for task_id in ("t1", "t2"):
        async for _, progress in bench.bus.reports.follow_progress(task_id):
            told[task_id] = (progress.fraction, progress.message, progress.data)
            break
    assert told == {"t1": (0.5, "half", {"rows": 10}), "t2": (1.0, "more than all", None)}


class TestCancelling:
    async def test_a_running_task_is_interrupted(self, make: MakeBench) -> None:
        bench = make()
        running = asyncio.Event()

        @bench.engine.task("work")
        async def work() -> None:
            running.set()
            await asyncio.sleep(60)

        await started(bench)
        await bench.send("t1")
        await running.wait()
        await bench.cancel("t1")
        report = await bench.report("t1")
        await bench.empty()
        assert (report.kind, report.status) == (ReportKind.FINAL, TaskStatus.CANCELLED)

    async def test_a_task_that_has_not_arrived_yet_does_not_run(self, make: MakeBench) -> None:
        bench = make()
        ran: list[int] = []

        @bench.engine.task("work")
        async def work(context: TaskContext) -> None:
            ran.append(context.generation)

        await started(bench)
        now = time.time()
        await bench.cancel("t1", at=now)
        await bench.until(lambda: len(bench.engine._hosting.executor.cancellations) == 1)
        await bench.send("t1", dispatched_at=now - 1)
        assert (await bench.report("t1")).status is TaskStatus.CANCELLED
        # Dispatched after the order: somebody asked for it again.
        await bench.send("t1", generation=2, dispatched_at=now + 1)
        await bench.until(lambda: ran)
        assert ran == [2]

    async def test_a_task_that_waits_in_the_process_is_taken_out(self, make: MakeBench) -> None:
        bench = make(max_concurrent_tasks=1)
        go = asyncio.Event()
        ran: list[str] = []

        @bench.engine.task("work")
        async def work(context: TaskContext) -> None:
            ran.append(context.task_id)
            await go.wait()

        await started(bench)
        # All classes are asked at the same time while the engine is idle, so two of these will wait inside.
        await bench.until(lambda: len(bench.engine._hosting._worker._intake._listening) == 3)
        for number, priority in enumerate((1, 3, 5)):
            await bench.send(f"t{number}", priority=priority)
        await bench.until(lambda: bench.engine.load().queued == 2)
        waiting = [name for name in ("t0", "t1", "t2") if name not in ran]
        await bench.cancel(waiting[0])
        assert (await bench.report(waiting[0])).status is TaskStatus.CANCELLED
        assert bench.engine.load().queued == 1
        go.set()
        await bench.empty()
        assert waiting[0] not in ran

    async def test_a_handler_that_finishes_all_the_same_keeps_its_success(self, make: MakeBench) -> None:
        bench = make()
        running = asyncio.Event()

        @bench.engine.task("work")
        async def work() -> str:
            running.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            return "done anyway"

        await started(bench)
        await bench.send("t1")
        await running.wait()
        await bench.cancel("t1")
        report = await bench.report("t1")
        assert (report.status, bytes(report.result)) == (TaskStatus.SUCCESS, b'"done anyway"')

    async def test_an_order_nobody_can_read_is_logged(self, make: MakeBench) -> None:
        bench = make()

        @bench.engine.task("work")
        async def work() -> None: ...

        await started(bench)
        await bench.bus.signals.send("ae.v1.cancel.worker", b"{")
        await bench.until(lambda: "An order to cancel cannot be read" in bench.telemetry.messages("warning"))
        await bench.send("t1")
        assert (await bench.report("t1")).status is TaskStatus.SUCCESS


class TestOutages:
    async def test_reports_wait_while_the_bus_is_away_and_nothing_is_lost_or_repeated(self, make: MakeBench) -> None:
        bench = make()
        running, go = asyncio.Event(), asyncio.Event()
        ran: list[str] = []

        @bench.engine.task("work")
        async def work(context: TaskContext) -> None:
            ran.append(context.task_id)
            running.set()
            await go.wait()

        await started(bench)
        await bench.send("t1")
        await running.wait()
        bench.bus.switch(False)
        go.set()
        await bench.until(lambda: bench.telemetry.counts["agent_report_retries_total"] >= 2)
        assert bench.engine.load().running == 0
        bench.bus.switch(True)
        assert (await bench.report("t1")).status is TaskStatus.SUCCESS
        await bench.empty()
        assert ran == ["t1"]
        assert "Reports flow again" in bench.telemetry.messages("info")

    async def test_intake_goes_on_after_an_outage(self, make: MakeBench) -> None:
        bench = make()

        @bench.engine.task("work")
        async def work() -> None: ...

        await started(bench)
        bench.bus.switch(False)
        await bench.until(lambda: "Intake waits: the bus did not answer" in bench.telemetry.messages("warning"))
        bench.bus.switch(True)
        await bench.send("t1")
        assert (await bench.report("t1")).status is TaskStatus.SUCCESS

    async def test_an_engine_that_stops_during_an_outage_leaves_its_tasks_to_others(self, make: MakeBench) -> None:
        bench = make(lease_seconds=0.5)
        running, go = asyncio.Event(), asyncio.Event()

        @bench.engine.task("work")
        async def work() -> None:
            running.set()
            await go.wait()

        await started(bench)
        await bench.send("t1")
        await running.wait()
        bench.bus.switch(False)
        go.set()
        await bench.engine.stop(0.1)
        bench.bus.switch(True)
        inbox = await bench.bus.tasks.open_inbox("worker")
        assert len(await inbox.pull(PriorityClass.NORMAL, 5, 5.0)) == 1
