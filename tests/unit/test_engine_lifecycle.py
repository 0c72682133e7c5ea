"""The life of an engine: starting, draining, stopping, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from engine_bench import Bench

from agent_engines.domain import subjects
from agent_engines.domain.agents import AgentState
from agent_engines.domain.errors import Conflict, InvalidRequest, Unavailable
from agent_engines.domain.messages import Heartbeat, ReportKind
from agent_engines.domain.tasks import PriorityClass, TaskRequest, TaskStatus
from agent_engines.ports.connections import Connections
from agent_engines.runtime.context import TaskContext
from agent_engines.runtime.engine import AgentConfig, Engine
from agent_engines.runtime.heartbeats import HELLO_JITTER_SECONDS
from agent_engines.runtime.threads import MAX_THREADS


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Bench(heartbeat_interval=60.0) as made:
        yield made


def leftovers(before: set[asyncio.Task[Any]]) -> list[str]:
    """Names of tasks and threads that run now and did not run before."""
    tasks = [task.get_name() for task in asyncio.all_tasks() - before]
    threads = [thread.name for thread in threading.enumerate() if "worker" in thread.name]
    return tasks + threads


async def states(bench: Bench, count: int) -> list[AgentState]:
    await bench.until(lambda: len(bench.heartbeats) >= count)
    return [beat.state for beat in bench.heartbeats]


async def test_the_states_follow_each_other(bench: Bench) -> None:
    engine = bench.engine
    seen = [engine.state]

    @engine.task("work")
    async def work() -> None: ...

    await bench.start()
    seen.append(engine.state)
    await bench.send("t1")
    await bench.report("t1")
    seen.append(engine.state)
    await engine.drain()
    seen.append(engine.state)
    await engine.stop()
    seen.append(engine.state)
    assert seen == list(AgentState)


async def test_after_a_stop_nothing_is_left_running(bench: Bench) -> None:
    before = asyncio.all_tasks()

    @bench.engine.task("work")
    async def work(context: TaskContext) -> None: ...

    @bench.engine.task("plain")
    def plain() -> None: ...

    listening = len(bench.bus.signals._listeners)
    await bench.start()
    for number in range(20):
        await bench.send(f"t{number}", "plain" if number % 2 else "work")
    await bench.empty()
    assert leftovers(before)
    await bench.engine.stop()
    assert leftovers(before) == []
    assert len(bench.bus.signals._listeners) == listening


async def test_stopping_twice_at_once_and_again_is_the_same_as_once(bench: Bench) -> None:
    before = asyncio.all_tasks()

    @bench.engine.task("work")
    async def work() -> None: ...

    await bench.start()
    await asyncio.gather(bench.engine.stop(), bench.engine.stop())
    await bench.engine.stop()
    assert bench.engine.state is AgentState.STOPPED
    assert leftovers(before) == []


async def test_an_engine_stopped_before_its_start_cannot_be_started(bench: Bench) -> None:
    await bench.engine.stop()
    assert bench.engine.state is AgentState.STOPPED
    with pytest.raises(Conflict):
        await bench.start()


async def test_an_engine_cannot_be_started_twice(bench: Bench) -> None:
    await bench.start()
    with pytest.raises(Conflict):
        await bench.start()


async def test_a_stop_during_the_start_ends_both() -> None:
    entered, stopped = asyncio.Event(), []

    class Slow(Engine):
        async def on_start(self, connections: Connections) -> None:
            entered.set()
            await asyncio.sleep(60)

        async def on_stop(self) -> None:
            stopped.append(True)

    bench = Bench()
    before = asyncio.all_tasks()
    engine = Slow("worker")
    starting = asyncio.ensure_future(engine.start(bench.connections))
    await entered.wait()
    await engine.stop()
    with pytest.raises(Unavailable, match="stopped while it started"):
        await starting
    assert (engine.state, stopped) == (AgentState.STOPPED, [True])
    assert leftovers(before) == []


async def test_a_start_that_failed_leaves_nothing_and_may_be_tried_again(bench: Bench) -> None:
    before = asyncio.all_tasks()

    @bench.engine.task("work")
    async def work() -> None: ...

    bench.bus.switch(False)
    with pytest.raises(Unavailable):
        await bench.start()
    assert leftovers(before) == []
    bench.bus.switch(True)
    await bench.start()
    await bench.send("t1")
    assert (await bench.report("t1")).status is TaskStatus.SUCCESS


async def test_a_failing_on_stop_does_not_keep_the_engine_alive() -> None:
    class Bad(Engine):
        async def on_stop(self) -> None:
            raise RuntimeError("no")

    bench = Bench()
    before = asyncio.all_tasks()
    engine = Bad("worker")
    await engine.start(bench.connections)
    await engine.stop()
    assert leftovers(before) == []
    assert "on_stop failed, the engine stops anyway" in bench.telemetry.messages("error")


async def test_an_engine_without_tasks_opens_no_inbox_but_beats(bench: Bench) -> None:
    await bench.start()
    await states(bench, 1)
    assert bench.bus.tasks._queues == {}
    assert bench.heartbeats[0].profile is not None
    assert bench.heartbeats[0].profile.capabilities == ()


class TestShutdown:
    async def test_running_work_ends_within_the_grace_and_what_waits_goes_back(self, bench: Bench) -> None:
        running, go = asyncio.Event(), asyncio.Event()

        @bench.engine.task("work")
        async def work() -> str:
            running.set()
            await go.wait()
            return "finished"

        await bench.start()
        await bench.send("t1")
        await running.wait()
        stopping = asyncio.ensure_future(bench.engine.stop(10.0))
        await bench.until(lambda: bench.engine.state is AgentState.DRAINING)
        assert (await bench.engine.ready()).status == "not_ready"
        await bench.send("t2")
        go.set()
        await stopping
        assert bytes((await bench.report("t1")).result) == b'"finished"'
        assert await bench.bus.tasks.backlog("worker") == 1
        assert [beat.state for beat in bench.heartbeats][-1] is AgentState.STOPPED

    async def test_tasks_waiting_inside_are_handed_back_at_once(self, bench: Bench) -> None:
        small = Engine(AgentConfig("worker", max_concurrent_tasks=1))
        go = asyncio.Event()

        @small.task("work")
        async def work() -> None:
            await go.wait()

        await small.start(bench.connections)
        await bench.until(lambda: len(small._hosting._worker._intake._listening) == 3)
        for number, priority in enumerate((1, 3, 5)):
            await bench.send(f"t{number}", priority=priority)
        await bench.until(lambda: small.load().queued == 2)
        stopping = asyncio.ensure_future(small.stop(10.0))
        inbox = await bench.bus.tasks.open_inbox("worker")
        handed_back = 0
        async with asyncio.timeout(5):
            while handed_back < 2:
                for priority in PriorityClass:
                    handed_back += len(await inbox.pull(priority, 5, 0.01))
        assert not stopping.done()
        go.set()
        await stopping
        assert bench.telemetry.counts["agent_tasks_handed_back_total"] == 2

    async def test_what_outlasts_the_grace_is_cancelled_and_handed_back_without_a_report(self, bench: Bench) -> None:
        running, cleaned = asyncio.Event(), asyncio.Event()

        @bench.engine.task("work")
        async def work() -> None:
            running.set()
            try:
                await asyncio.sleep(60)
            finally:
                cleaned.set()

        await bench.start()
        await bench.send("t1")
        await running.wait()
        await bench.engine.stop(0.05)
        assert cleaned.is_set()
        inbox = await bench.bus.tasks.open_inbox("worker")
        [again] = await inbox.pull(PriorityClass.NORMAL, 5, 5.0)
        assert again.message is not None
        assert (again.message.task_id, again.count) == ("t1", 2)
        await bench.until(lambda: True)
        assert [one for one in bench.reports if one.kind is not ReportKind.STARTED] == []

    async def test_a_handler_that_ends_while_it_is_told_to_stop_keeps_its_success(self, bench: Bench) -> None:
        running = asyncio.Event()

        @bench.engine.task("work")
        async def work() -> str:
            running.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            return "saved"

        await bench.start()
        await bench.send("t1")
        await running.wait()
        await bench.engine.stop(0.05)
        assert (await bench.report("t1")).status is TaskStatus.SUCCESS
        await bench.empty()

    async def test_a_handler_in_a_thread_that_hangs_does_not_hang_the_stop(self, bench: Bench) -> None:
        running, go = threading.Event(), threading.Event()

        @bench.engine.task("work")
        def work() -> None:
            running.set()
            go.wait(30)

        await bench.start()
        await bench.send("t1")
        await bench.until(running.is_set)
        await bench.engine.stop(0.05)
        assert "Handlers still run in threads that nobody can stop" in bench.telemetry.messages("error")
        go.set()
        await bench.until(lambda: not bench.engine._threads.alive)


class TestHeartbeats:
    async def test_the_first_is_full_and_a_change_of_load_is_told(self, bench: Bench) -> None:
        go = asyncio.Event()

        @bench.engine.task("work", max_attempts=5, idempotent=True, timeout_seconds=9)
        async def work() -> None:
            await go.wait()

        await bench.start()
        await bench.send("t1")
        await bench.until(lambda: any(beat.load.running == 1 for beat in bench.heartbeats))
        first, last = bench.heartbeats[0], bench.heartbeats[-1]
        assert first.profile == bench.engine.profile
        [capability] = bench.engine.profile.capabilities
        assert (capability.task_type, capability.max_attempts, capability.idempotent) == ("work", 5, True)
        assert (first.state, first.load.running, first.load.slots) == (AgentState.READY, 0, 100)
        assert (last.state, last.interval_seconds) == (AgentState.RUNNING, 60.0)
        assert [beat.seq for beat in bench.heartbeats] == list(range(1, len(bench.heartbeats) + 1))
        assert {beat.replica for beat in bench.heartbeats} == {bench.engine.replica}
        go.set()

    async def test_a_hello_is_answered_in_full_once_however_many_greet(self, bench: Bench) -> None:
        await bench.start()
        await states(bench, 1)
        for _ in range(5):
            await bench.bus.signals.send(subjects.HELLO, b"{}")

        def full() -> list[Heartbeat]:
            return [beat for beat in bench.heartbeats if beat.profile is not None]

        await bench.until(lambda: len(full()) == 2)
        # Longer than the jitter: whoever would still answer one of the five has done so.
        await asyncio.sleep(HELLO_JITTER_SECONDS * 1.2)
        assert len(full()) == 2
        await bench.bus.signals.send(subjects.HELLO, b"{}")
        await bench.until(lambda: len(full()) == 3)

    async def test_full_ones_come_every_interval(self) -> None:
        async with Bench(heartbeat_interval=0.1) as bench:
            await bench.start()
            await bench.until(lambda: len([beat for beat in bench.heartbeats if beat.profile]) >= 4)
            assert bench.telemetry.queues == {"worker": 0}

    async def test_the_last_one_says_goodbye(self, bench: Bench) -> None:
        await bench.start()
        await bench.engine.stop()
        assert (await states(bench, 2))[-1] is AgentState.STOPPED


class TestHealth:
    async def test_health_looks_at_every_server_in_use(self, bench: Bench) -> None:
        assert (await bench.engine.health()).checks == {}
        await bench.start()
        healthy = await bench.engine.health()
        assert (healthy.status, healthy.checks) == ("healthy", {"nats": True})
        bench.bus.switch(False)
        ill = await bench.engine.health()
        assert (ill.status, ill.checks) == ("unhealthy", {"nats": False})

    async def test_ready_says_why_not(self, bench: Bench) -> None:
        assert (await bench.engine.ready()).detail == "the engine is starting"
        await bench.start()
        assert (await bench.engine.ready()).status == "ready"
        bench.bus.switch(False)
        assert (await bench.engine.ready()).detail == "the bus is not connected"
        bench.bus.switch(True)
        await bench.engine.stop()
        assert (await bench.engine.ready()).detail == "the engine is stopped"
        assert (await bench.engine.health()).status == "unhealthy"


class TestRegistration:
    def test_the_function_is_returned_unchanged(self) -> None:
        async def work() -> None: ...

        assert Engine("e").task("work")(work) is work

    def test_a_type_has_one_handler(self) -> None:
        engine = Engine("e")
        engine.task("work")(lambda: None)
        with pytest.raises(InvalidRequest, match="has a handler already"):
            engine.task("work")(lambda: None)

    async def test_tasks_come_before_the_start(self, bench: Bench) -> None:
        await bench.start()
        with pytest.raises(Conflict, match="too late"):
            bench.engine.task("late")(lambda: None)

    @pytest.mark.parametrize("metadata", [{"a": object()}, {"a": float("nan")}, {"a": "x" * 70_000}])
    def test_metadata_has_to_be_storable(self, metadata: dict[str, Any]) -> None:
        with pytest.raises(InvalidRequest) as refused:
            Engine("e", metadata=metadata)
        assert refused.value.field == "metadata"

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("agent_id", "has.dots"),
            ("agent_id", ""),
            ("agent_id", 5),
            ("max_concurrent_tasks", 0),
            ("max_concurrent_tasks", 1.5),
            ("max_concurrent_tasks", True),
            ("queue_size", 0),
            ("task_timeout_seconds", 0),
            ("task_timeout_seconds", float("nan")),
            ("task_timeout_seconds", "30"),
            ("heartbeat_interval", 0.0),
            ("shutdown_grace_seconds", -1),
            ("http_host", " "),
            ("http_port", 70_000),
            ("breaker_threshold", 0),
            ("breaker_timeout", float("inf")),
        ],
    )
    def test_a_wrong_setting_is_named_with_its_range(self, field: str, value: Any) -> None:
        with pytest.raises(InvalidRequest) as refused:
            AgentConfig(**({"agent_id": "e"} | {field: value}))
        assert refused.value.field == field
        assert repr(value) in refused.value.detail or field == "http_host"

    def test_a_port_may_be_left_out_and_a_grace_may_be_nothing(self) -> None:
        config = AgentConfig("e", http_port=None, shutdown_grace_seconds=0)
        assert (config.http_port, config.shutdown_grace_seconds) == (None, 0)


class TestLocally:
    async def test_a_task_runs_without_any_server(self) -> None:
        engine = Engine("hello")

        @engine.task("greet")
        async def greet(payload: dict[str, str]) -> str:
            return f"Hello {payload['name']}"

        told = await engine.handle_task(TaskRequest(task_type="greet", payload={"name": "you"}, request_id="r"))
        assert (told["status"], told["result"], told["attempts"]) == ("success", "Hello you", 1)
        assert told["task_id"]
        assert told["execution_time_ms"] >= 0

    async def test_failed_attempts_are_retried_by_the_rules(self) -> None:
        engine = Engine("hello")

        @engine.task("flaky", max_attempts=3)
        async def flaky(context: TaskContext) -> int:
            if context.attempt < 2:
                raise ValueError("not yet")
            return context.attempt

        assert (await engine.handle_task(TaskRequest(task_type="flaky")))["attempts"] == 2
        once = await engine.handle_task(TaskRequest(task_type="flaky", max_attempts=1))
        assert once["status"] == "failed"
        assert once["error"] == {"type": "ValueError", "message": "not yet", "retryable": True}

    @pytest.mark.parametrize(
        ("task_type", "payload", "kind"),
        [("typed", "x", "InvalidPayload"), ("bad", 1, "UnserializableResult"), ("slow", 1, "Timeout")],
    )
    async def test_the_same_checks_hold(self, task_type: str, payload: Any, kind: str) -> None:
        engine = Engine("hello")

        @engine.task("typed")
        async def typed(payload: int) -> None: ...

        @engine.task("bad")
        async def bad() -> Any:
            return object()

        @engine.task("slow", timeout_seconds=0.02)
        async def slow() -> None:
            await asyncio.sleep(60)

        told = await engine.handle_task(TaskRequest(task_type=task_type, payload=payload, max_attempts=1))
        assert (told["status"], told["error"]["type"]) == ("failed", kind)

    async def test_an_unknown_type_and_a_bad_request_are_told_apart(self) -> None:
        engine = Engine("hello")
        told = await engine.handle_task(TaskRequest(task_type="none"))
        assert told["error"]["type"] == "UnknownTaskType"
        with pytest.raises(InvalidRequest):
            await engine.handle_task(TaskRequest(task_type="none", priority=9))

    async def test_a_caller_that_gives_up_ends_the_handler(self) -> None:
        engine = Engine("hello")
        running, cleaned = asyncio.Event(), asyncio.Event()

        @engine.task("slow")
        async def slow() -> None:
            running.set()
            try:
                await asyncio.sleep(60)
            finally:
                cleaned.set()

        calling = asyncio.ensure_future(engine.handle_task(TaskRequest(task_type="slow")))
        await running.wait()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert cleaned.is_set()
        await engine.stop()
        with pytest.raises(Unavailable):
            await engine.handle_task(TaskRequest(task_type="slow"))

    def test_it_works_in_one_loop_after_another(self) -> None:
        engine = Engine("hello")

        @engine.task("plain", timeout_seconds=5)
        def plain(payload: int) -> int:
            return payload + 1

        for number in range(3):
            told = asyncio.run(engine.handle_task(TaskRequest(task_type="plain", payload=number)))
            assert told["result"] == number + 1


async def test_settings_that_come_after_the_engine_was_made_bring_their_threads(bench: Bench) -> None:
    """A task with a slot and no thread would wait inside its time limit and end as a timeout without having run."""
    bench.engine = Engine(AgentConfig("worker", max_concurrent_tasks=1))
    bench.engine.config = replace(bench.engine.config, max_concurrent_tasks=3)
    together = threading.Barrier(3, timeout=5.0)

    @bench.engine.task("work", max_attempts=1)
    def work() -> None:
        together.wait()

    await bench.start()
    for task_id in ("t1", "t2", "t3"):
        await bench.send(task_id)
    assert [(await bench.report(one)).status for one in ("t1", "t2", "t3")] == [TaskStatus.SUCCESS] * 3


@pytest.mark.parametrize(("slots", "told"), [(MAX_THREADS, 0), (MAX_THREADS + 1, 1)])
async def test_more_slots_than_threads_are_told_of_when_handlers_are_plain(bench: Bench, slots: int, told: int) -> None:
    bench.engine.config = AgentConfig("worker", max_concurrent_tasks=slots)

    @bench.engine.task("work")
    def work() -> None: ...

    await bench.start()
    assert sum("fewer threads" in message for message in bench.telemetry.messages("warning")) == told
