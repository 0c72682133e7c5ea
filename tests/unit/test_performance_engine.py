"""The performance engine, fed over the in-memory bus as the recorder and the agents feed it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from agent_engines.adapters.memory.bus import MemoryBus
from agent_engines.adapters.memory.clock import ManualClock
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.domain import subjects
from agent_engines.domain.agents import AgentProfile, AgentState, Capability, Load
from agent_engines.domain.messages import Heartbeat, Report, ReportBatch, ReportKind, TaskMessage
from agent_engines.domain.tasks import TaskStatus
from agent_engines.engines import figures
from agent_engines.engines.figures import Figures, Outcome
from agent_engines.engines.fitting import fitting
from agent_engines.engines.performance import PerformanceEngine
from agent_engines.ports.connections import Connections

FIGURES = {
    "count",
    "errors",
    "rate_per_s",
    "error_rate",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "quality",
    "cost",
    "anomalies",
}
LOAD = {"queue", "running", "slots", "queue_size", "replicas", "utilization", "capacity_used"}


class Bench:
    """A started engine with everything around it in memory."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.bus = MemoryBus(clock=self.clock)
        self.telemetry = NullTelemetry()
        self.engine = PerformanceEngine()
        self.connections = Connections(bus=self.bus, telemetry=self.telemetry, clock=self.clock)

    async def recorded(self, *reports: Report, origin: str = "caller") -> None:
        await self.bus.signals.send(subjects.outcomes(origin), msgspec.json.encode(ReportBatch(reports=reports)))
        await self.clock.advance(0)

    async def beat(self, agent: str = "svm", replica: str = "a", **changes: Any) -> None:
        load = Load(**{name: changes.pop(name) for name in ("slots", "running", "queued") if name in changes})
        profile = AgentProfile(name=agent, capabilities=(Capability(task_type="read"),))
        beat = Heartbeat(
            agent=agent,
            replica=replica,
            state=changes.pop("state", AgentState.READY),
            load=load,
            sent_at=self.clock.now(),
            profile=changes.pop("profile", profile),
        )
        await self.bus.signals.send(subjects.heartbeat(agent), msgspec.json.encode(beat))
        await self.clock.advance(0)

    async def ask(self, what: str) -> dict[str, Any]:
        answer = asyncio.create_task(self.bus.signals.ask(subjects.ask("performance", what), b"{}", 5.0))
        await self.clock.advance(0)
        return json.loads(await answer)

    def warnings(self) -> list[str]:
        return [line.message for line in self.telemetry.lines if line.level == "warning"]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    found = Bench()
    await found.engine.start(found.connections)
    await found.clock.advance(0)
    yield found
    await found.engine.stop(0)


def report(agent: str | None = "svm", *, ms: float | None = 10.0, **changes: Any) -> Report:
    given: dict[str, Any] = {
        "kind": ReportKind.FINAL,
        "task_id": "t",
        "request_id": "r",
        "task_type": "read",
        "status": TaskStatus.SUCCESS,
        **changes,
    }
    return Report(agent=agent, execution_time_ms=ms, **given)


async def test_the_report_has_a_row_for_each_agent_and_one_for_each_of_its_task_types(bench: Bench) -> None:
    await bench.beat(slots=4, running=1)
    await bench.recorded(
        *(report(ms=float(n)) for n in range(1, 101)), report(task_type="write", quality=0.5, cost=2.0)
    )
    found = await bench.ask("report")
    assert found["window_seconds"] == 60.0
    assert found["generated_at"] == bench.clock.now()
    whole, read, write = found["agents"]
    assert (whole["agent"], whole["task_type"], whole["count"]) == ("svm", None, 101)
    assert set(whole) == FIGURES | LOAD | {"agent", "task_type"}
    assert set(read) == FIGURES | {"agent", "task_type"}
    assert (read["task_type"], read["count"]) == ("read", 100)
    assert read["p50_ms"] == pytest.approx(50, rel=0.02)
    assert read["p99_ms"] == pytest.approx(99, rel=0.02)
    assert (write["quality"], write["cost"]) == (0.5, 2.0)
    assert (whole["slots"], whole["running"], whole["utilization"]) == (4, 1, 0.25)
    assert found["fleet"]["count"] == 101
    assert found["fleet"]["agents"] == 1


async def test_retries_and_failures_are_errors_and_neither_starts_nor_cancelled_tasks_count(bench: Bench) -> None:
    await bench.recorded(
        report(),
        report(kind=ReportKind.RETRY, status=TaskStatus.RETRYING),
        report(status=TaskStatus.FAILED),
        report(status=TaskStatus.EXPIRED, ms=None),
        report(kind=ReportKind.STARTED, status=TaskStatus.RUNNING),
        report(status=TaskStatus.CANCELLED),
        report(None, status=TaskStatus.EXPIRED),
    )
    row = (await bench.ask("report"))["agents"][0]
    assert (row["count"], row["errors"], row["error_rate"]) == (4, 3, 0.75)


