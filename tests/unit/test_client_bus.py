"""The client over the bus: one message of many submissions, one subscription for all outcomes."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from agent_engines.adapters.memory.bus import MemoryBus
from agent_engines.client import Client, ClientOptions, Unreachable
from agent_engines.client import bus_outcomes as outcomes_module
from agent_engines.client import unasked as unasked_module
from agent_engines.client.bus_transport import BusTransport
from agent_engines.domain import subjects
from agent_engines.domain.errors import InvalidRequest, NotFound, TaskFailed
from agent_engines.domain.messages import (
    Acceptance,
    AgentQuery,
    Answer,
    Progress,
    Refusal,
    Report,
    ReportBatch,
    ReportKind,
    SubmitBatch,
    SubmitReply,
    SubmitResult,
    TaskQuery,
    TasksQuery,
)
from agent_engines.domain.tasks import TaskError, TaskStatus, TaskView

encode = msgspec.json.encode


def acceptance(task_id: str) -> Acceptance:
    return Acceptance(
        task_id=task_id,
        request_id=task_id,
        status=TaskStatus.QUEUED,
        selected_agent="a",
        confidence=0.9,
        propensity=0.5,
        strategy="adaptive",
        reasoning="because",
        policy_version="v1",
    )


def final(
    task_id: str, result: Any = None, status: TaskStatus = TaskStatus.SUCCESS, error: TaskError | None = None
) -> Report:
    return Report(
        kind=ReportKind.FINAL,
        task_id=task_id,
        request_id=task_id,
        task_type="echo",
        agent="a",
        status=status,
        result=msgspec.Raw(encode(result)),
        error=error,
        attempt=2,
    )


class Router:
    """The other side of the bus: accepts what comes, remembers it, answers questions as the test says."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        self.batches: list[SubmitBatch] = []
        self.asked: list[str] = []
        self.views: dict[str, TaskView] = {}
        self.before_reply: Callable[[SubmitBatch], Any] | None = None
        self.questions: list[list[str]] = []
        self.most = 1000
        self.before_answer: Callable[[], Any] | None = None

    async def start(self, *, knows_many: bool = True) -> None:
        if knows_many:
            await self.bus.signals.listen(subjects.ask("intelligence", "several"), self._several)
        await self.bus.signals.listen(subjects.SUBMIT, self._submit, queue="intelligence")
        await self.bus.signals.listen(subjects.ask("intelligence", "task"), self._task)

    async def outcome(self, *reports: Report) -> None:
        origin = self.batches[-1].origin
        await self.bus.signals.send(subjects.recorded(origin), encode(ReportBatch(reports=reports)))

    async def _submit(self, _: str, data: bytes) -> bytes:
        batch = msgspec.json.decode(data, type=SubmitBatch)
        self.batches.append(batch)
        if self.before_reply is not None:
            await self.before_reply(batch)
        results = [SubmitResult(accepted=acceptance(f"t{request.payload}")) for request in batch.requests]
        return encode(SubmitReply(results=tuple(results)))

    def end(self, *task_ids: str, status: TaskStatus = TaskStatus.SUCCESS) -> None:
        """They have ended, and nobody is told."""
        fields = {"task_type": "echo", "selected_agent": "a", "priority": 3, "attempts": 1, "submitted_at": 0.0}
        for name in task_ids:
            self.views[name] = TaskView(
                task_id=name, request_id=name, status=status, result=f"{name} asked for", **fields
            )

    async def _several(self, _: str, data: bytes) -> bytes:
        task_ids = msgspec.json.decode(data, type=TasksQuery).task_ids
        self.questions.append(task_ids)
        assert len(task_ids) <= 500
        found = [self.views[one] for one in sorted(set(task_ids)) if one in self.views]
        if self.before_answer is not None:
            await self.before_answer()
        value = {"items": found[: self.most], "more": len(found) > self.most}
        return encode(Answer(value=msgspec.Raw(encode(value))))

    async def _task(self, _: str, data: bytes) -> bytes:
        task_id = msgspec.json.decode(data, type=TaskQuery).task_id
        self.asked.append(task_id)
        view = self.views.get(task_id)
        if view is None:
            return encode(Answer(refused=Refusal(kind="NotFound", detail=f"no task {task_id}")))
        return encode(Answer(value=msgspec.Raw(encode(view))))


@pytest.fixture
async def router() -> AsyncIterator[Router]:
    made = Router(MemoryBus())
    await made.start()
    yield made
    await made.bus.close()


async def opened(router: Router, **options: Any) -> Client:
    chosen = ClientOptions(**{"retry_seconds": 0.0, **options})
    made = Client(transport=await BusTransport.open(router.bus, chosen, owns_bus=False), options=chosen)
    await made.open()
    return made


