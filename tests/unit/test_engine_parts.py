"""The smaller parts: reporter, watchdog, context, echo."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from agent_engines.adapters.memory.bus import MemoryBus
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.domain.errors import InvalidRequest, TooLarge, Unavailable
from agent_engines.domain.messages import CancelOrder, Progress, Report, ReportKind, TaskMessage
from agent_engines.domain.tasks import TaskRequest, TaskStatus
from agent_engines.engines.echo import echo_engine
from agent_engines.ports.bus import Delivery
from agent_engines.runtime.attempt import Attempt
from agent_engines.runtime.cancellations import MAX_REMEMBERED, Cancellations
from agent_engines.runtime.complaints import Complaints
from agent_engines.runtime.context import TaskContext
from agent_engines.runtime.loop_watchdog import LoopWatchdog
from agent_engines.runtime.pace import Pace
from agent_engines.runtime.reporter import MAX_PENDING, Reporter

MESSAGE = TaskMessage(task_id="t", request_id="r", task_type="x", agent="a", generation=1)


def final(task_id: str, result: bytes = b"null") -> Report:
    return Report(
        kind=ReportKind.FINAL,
        task_id=task_id,
        request_id="r",
        task_type="x",
        agent="a",
        status=TaskStatus.SUCCESS,
        result=msgspec.Raw(result),
    )


class SlowReports:
    """A report log that takes one message at a time, when the test lets it, and refuses what the test says."""

    def __init__(self) -> None:
        self.messages: list[list[Report]] = []
        self.gate = asyncio.Event()
        self.refuse: type[Exception] | None = None

    async def publish_reports(self, agent: str, reports: Sequence[Report]) -> None:
        await self.gate.wait()
        if self.refuse is TooLarge and any(len(bytes(one.result)) > 10 for one in reports):
            raise TooLarge("too much")
        if self.refuse is Unavailable:
            raise Unavailable("away")
        self.messages.append(list(reports))


class ReporterBench:
    def __init__(self) -> None:
        self.log = SlowReports()
        self.telemetry = NullTelemetry()
        self.settled: list[str] = []
        self.reporter = Reporter(
            self.log,  # type: ignore[arg-type]
            "a",
            settle=self._settle,
            telemetry=self.telemetry,
            rng=random.Random(1),
        )

    def put(self, task_id: str, result: bytes = b"null") -> None:
        message = msgspec.structs.replace(MESSAGE, task_id=task_id)
        self.reporter.put(final(task_id, result), Attempt(message, Delivery(message, 1, None)))

    async def _settle(self, attempts: list[Attempt]) -> None:
        self.settled.extend(attempt.message.task_id for attempt in attempts)


class TestReporter:
    async def test_what_gathers_while_one_message_travels_goes_together_in_the_next(self) -> None:
        bench = ReporterBench()
        bench.put("first")
        await asyncio.sleep(0.01)
        for number in range(50):
            bench.put(f"t{number}")
        bench.log.gate.set()
        assert await bench.reporter.close(1.0) == 0
        assert [len(message) for message in bench.log.messages] == [1, 50]

    async def test_nothing_is_acknowledged_before_it_is_durable(self) -> None:
        bench = ReporterBench()
        bench.put("t1")
        await asyncio.sleep(0.01)
        assert bench.settled == []
        bench.log.gate.set()
        await bench.reporter.close(1.0)
        assert bench.settled == ["t1"]

    async def test_announcements_are_dropped_when_too_much_waits_and_intake_hears_of_the_relief(self) -> None:
        bench = ReporterBench()
        relieved = asyncio.Event()
        bench.reporter.on_relief = relieved.set
        for number in range(MAX_PENDING):
            bench.put(f"t{number}")
        assert bench.reporter.congested
        bench.reporter.put(final("announcement"), None)
        assert len(bench.reporter) == MAX_PENDING
        bench.log.gate.set()
        await asyncio.wait_for(relieved.wait(), 10)
        assert not bench.reporter.congested
        await bench.reporter.close(5.0)

    async def test_large_results_stop_intake_before_they_fill_the_memory(self) -> None:
        bench = ReporterBench()
        megabyte = b'"' + b"x" * 1_048_574 + b'"'
        for number in range(64):
            bench.put(f"t{number}", megabyte)
        assert bench.reporter.congested
        bench.log.gate.set()
        await bench.reporter.close(5.0)

    async def test_one_result_the_bus_refuses_does_not_hold_up_the_others(self) -> None:
        bench = ReporterBench()
        bench.log.gate.set()
        bench.log.refuse = TooLarge
        bench.put("good")
        bench.put("huge", b'"far too long"')
        bench.put("also good")
        await bench.reporter.close(1.0)
        told = {report.task_id: report for message in bench.log.messages for report in message}
        assert told["good"].status is TaskStatus.SUCCESS
        assert told["also good"].status is TaskStatus.SUCCESS
        assert told["huge"].status is TaskStatus.FAILED
        assert told["huge"].error is not None
        assert told["huge"].error.type == "ResultTooLarge"
        assert sorted(bench.settled) == ["also good", "good", "huge"]

    async def test_a_close_during_an_outage_ends_and_says_what_is_left(self) -> None:
        bench = ReporterBench()
        bench.log.gate.set()
        bench.log.refuse = Unavailable
        for number in range(3):
            bench.put(f"t{number}")
        assert await bench.reporter.close(0.1) == 3
        assert bench.settled == []


class TestWatchdog:
    async def test_a_blocked_loop_is_told_with_the_handler_and_the_line(self) -> None:
        telemetry = NullTelemetry()
        watchdog = LoopWatchdog(telemetry, "worker", blocked_seconds=0.1)
        watchdog.start()

        async def handle() -> None:
            time.sleep(0.8)

        await asyncio.create_task(handle(), name="handle summarize")
        await asyncio.sleep(0.05)
        await watchdog.stop()
        [line] = [line for line in telemetry.lines if line.level == "error"]
        assert line.context["handler"] == "handle summarize"
        assert any(step.endswith(" handle") and "test_engine_parts" in step for step in line.context["stack"])
        assert telemetry.counts["agent_loop_blocked_total"] == watchdog.blocks == 1
        assert watchdog.lag_ms >= 100

    async def test_a_free_loop_is_left_alone(self) -> None:
        telemetry = NullTelemetry()
        watchdog = LoopWatchdog(telemetry, "worker", blocked_seconds=30.0)
        watchdog.start()
        await asyncio.sleep(0.6)
        await watchdog.stop()
        await watchdog.stop()
        assert (watchdog.blocks, list(telemetry.lines)) == (0, [])


class TestContext:
    def make(self, told: list[Progress] | None = None) -> TaskContext:
        async def sink(progress: Progress) -> None:
            if told is not None:
                told.append(progress)

        return TaskContext(MESSAGE, NullTelemetry().log("a"), now=lambda: 5.0, sink=sink, traceparent="00-ab-cd-01")

    def test_it_tells_about_the_task(self) -> None:
        context = self.make()
        assert (context.task_id, context.request_id, context.task_type) == ("t", "r", "x")
        assert (context.attempt, context.max_attempts, context.generation, context.priority) == (1, 3, 1, 3)
        assert (context.deadline, context.metadata, context.requirements, context.cancelled) == (None, {}, {}, False)
        assert context.headers == {"traceparent": "00-ab-cd-01"}

    @pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "high"])
    def test_quality_is_a_share(self, value: Any) -> None:
        with pytest.raises(InvalidRequest) as refused:
            self.make().quality(value)
        assert refused.value.field == "quality"

    @pytest.mark.parametrize("value", [-1, float("inf"), float("nan"), None])
    def test_cost_is_money(self, value: Any) -> None:
        with pytest.raises(InvalidRequest) as refused:
            self.make().cost(value)
        assert refused.value.field == "cost"

    @pytest.mark.parametrize("data", [object(), {"a": float("nan")}, "a\x00", "x" * 70_000])
    async def test_progress_that_cannot_be_stored_is_refused(self, data: Any) -> None:
        with pytest.raises(InvalidRequest) as refused:
            await self.make().progress(0.5, "", data)
        assert refused.value.field == "data"

    async def test_progress_is_bounded(self) -> None:
        told: list[Progress] = []
        context = self.make(told)
        await context.progress(float("nan"), "x" * 5000)
        await context.progress(-3)
        assert [(one.fraction, len(one.message), one.at) for one in told] == [(None, 2000, 5.0), (0.0, 0, 5.0)]


class TestCancellations:
    def test_an_order_reaches_what_was_dispatched_before_it(self) -> None:
        orders = Cancellations()
        orders.remember(CancelOrder(task_ids=("t",), at=50.0), 60.0)
        assert orders.covers(msgspec.structs.replace(MESSAGE, dispatched_at=49.0))
        assert not orders.covers(msgspec.structs.replace(MESSAGE, dispatched_at=51.0))

    def test_without_times_only_the_first_dispatch_is_meant(self) -> None:
        orders = Cancellations()
        orders.remember(CancelOrder(task_ids=("t",)), 60.0)
        assert orders.covers(MESSAGE)
        assert not orders.covers(msgspec.structs.replace(MESSAGE, generation=2))

    def test_old_and_too_many_orders_are_forgotten(self) -> None:
        orders = Cancellations()
        orders.remember(CancelOrder(task_ids=("old",)), 0.0)
        orders.remember(CancelOrder(task_ids=tuple(f"t{number}" for number in range(MAX_REMEMBERED + 5))), 100_000.0)
        assert len(orders) == MAX_REMEMBERED
        assert not orders.covers(msgspec.structs.replace(MESSAGE, task_id="old"))


class TestPace:
    def test_the_rate_follows_and_is_forgotten_after_a_rest(self) -> None:
        pace = Pace()
        pace.ended(0.01, 0.0)
        for step in range(1, 5001):
            pace.ended(0.01, step * 0.001)
        assert pace.soon == pytest.approx(20, abs=1)
        assert pace.service_ms == pytest.approx(10.0)
        pace.ended(0.01, 60.0)
        assert pace.soon == 0


def test_failing_handlers_are_logged_once_in_ten_seconds_with_the_number_left_out() -> None:
    telemetry = NullTelemetry()
    complaints = Complaints(telemetry.log("a"))
    for now in (0.0, 1.0, 2.0, 11.0):
        complaints.hear("x", "t", ValueError("no"), now)
    complaints.hear("x", "t", KeyError("other"), 11.0)
    assert [line.context["unlogged_since_last"] for line in telemetry.lines] == [0, 2, 0]
    assert "ValueError: no" in telemetry.lines[0].context["traceback"]


class TestEcho:
    @pytest.mark.parametrize(
        ("task_type", "payload", "result"),
        [
            ("test", {"a": 1}, {"ok": True, "echo": {"a": 1}}),
            ("test", None, {"ok": True, "echo": None}),
            ("echo", [1, "two"], [1, "two"]),
            ("sleep", {"seconds": 0.01}, {"slept": 0.01}),
            ("fail", {"times": 1}, {"attempt": 2}),
        ],
    )
    async def test_it_answers(self, task_type: str, payload: Any, result: Any) -> None:
        told = await echo_engine().handle_task(TaskRequest(task_type=task_type, payload=payload))
        assert (told["status"], told["result"]) == ("success", result)

    @pytest.mark.parametrize(
        ("payload", "kind"), [({"permanent": True}, "PermanentFailure"), (None, "RuntimeError"), ({}, "RuntimeError")]
    )
    async def test_it_fails_when_told(self, payload: Any, kind: str) -> None:
        told = await echo_engine().handle_task(TaskRequest(task_type="fail", payload=payload, max_attempts=1))
        assert (told["status"], told["error"]["type"]) == ("failed", kind)

    def test_it_crashes_when_told(self) -> None:
        script = (
            "import asyncio; from agent_engines.engines.echo import echo_engine; "
            "from agent_engines.domain.tasks import TaskRequest; "
            "asyncio.run(echo_engine().handle_task(TaskRequest(task_type='fail', payload={'exit': True}))); print('alive')"
        )
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False)
        assert (ended.returncode, ended.stdout) == (1, b"")

    async def test_its_sleep_tells_progress(self) -> None:
        bus = MemoryBus()
        engine = echo_engine("sleeper")
        handler = engine._handlers["sleep"]
        context = TaskContext(MESSAGE, NullTelemetry().log("a"), now=lambda: 0.0, sink=bus.reports.publish_progress)
        await handler.function(*handler.arguments(context, msgspec.Raw(b'{"seconds":0.01}')))
        shares = [progress.fraction async for _, progress in _first(bus, 10)]
        assert shares == pytest.approx([step / 10 for step in range(1, 11)])


async def _first(bus: MemoryBus, count: int) -> Any:
    async for number, progress in bus.reports.follow_progress("t"):
        yield number, progress
        count -= 1
        if not count:
            return
