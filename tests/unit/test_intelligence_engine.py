"""The whole router with real agents over the in-memory bus and ledger, and its doors on the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import msgspec
import pytest

from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.memory.bus import MemoryBus
from agent_engines.adapters.memory.cache import MemoryCache
from agent_engines.adapters.memory.ledger import MemoryLedger
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.domain import subjects
from agent_engines.domain.agents import AgentMode
from agent_engines.domain.decisions import Decision, DecisionContext
from agent_engines.domain.errors import (
    ConfigurationError,
    InvalidRequest,
    NoEligibleAgent,
    PermanentFailure,
    Unavailable,
)
from agent_engines.domain.messages import (
    AgentQuery,
    Answer,
    DecisionQuery,
    PageQuery,
    ReportQuery,
    SubmitBatch,
    SubmitReply,
    TaskQuery,
    TasksQuery,
)
from agent_engines.domain.tasks import TaskRequest, TaskStatus, TaskView
from agent_engines.engines.intelligence import IntelligenceEngine
from agent_engines.ports.connections import Connections
from agent_engines.ports.ledger import TaskFilter
from agent_engines.ports.service import IntelligenceService
from agent_engines.runtime import desk
from agent_engines.runtime.engine import Engine
from routing_house import until


class Town:
    """One router and one agent in one process."""

    def __init__(self) -> None:
        clock = SystemClock()
        self.telemetry = NullTelemetry()
        self.bus = MemoryBus(clock=clock)
        self.ledger = MemoryLedger(clock)
        self.connections = Connections(
            bus=self.bus,
            telemetry=self.telemetry,
            clock=clock,
            ledger=self.ledger,
            cache=MemoryCache(clock=clock),
        )
        self.router = IntelligenceEngine(seed=3)
        self.agent = Engine("worker", metadata={"region": "eu"})
        self.failures = 1

        @self.agent.task("echo")
        async def echo(payload: Any) -> Any:
            return payload

        @self.agent.task("flaky", max_attempts=3)
        async def flaky(payload: Any) -> str:
            if self.failures:
                self.failures -= 1
                raise ValueError("not yet")
            return "at last"

        @self.agent.task("hopeless")
        async def hopeless(payload: Any) -> None:
            raise PermanentFailure("never")

        @self.agent.task("forever")
        async def forever(payload: Any) -> None:
            await asyncio.Event().wait()

    async def submit(self, task_type: str, payload: Any = None, **fields: Any) -> str:
        (result,) = await self.router.submit([TaskRequest(task_type=task_type, payload=payload, **fields)])
        assert result.accepted is not None, result.refused
        return result.accepted.task_id

    async def ask(self, what: str, question: Any) -> Answer:
        data = await self.bus.signals.ask(subjects.ask("intelligence", what), msgspec.json.encode(question), 5.0)
        return msgspec.json.decode(data, type=Answer)

    async def value(self, what: str, question: Any, shape: Any = Any) -> Any:
        answer = await self.ask(what, question)
        assert answer.refused is None, answer.refused
        return msgspec.json.decode(answer.value, type=shape)

    async def submit_over_the_bus(self, data: bytes) -> SubmitReply:
        return msgspec.json.decode(await self.bus.signals.ask(subjects.SUBMIT, data, 5.0), type=SubmitReply)


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    town = Town()
    await town.router.start(town.connections)
    await town.agent.start(town.connections)
    async with asyncio.timeout(10):
        while (await town.router.ready()).status != "ready":
            await asyncio.sleep(0.01)
        await until(lambda: bool(town.telemetry.lines))
        while not any(line.message == "Agents registered" for line in town.telemetry.lines):
            await asyncio.sleep(0.01)
    yield town
    await town.agent.stop(0.1)
    await town.router.stop()
    await town.bus.close()


async def test_a_task_runs_and_its_waiter_gets_the_result(town: Town) -> None:
    task_id = await town.submit("echo", {"n": 1})
    view = await town.router.task(task_id, wait=10.0)
    assert (view.status, view.result, view.selected_agent) == (TaskStatus.SUCCESS, {"n": 1}, "worker")
    assert (await town.router.counts())["success"] == 1


async def test_waiters_are_woken_by_the_recorder_not_by_looking(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "LOOK_SECONDS", 60.0)
    async with asyncio.timeout(20):
        view = await town.router.task(await town.submit("flaky"), wait=600.0)
    assert view.status is TaskStatus.SUCCESS


async def test_a_thousand_tasks_all_come_back(town: Town) -> None:
    results = await town.router.submit([TaskRequest(task_type="echo", payload=n) for n in range(1000)])
    ids = [result.accepted.task_id for result in results if result.accepted is not None]
    views = await asyncio.gather(*(town.router.task(task_id, wait=30.0) for task_id in ids))
    assert [view.result for view in views] == list(range(1000))
    assert {view.status for view in views} == {TaskStatus.SUCCESS}


async def test_a_failed_attempt_is_repeated_until_it_works(town: Town) -> None:
    view = await town.router.task(await town.submit("flaky"), wait=20.0)
    assert (view.status, view.result, view.attempts) == (TaskStatus.SUCCESS, "at last", 2)
    names = [event.event async for event in town.router.events(view.task_id)]
    assert names == ["queued", "running", "retrying", "running", "success"]


async def test_a_failed_task_can_be_run_again(town: Town) -> None:
    task_id = await town.submit("hopeless")
    assert (await town.router.task(task_id, wait=10.0)).status is TaskStatus.FAILED
    assert (await town.router.retry(task_id)).status in {TaskStatus.QUEUED, TaskStatus.FAILED}
    assert (await town.router.task(task_id, wait=10.0)).status is TaskStatus.FAILED
    assert len(await town.router.attempts(task_id)) == 1


async def test_a_running_task_can_be_cancelled(town: Town) -> None:
    task_id = await town.submit("forever")
    async with asyncio.timeout(10):
        while (await town.router.task(task_id)).status is not TaskStatus.RUNNING:
            await asyncio.sleep(0.02)
        assert await town.router.cancel(task_id) is TaskStatus.RUNNING
        view = await town.router.task(task_id, wait=10.0)
    assert view.status is TaskStatus.CANCELLED


async def test_the_router_learns_from_outcomes(town: Town) -> None:
    for _ in range(10):
        await town.router.task(await town.submit("echo"), wait=10.0)
    async with asyncio.timeout(10):
        # Outcomes become lessons a moment after they are recorded.
        for ask in count():
            decision = await town.router.recommend(DecisionContext(request_id=f"r-{ask}", task_type="echo"))
            if decision.confidence > 0.9:
                break
            await asyncio.sleep(0.02)
    assert (await town.router.decision(decision.request_id)).selected_agent == "worker"


async def test_route_task_recommends_and_explains(town: Town) -> None:
    answer = await town.router.route_task(DecisionContext(request_id="r", task_type="echo", requirements={}))
    assert (answer.selected_agent, answer.strategy, answer.propensity) == ("worker", "adaptive", 1.0)
    assert 0 < answer.confidence <= 1
    assert "worker" in answer.reasoning
    assert answer.policy_version
    assert len(answer.candidates) == 1
    with pytest.raises(NoEligibleAgent):
        await town.router.route_task(DecisionContext(request_id="s", task_type="unknown"))


async def test_a_drained_agent_gets_nothing_until_it_is_resumed(town: Town) -> None:
    view = await town.router.set_mode("worker", AgentMode.DRAINING)
    assert view.status == "draining"
    (result,) = await town.router.submit([TaskRequest(task_type="echo")])
    assert result.refused is not None
    assert "draining by an operator" in result.refused.detail
    await town.router.set_mode("worker", AgentMode.ACTIVE)
    assert (await town.router.task(await town.submit("echo"), wait=10.0)).status is TaskStatus.SUCCESS


async def test_health_looks_at_every_server_and_ready_needs_an_agent(town: Town) -> None:
    health = await town.router.health()
    assert (health.status, health.checks) == ("healthy", {"nats": True, "postgres": True, "redis": True})
    other = IntelligenceEngine("intelligence-2")
    assert (await other.ready()).status == "not_ready"
    lonely = Town()
    await other.start(lonely.connections)
    readiness = await other.ready()
    assert (readiness.status, readiness.detail) == ("not_ready", "no agent has been heard from yet")
    await other.stop()


async def test_before_its_start_a_router_is_unavailable_and_it_needs_a_ledger() -> None:
    router: IntelligenceService = IntelligenceEngine()
    with pytest.raises(Unavailable):
        await router.tasks(TaskFilter())
    town = Town()
    without = Connections(bus=town.bus, telemetry=town.telemetry, clock=SystemClock())
    with pytest.raises(ConfigurationError, match="POSTGRES_URL"):
        await town.router.start(without)
    await town.router.stop()


async def test_reports_of_other_engines_are_asked_for_once_a_second(town: Town) -> None:
    asked: list[bytes] = []

    async def answer(_: str, data: bytes) -> bytes:
        asked.append(data)
        return b'{"agents":[]}'

    await town.bus.signals.listen(subjects.ask("performance", "report"), answer)
    assert await town.router.report("performance", "report") == {"agents": []}
    assert await town.router.report("performance", "report") == {"agents": []}
    assert len(asked) == 1
    with pytest.raises(Unavailable):
        await town.router.report("optimizing", "policies")
    with pytest.raises(InvalidRequest):
        await town.router.report("performance", "a.b")


async def test_a_stopped_router_takes_nothing_more() -> None:
    town = Town()
    await town.router.start(town.connections)
    await town.router.stop()
    await town.router.stop()
    with pytest.raises(Unavailable):
        await town.bus.signals.ask(subjects.SUBMIT, b"{}", 0.1)


# The gateway: the same service for clients on the bus.


async def test_submissions_over_the_bus_come_back_to_their_origin(town: Town) -> None:
    told: list[bytes] = []
    done = asyncio.Event()

    async def listen(_: str, data: bytes) -> None:
        told.append(data)
        done.set()

    await town.bus.signals.listen(subjects.recorded("client-1"), listen)
    batch = SubmitBatch(origin="client-1", requests=(TaskRequest(task_type="echo", payload={"a": 1}),))
    reply = await town.submit_over_the_bus(msgspec.json.encode(batch))
    accepted = reply.results[0].accepted
    assert accepted is not None
    await asyncio.wait_for(done.wait(), 10.0)
    assert accepted.task_id.encode() in told[0]
    view = await town.value("task", TaskQuery(task_id=accepted.task_id, wait_seconds=5.0), TaskView)
    assert (view.status, view.result) == (TaskStatus.SUCCESS, {"a": 1})


async def test_a_bad_request_in_a_batch_refuses_itself_only(town: Town) -> None:
    data = (
        b'{"origin":"c","requests":[{"task_type":"echo"},{"task_type":"echo","priority":"x"},{"nonsense":1},'
        b'{"task_type":"echo","payload":2}]}'
    )
    reply = await town.submit_over_the_bus(data)
    assert [result.accepted is not None for result in reply.results] == [True, False, False, True]
    refusals = [result.refused for result in reply.results if result.refused is not None]
    assert [(refusal.kind, refusal.field) for refusal in refusals] == [
        ("InvalidRequest", "priority"),
        ("InvalidRequest", "nonsense"),
    ]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "Malformed"),
        (b"{", "Malformed"),
        (b"[]", "InvalidRequest"),
        (b'{"origin":"a.b","requests":[{"task_type":"echo"}]}', "InvalidRequest"),
        (b'{"origin":"a","requests":[' + b",".join([b"{}"] * 2001) + b"]}", "InvalidRequest"),
    ],
)
async def test_a_batch_nobody_can_read_is_refused_as_a_whole(town: Town, data: bytes, kind: str) -> None:
    (result,) = (await town.submit_over_the_bus(data)).results
    assert result.refused is not None
    assert result.refused.kind == kind


async def test_an_answer_too_large_for_the_bus_leaves_out_the_reasoning(town: Town) -> None:
    town.bus._max_message_bytes = 30_000
    batch = SubmitBatch(origin="c", requests=tuple(TaskRequest(task_type="echo") for _ in range(100)))
    reply = await town.submit_over_the_bus(msgspec.json.encode(batch))
    assert len(reply.results) == 100
    assert {result.accepted.reasoning for result in reply.results if result.accepted is not None} == {""}


async def test_several_tasks_are_answered_as_each_would_be(town: Town) -> None:
    done, open_ = await town.submit("echo", {"n": 1}), await town.submit("forever")
    await town.router.task(done, wait=10.0)
    found = await town.value("several", TasksQuery(task_ids=[done, "nothing", open_, done]))
    each = [await town.value("task", TaskQuery(task_id=task_id)) for task_id in (done, open_)]
    assert sorted(found["items"], key=lambda item: item["task_id"]) == sorted(each, key=lambda item: item["task_id"])
    assert found["more"] is False


async def test_an_answer_about_several_tasks_fits_into_a_message_and_says_that_there_is_more(town: Town) -> None:
    payload = "x" * 10_000
    task_ids = [await town.submit("echo", payload) for _ in range(8)] + [await town.submit("echo", "y" * 60_000)]
    for task_id in task_ids:
        await town.router.task(task_id, wait=10.0)
    town.bus._max_message_bytes = 50_000
    seen: list[str] = []
    for more in (True, True, True):
        question = msgspec.json.encode(TasksQuery(task_ids=[one for one in task_ids if one not in seen]))
        data = await town.bus.signals.ask(subjects.ask("intelligence", "several"), question, 5.0)
        assert len(data) < 50_000
        found = msgspec.json.decode(msgspec.json.decode(data, type=Answer).value)
        assert found["more"] is more
        seen += [item["task_id"] for item in found["items"]]
    # One result is larger than any message: it can only be asked for by itself, over HTTP.
    assert seen == task_ids[:-1]


async def test_every_question_has_its_answer(town: Town) -> None:
    task_id = await town.submit("hopeless")
    await town.router.task(task_id, wait=10.0)
    decision = await town.value("recommend", DecisionContext(request_id="r", task_type="echo"), Decision)
    assert decision.selected_agent == "worker"
    assert (await town.value("decision", DecisionQuery(request_id="r")))["task_type"] == "echo"
    assert len((await town.value("decisions", {}))["items"]) == 2
    assert [item["task_id"] for item in (await town.value("tasks", TaskFilter()))["items"]] == [task_id]
    assert await town.value("counts", {}) == {"failed": 1}
    assert await town.value("attempts", TaskQuery(task_id=task_id)) == []
    agents = await town.value("agents", {})
    assert "worker" in [agent["name"] for agent in agents]
    assert (await town.value("agent", AgentQuery(agent="worker")))["status"] == "healthy"
    assert (await town.value("set_mode", AgentQuery(agent="worker", mode="quarantined")))["status"] == "quarantined"
    assert (await town.value("set_mode", AgentQuery(agent="worker", mode="active")))["status"] == "healthy"
    assert (await town.value("dead_letters", PageQuery()))["items"] == []
    assert (await town.value("retry", TaskQuery(task_id=task_id)))["task_id"] == task_id
    assert (await town.value("health", {}))["status"] == "healthy"
    assert (await town.value("ready", {}))["status"] == "ready"
    forever = await town.submit("forever")
    cancelled = await town.value("cancel", TaskQuery(task_id=forever))
    assert cancelled["task_id"] == forever


@pytest.mark.parametrize(
    ("what", "question", "kind", "field"),
    [
        ("task", {"task_id": "nothing"}, "NotFound", None),
        ("task", {}, "InvalidRequest", "task_id"),
        ("task", {"task_id": 7}, "InvalidRequest", "task_id"),
        ("several", {"task_ids": ["t"] * 1001}, "InvalidRequest", "task_ids"),
        ("several", {"task_ids": "t"}, "InvalidRequest", "task_ids"),
        ("several", {}, "InvalidRequest", "task_ids"),
        ("cancel", {"task_id": "nothing"}, "NotFound", None),
        ("redrive", {"task_id": "nothing"}, "NotFound", None),
        ("dead_letter", {"task_id": "nothing"}, "NotFound", None),
        ("decision", {"request_id": "nothing"}, "NotFound", None),
        ("agent", {"agent": "nobody"}, "NotFound", None),
        ("set_mode", {"agent": "worker", "mode": "asleep"}, "InvalidRequest", "mode"),
        ("recommend", {"request_id": "r", "task_type": "unknown"}, "NoEligibleAgent", None),
        ("report", ReportQuery(engine="performance", what="report"), "Unavailable", None),
    ],
)
async def test_questions_without_an_answer_are_refused_in_our_words(
    town: Town, what: str, question: Any, kind: str, field: str | None
) -> None:
    answer = await town.ask(what, question)
    assert answer.refused is not None
    assert (answer.refused.kind, answer.refused.field) == (kind, field)


async def test_an_unexpected_error_is_logged_and_not_told(town: Town) -> None:
    async def broken(wanted: TaskFilter) -> None:
        raise RuntimeError("a secret detail")

    town.ledger.reader.tasks = broken  # type: ignore[method-assign, assignment]
    answer = await town.ask("tasks", {})
    assert answer.refused is not None
    assert "secret" not in answer.refused.detail
    assert "A question failed" in town.telemetry.messages("error")