async def test_submissions_made_at_the_same_time_are_one_message_and_outcomes_one_subscription(router: Router) -> None:
    client = await opened(router, lanes=1)
    handles = await asyncio.gather(*(client.submit("echo", n) for n in range(400)))
    results = asyncio.gather(*(handle.result(5) for handle in handles))
    await asyncio.sleep(0)
    await router.outcome(*(final(handle.task_id, {"of": handle.task_id}) for handle in handles))
    assert await results == [{"of": f"t{n}"} for n in range(400)]
    assert len(router.batches) == 1
    assert router.asked == []
    await client.close()


async def test_an_outcome_that_is_faster_than_the_reply_is_not_lost(router: Router) -> None:
    async def at_once(batch: SubmitBatch) -> None:
        await router.outcome(*(final(f"t{request.payload}", "early") for request in batch.requests))

    router.before_reply = at_once
    client = await opened(router)
    handle = await client.submit("echo", 1)
    assert await handle.result(5) == "early"
    await client.close()


async def test_a_lost_signal_is_made_up_for_by_asking(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes_module, "ASK_AGAIN_SECONDS", 0.01)
    client = await opened(router)
    handle = await client.submit("echo", 1)
    router.views["t1"] = TaskView(
        task_id="t1",
        request_id="t1",
        task_type="echo",
        status=TaskStatus.SUCCESS,
        selected_agent="a",
        priority=3,
        attempts=1,
        submitted_at=1.0,
        result="asked for",
    )
    assert await handle.result(5) == "asked for"
    await client.close()


async def test_reports_that_end_nothing_wake_nobody(router: Router) -> None:
    client = await opened(router)
    handle = await client.submit("echo", 1)
    waiting = asyncio.ensure_future(handle.result(5))
    await asyncio.sleep(0)
    await router.outcome(msgspec.structs.replace(final("t1"), kind=ReportKind.RETRY, status=TaskStatus.RETRYING))
    await router.outcome(final("t1", 7))
    assert await waiting == 7
    await client.close()


async def test_a_task_that_ended_badly_raises(router: Router) -> None:
    client = await opened(router)
    handle = await client.submit("echo", 1)
    waiting = asyncio.ensure_future(handle.result(5))
    await asyncio.sleep(0)
    await router.outcome(final("t1", status=TaskStatus.FAILED, error=TaskError("ValueError", "no")))
    with pytest.raises(TaskFailed, match="ValueError: no"):
        await waiting
    assert (await handle.outcome()).attempts == 2
    await client.close()


async def test_no_router_is_unreachable() -> None:
    bus = MemoryBus()
    options = ClientOptions(retry_seconds=0.0, request_timeout=0.05)
    async with Client(transport=await BusTransport.open(bus, options), options=options) as client:
        with pytest.raises(Unreachable, match="no router answered"):
            await client.submit("echo", 1)
        with pytest.raises(Unreachable):
            await client.task("t1")


async def test_a_refusal_of_a_question_becomes_its_error(router: Router) -> None:
    client = await opened(router)
    with pytest.raises(NotFound, match="no task t9"):
        await client.task("t9")
    await client.close()


async def test_messages_stay_under_the_bus_s_limit() -> None:
    router = Router(MemoryBus(max_message_bytes=16_384))
    await router.start()
    seen: list[int] = []

    async def note(batch: SubmitBatch) -> None:
        seen.append(len(encode(batch)))

    router.before_reply = note
    client = await opened(router, lanes=1)
    await client.submit_many([("echo", "x" * 3000) for _ in range(20)])
    assert len(seen) > 1
    assert max(seen) < 16_384
    await client.close()


async def test_remembered_outcomes_are_bounded(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unasked_module, "REMEMBERED", 3)
    client = await opened(router)
    await client.submit("echo", 0)
    await router.outcome(*(final(f"t{n}", n) for n in range(10)))
    await asyncio.sleep(0.01)
    assert await client.handle("t9").result(1) == 9
    with pytest.raises((TimeoutError, NotFound)):
        await client.handle("t0").result(0.01)
    await client.close()


async def test_what_was_dropped_is_asked_for_at_once(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unasked_module, "REMEMBERED", 3)
    monkeypatch.setattr(outcomes_module, "ASK_AGAIN_SECONDS", 1000.0)
    client = await opened(router)
    await client.submit("echo", 0)
    await told(router, 10)
    assert [await client.handle(f"t{n}").result(10) for n in (0, 6, 9)] == ["t0 asked for", "t6 asked for", 9]
    await client.close()


async def told(router: Router, count: int) -> None:
    """So many tasks have ended, and the client has heard it."""
    router.end(*(f"t{n}" for n in range(count)))
    for start in range(0, count, 500):
        await router.outcome(*(final(f"t{n}", n) for n in range(start, min(start + 500, count))))
    await asyncio.sleep(0.01)