async def test_figures_are_of_the_last_minute_and_the_timeline_of_the_last_five(bench: Bench) -> None:
    await bench.recorded(report())
    await bench.clock.advance(90)
    await bench.recorded(report(status=TaskStatus.FAILED))
    await bench.clock.advance(6)
    found = await bench.ask("report")
    assert found["agents"][0]["count"] == 1
    timeline = found["fleet"]["timeline"]
    assert (timeline["slice_seconds"], len(timeline["counts"])) == (5.0, 59)
    assert (sum(timeline["counts"]), sum(timeline["errors"])) == (2, 1)


async def test_scaling_follows_the_matrix_on_what_waits_in_the_replicas(bench: Bench) -> None:
    await bench.beat(replica="a", slots=10, running=10, queued=300)
    await bench.beat(replica="b", slots=10, running=5, queued=300)
    await bench.beat("calm", slots=10)
    found = await bench.ask("scaling")
    calm, svm = found["agents"]
    assert (calm["action"], calm["add_replicas"], calm["capacity_warning"]) == ("none", 0, False)
    assert (svm["queue"], svm["replicas"], svm["slots"], svm["running"]) == (600, 2, 20, 15)
    assert (svm["action"], svm["add_replicas"]) == ("scale_up", 1)
    assert svm["reason"].startswith("600 waiting")
    assert found["fleet"] == {"action": "scale_up", "add_replicas": 1, "queue": 600, "capacity_warnings": []}
    assert set(svm) == LOAD | {"agent", "capacity_warning", "action", "add_replicas", "reason"}


async def test_work_that_still_waits_on_the_bus_counts_as_queue(bench: Bench) -> None:
    await bench.beat(slots=2, running=2)
    await bench.bus.tasks.open_inbox("svm")
    for number in range(1203):
        await bench.bus.tasks.publish_task(
            TaskMessage(task_id=f"t{number}", request_id="r", task_type="read", agent="svm")
        )
    await bench.engine.measure_backlog()
    (row,) = (await bench.ask("scaling"))["agents"]
    assert (row["queue"], row["action"], row["add_replicas"]) == (1201, "emergency", 3)


async def test_a_bus_that_is_away_leaves_what_the_replicas_say(bench: Bench) -> None:
    await bench.beat(slots=2, running=2, queued=150)
    bench.bus.switch(False)
    await bench.engine.measure_backlog()
    bench.bus.switch(True)
    assert (await bench.ask("scaling"))["agents"][0]["queue"] == 150


async def test_capacity_is_warned_of_once_an_episode_and_cleared(bench: Bench) -> None:
    warning = "Agent is at 80 % of its capacity or more"
    await bench.beat(slots=10, running=8)
    bench.engine.tick()
    bench.engine.tick()
    assert bench.warnings().count(warning) == 1
    assert (await bench.ask("scaling"))["fleet"]["capacity_warnings"] == ["svm"]
    await bench.beat(slots=10, running=1)
    await bench.clock.advance(31)
    await bench.beat(slots=10, running=1)
    bench.engine.tick()
    assert (await bench.ask("scaling"))["agents"][0]["capacity_warning"] is False
    assert "Agent is back under 80 % of its capacity" in bench.telemetry.messages("info")
    await bench.beat(slots=10, running=9)
    bench.engine.tick()
    assert bench.warnings().count(warning) == 2


async def test_advice_to_add_replicas_is_logged_once_and_again_when_it_gets_urgent(bench: Bench) -> None:
    for queued in (600, 550, 1500, 1400, 700, 0, 600):
        await bench.beat(slots=10, queued=queued)
        bench.engine.tick()
    assert bench.warnings().count("More replicas are advised") == 3


async def test_gauges_are_named_by_agent(bench: Bench) -> None:
    await bench.beat(slots=4, running=1, queued=3)
    await bench.recorded(report(), report(status=TaskStatus.FAILED))
    bench.engine.tick()
    label = (("agent_name", "svm"),)
    found = {name: value for (name, labels), value in bench.telemetry.gauges.items() if labels == label}
    assert found["agent_utilization_ratio"] == 0.25
    assert found["agent_waiting_tasks"] == 3.0
    assert found["agent_error_ratio"] == 0.5
    assert found["agent_scale_up_replicas"] == 0.0
    assert found["agent_tasks_per_second"] > 0


async def test_the_gauges_of_a_forgotten_agent_go_with_it(bench: Bench) -> None:
    """They would advise replicas for an agent that is gone until the process ends, and grow with every name."""
    await bench.beat(slots=4, running=1, queued=600)
    bench.engine.tick()
    assert ("agent_scale_up_replicas", (("agent_name", "svm"),)) in bench.telemetry.gauges
    await bench.clock.advance(figures.SILENT_SECONDS + 5)
    bench.engine.tick()
    assert not [key for key in bench.telemetry.gauges if ("agent_name", "svm") in key[1]]