ORDERS: dict[str, Callable[[list[int]], list[int]]] = {
    "as they were submitted": lambda ids: ids,
    "backwards": lambda ids: ids[::-1],
    "by five readers in turn": lambda ids: [
        ids[len(ids) // 5 * reader + at] for at in range(len(ids) // 5) for reader in range(5)
    ],
}


@pytest.mark.parametrize("order", ORDERS)
async def test_a_loop_over_many_dropped_outcomes_takes_few_questions_and_brings_each_one(
    router: Router, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    monkeypatch.setattr(unasked_module, "REMEMBERED", 1000)
    monkeypatch.setattr(outcomes_module, "ASK_AGAIN_SECONDS", 1000.0)
    client = await opened(router)
    await client.submit("echo", 0)
    await told(router, 21_000)
    for n in ORDERS[order](list(range(21_000))):
        assert await client.handle(f"t{n}").result(10) == (f"t{n} asked for" if n < 20_000 else n)
    assert len(router.questions) <= 20_000 / 500 + 5
    assert router.asked == []
    await client.close()


async def test_all_who_wait_for_dropped_outcomes_share_questions(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unasked_module, "REMEMBERED", 3)
    monkeypatch.setattr(outcomes_module, "ASK_AGAIN_SECONDS", 1000.0)
    client = await opened(router)
    await client.submit("echo", 0)
    await told(router, 2003)
    handles = [client.handle(f"t{n}") for n in range(2000)]
    assert await asyncio.gather(*(handle.result(10) for handle in handles)) == [f"t{n} asked for" for n in range(2000)]
    assert len(router.questions) <= 2000 / 500 + 1
    await client.close()


async def test_outcomes_wanted_in_no_order_cost_hardly_more_than_asked_for_one_by_one(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unasked_module, "REMEMBERED", 3)
    monkeypatch.setattr(unasked_module, "AHEAD", 500)
    monkeypatch.setattr(outcomes_module, "ASK_AGAIN_SECONDS", 1000.0)
    client = await opened(router)
    await client.submit("echo", 0)
    await told(router, 20_003)
    wanted = random.Random(7).sample(range(20_000), 3_000)
    for n in wanted:
        assert await client.handle(f"t{n}").result(10) == f"t{n} asked for"
    assert sum(map(len, router.questions)) <= 4 * len(wanted) + 500
    await client.close()


async def test_an_answer_that_does_not_fit_into_a_message_is_asked_for_in_parts(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unasked_module, "REMEMBERED", 3)
    monkeypatch.setattr(outcomes_module, "ASK_AGAIN_SECONDS", 1000.0)
    router.most = 40
    client = await opened(router)
    await client.submit("echo", 0)
    await told(router, 1003)
    for n in reversed(range(1000)):
        assert await client.handle(f"t{n}").result(10) == f"t{n} asked for"
    assert router.asked == []
    assert len(router.questions) <= 4 * 1000 / 40
    handles = [client.handle(f"t{n}") for n in range(200)]
    assert await asyncio.gather(*(handle.result(10) for handle in handles)) == [f"t{n} asked for" for n in range(200)]
    await client.close()


async def test_an_older_router_is_asked_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unasked_module, "REMEMBERED", 3)
    monkeypatch.setattr(outcomes_module, "ASK_AGAIN_SECONDS", 1000.0)
    router = Router(MemoryBus())
    await router.start(knows_many=False)
    client = await opened(router)
    await client.submit("echo", 0)
    await told(router, 100)
    assert [await client.handle(f"t{n}").result(10) for n in range(5)] == [f"t{n} asked for" for n in range(5)]
    handles = [client.handle(f"t{n}") for n in range(5, 97)]
    assert len(await asyncio.gather(*(handle.result(10) for handle in handles))) == 92
    assert sorted(router.asked) == sorted(f"t{n}" for n in range(97))
    await client.close()
    await router.bus.close()


async def test_a_router_that_learns_the_question_for_many_is_asked_it_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unasked_module, "REMEMBERED", 3)
    monkeypatch.setattr(outcomes_module, "ALONE_SECONDS", 0.0)
    router = Router(MemoryBus())
    await router.start(knows_many=False)
    client = await opened(router)
    await client.submit("echo", 0)
    await told(router, 100)
    assert await client.handle("t0").result(10) == "t0 asked for"
    await router.start()
    assert [await client.handle(f"t{n}").result(10) for n in range(1, 97)] == [f"t{n} asked for" for n in range(1, 97)]
    assert (router.asked, len(router.questions)) == (["t0"], 1)
    await client.close()
    await router.bus.close()


async def test_while_no_router_answers_those_who_wait_wait_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unasked_module, "REMEMBERED", 3)
    monkeypatch.setattr(outcomes_module, "ASK_AGAIN_SECONDS", 0.01)
    router = Router(MemoryBus())
    await router.start()
    client = await opened(router)
    await client.submit("echo", 0)
    await told(router, 100)
    router.bus.switch(False)
    waiting = [asyncio.ensure_future(client.handle(f"t{n}").result(10)) for n in range(50)]
    await asyncio.sleep(0.05)
    assert not any(one.done() for one in waiting)
    router.bus.switch(True)
    assert await asyncio.gather(*waiting) == [f"t{n} asked for" for n in range(50)]
    # It was not taken for an older router.
    assert router.asked == []
    await client.close()
    await router.bus.close()


async def test_one_unknown_task_is_its_own_caller_s_error(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unasked_module, "REMEMBERED", 3)
    client = await opened(router)
    await client.submit("echo", 0)
    await told(router, 20)
    names = ["t0", "nothing", "t1", "\ud800"]
    found = await asyncio.gather(*(client.handle(name).result(10) for name in names), return_exceptions=True)
    assert [found[0], found[2]] == ["t0 asked for", "t1 asked for"]
    assert isinstance(found[1], NotFound)
    assert isinstance(found[3], Exception)
    await client.close()


async def test_what_was_asked_for_ahead_is_forgotten_when_the_task_runs_again(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def again(_: str, data: bytes) -> bytes:
        router.end("t1", "t2", status=TaskStatus.RUNNING)
        return encode(Answer(value=msgspec.Raw(b'{"status":"queued"}')))

    async def meanwhile() -> None:
        if len(router.questions) == 1:
            await client.transport.act("tasks/t1:retry")

    await router.bus.signals.listen(subjects.ask("intelligence", "retry"), again)
    monkeypatch.setattr(unasked_module, "REMEMBERED", 3)
    client = await opened(router)
    await client.submit("echo", 0)
    await told(router, 20)
    router.before_answer = meanwhile
    assert await client.handle("t0").result(10) == "t0 asked for"
    await client.transport.act("tasks/t2:retry")
    waiting = [asyncio.ensure_future(client.handle(name).result(10)) for name in ("t1", "t2")]
    await asyncio.sleep(0.01)
    assert not any(one.done() for one in waiting)
    await router.outcome(final("t1", "again"), final("t2", "again"))
    assert await asyncio.gather(*waiting) == ["again", "again"]
    await client.close()


async def test_a_task_that_runs_again_is_waited_for_anew(router: Router) -> None:
    async def again(_: str, data: bytes) -> bytes:
        return encode(Answer(value=msgspec.Raw(b'{"status":"queued"}')))

    await router.bus.signals.listen(subjects.ask("intelligence", "retry"), again)
    client = await opened(router)
    handle = await client.submit("echo", 1)
    await router.outcome(final("t1", None, TaskStatus.FAILED))
    await asyncio.sleep(0.01)
    await client.transport.act("tasks/t1:retry")
    waiting = asyncio.ensure_future(handle.result(10))
    await asyncio.sleep(0.01)
    await router.outcome(final("t1", "done"))
    assert await waiting == "done"
    await client.close()


async def test_modes_of_agents_are_set_by_asking(router: Router) -> None:
    heard: list[AgentQuery] = []

    async def set_mode(_: str, data: bytes) -> bytes:
        heard.append(msgspec.json.decode(data, type=AgentQuery))
        return encode(Answer(value=msgspec.Raw(b'{"name":"a","status":"draining"}')))

    await router.bus.signals.listen(subjects.ask("intelligence", "set_mode"), set_mode)
    client = await opened(router)
    assert (await client.transport.act("agents/a:drain"))["status"] == "draining"
    assert heard == [AgentQuery(agent="a", mode="draining")]
    await client.close()


async def test_events_are_progress_and_the_end(router: Router) -> None:
    client = await opened(router)
    handle = await client.submit("echo", 1)
    await router.bus.reports.publish_progress(Progress(task_id="t1", fraction=0.5, message="half"))
    seen: list[tuple[str, Any]] = []
    async for event in handle.events():
        seen.append((event.event, event.data.get("fraction")))
        if event.event == "progress":
            await router.outcome(final("t1", 1))
    assert seen == [("progress", 0.5), ("success", None)]
    await client.close()


@pytest.mark.parametrize("field", ["payload", "metadata", "requirements"])
async def test_what_json_cannot_say_is_refused_by_its_field_and_the_others_go(router: Router, field: str) -> None:
    given: dict[str, Any] = {"task_type": "echo", "payload": 1, field: {"deep": [math.nan]}}
    client = await opened(router)
    try:
        bad, good = await client.submit_many([given, ("echo", {"nothing": None})], return_exceptions=True)
    finally:
        await client.close()
    assert isinstance(bad, InvalidRequest)
    assert bad.field == field
    assert good.task_id == "t{'nothing': None}"
    (batch,) = router.batches
    assert [request.payload for request in batch.requests] == [{"nothing": None}]