async def test_silent_replicas_are_dropped_and_stopped_ones_at_once(bench: Bench) -> None:
    await bench.beat(replica="a", slots=4)
    await bench.beat(replica="b", slots=4, state=AgentState.STOPPED)
    assert (await bench.ask("scaling"))["agents"][0]["slots"] == 4
    await bench.clock.advance(95)
    bench.engine.tick()
    assert (await bench.ask("scaling"))["agents"][0]["replicas"] == 0


async def test_agents_nobody_hears_of_any_more_are_forgotten(bench: Bench) -> None:
    await bench.beat()
    await bench.recorded(report(), report("other"))
    await bench.clock.advance(figures.SILENT_SECONDS + 5)
    bench.engine.tick()
    assert (await bench.ask("report"))["agents"] == []
    assert not bench.engine.figures.work
    assert not bench.engine.figures.members


async def test_engines_that_perform_nothing_are_no_part_of_the_fleet(bench: Bench) -> None:
    await bench.beat("performance", profile=AgentProfile(name="performance", agent_type="performance"))
    assert (await bench.ask("scaling"))["agents"] == []
    assert (await bench.ask("report"))["agents"] == []


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b'{"reports":[{"kind":1}]}', b"\xff\xfe", b"[" * 100_000])
async def test_messages_that_cannot_be_read_are_logged_and_change_nothing(bench: Bench, junk: bytes) -> None:
    await bench.bus.signals.send(subjects.outcomes("x"), junk)
    await bench.bus.signals.send(subjects.heartbeat("x"), junk)
    await bench.recorded(report())
    assert (await bench.ask("report"))["agents"][0]["count"] == 1
    assert "Reports could not be read" in bench.warnings()
    assert "A heartbeat could not be read" in bench.warnings()


async def test_one_document_serves_all_who_ask_within_a_second(bench: Bench) -> None:
    first = await bench.ask("report")
    await bench.recorded(report())
    assert await bench.ask("report") == first
    await bench.clock.advance(1)
    assert (await bench.ask("report"))["agents"] != []


async def test_a_report_too_large_for_the_bus_leaves_out_the_least_and_says_how_many(bench: Bench) -> None:
    for number in range(30):
        await bench.beat(f"agent-{number}")
        await bench.recorded(*[report(agent=f"agent-{number}", task_type=kind) for kind in ("a", "b", "b", "c")])
    whole = await bench.ask("report")
    assert (len(whole["agents"]), whole["left_out"]) == (120, 0)
    await bench.clock.advance(2)
    bench.bus._max_message_bytes = 20_000
    found = await bench.ask("report")
    assert len(json.dumps(found, separators=(",", ":"))) <= 20_000
    assert len(found["agents"]) == 120 - found["left_out"] > 30
    assert sum(row["task_type"] is None for row in found["agents"]) == 30
    assert sum(row["task_type"] == "b" for row in found["agents"]) == 30
    assert [row["agent"] for row in found["agents"]] == sorted(row["agent"] for row in found["agents"])
    assert found["fleet"] == {**whole["fleet"], "rate_per_s": found["fleet"]["rate_per_s"]}


def test_a_limit_nothing_fits_into_leaves_the_frame() -> None:
    document = {"agents": [{"agent": "a"}] * 50, "generated_at": 1.0}
    data = fitting(document, "agents", lambda row: 0.0, 10)
    assert json.loads(data) == {"agents": [], "generated_at": 1.0, "left_out": 50}


async def test_a_stopped_engine_listens_to_nothing_and_leaves_nothing_running() -> None:
    bench = Bench()
    await bench.engine.start(bench.connections)
    await bench.engine.stop(0)
    await bench.engine.stop(0)
    await bench.recorded(report())
    assert not bench.engine.figures.work
    assert [task.get_name() for task in asyncio.all_tasks() if "performance" in task.get_name()] == []


def test_names_from_outside_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MOST_WORK", 10)
    monkeypatch.setattr(figures, "MOST_AGENTS", 10)
    known = Figures()
    for number in range(50):
        known.outcomes([Outcome("final", f"type-{number}", "svm", "success")], 1.0)
        beat = Heartbeat(agent=f"a{number}", replica="r", state=AgentState.READY, load=Load(), sent_at=1.0)
        known.heartbeat(beat, 1.0)
    assert len(known.work) == 10
    assert len(known.members) == 10
    assert ("svm", "type-49") in known.work


def test_an_agent_that_gets_slow_shows_up_as_an_anomaly() -> None:
    known = Figures()
    for second in range(600):
        milliseconds = 10.0 if second < 590 else 80.0
        known.outcomes([Outcome("final", "read", "svm", "success", milliseconds)] * 4, float(second))
        known.tick(float(second))
    known.tick(601.0)
    (whole, read) = known.report(601.0, 0.0)["agents"]
    assert [found["signal"] for found in read["anomalies"]] == ["latency"]
    assert read["anomalies"][0]["value"] == pytest.approx(80, rel=0.02)
    assert read["anomalies"][0]["usual"] == pytest.approx(10, rel=0.02)
    assert whole["anomalies"] == read["anomalies"]
