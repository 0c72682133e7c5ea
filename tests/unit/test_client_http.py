"""The client over HTTP: batches, retries with the same key, waiting, events, clear errors."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from agent_engines.client import Client, ClientOptions, Unreachable
from agent_engines.client import http_transport as http_module
from agent_engines.client.http_transport import HttpTransport
from agent_engines.client.retrying import Patience, repeatable
from agent_engines.domain.errors import (
    Conflict,
    InvalidRequest,
    NoEligibleAgent,
    NotFound,
    QueueFull,
    TaskFailed,
    TooLarge,
    Unavailable,
)
from agent_engines.domain.tasks import TaskRequest, TaskStatus

Answer = tuple[int, Any, dict[str, str]]
QUEUE_FULL = {
    "type": "/docs#problem-queue-full",
    "title": "Queue full",
    "status": 429,
    "detail": "full",
    "request_id": "r",
}


def accepted(task_id: str = "t1") -> dict[str, Any]:
    return {
        "task_id": task_id,
        "request_id": task_id,
        "status": "queued",
        "selected_agent": "a",
        "confidence": 0.9,
        "propensity": 0.5,
        "strategy": "adaptive",
        "reasoning": "because",
        "policy_version": "v1",
        "durability": "committed",
    }


def task(status: str = "success", **changes: Any) -> dict[str, Any]:
    return {
        "task_id": "t1",
        "request_id": "t1",
        "task_type": "echo",
        "status": status,
        "selected_agent": "a",
        "priority": 3,
        "attempts": 1,
        "result": {"n": 1},
        "error": None,
        "execution_time_ms": 1.5,
        "submitted_at": "2026-01-02T03:04:05.678Z",
        "started_at": None,
        "completed_at": None,
        "trace_id": None,
        **changes,
    }


def problem(status: int, slug: str, **more: Any) -> Answer:
    content = {
        "type": f"/docs#problem-{slug}",
        "title": slug,
        "status": status,
        "detail": "why",
        "request_id": "r",
        **more,
    }
    return status, content, {}


class Stub:
    """A tiny server in this process: answers are given by the test, requests are remembered."""

    def __init__(self, answer: Callable[[str, str, Any], Answer | bytes]) -> None:
        self.answer = answer
        self.requests: list[tuple[str, str, Any]] = []
        self.headers: list[dict[str, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        query = scope["query_string"].decode()
        path = scope["path"] + (f"?{query}" if query else "")
        content = msgspec.json.decode(body) if body else None
        self.requests.append((scope["method"], path, content))
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        answer = self.answer(scope["method"], path, content)
        if isinstance(answer, bytes):
            status, data, headers = 200, answer, {"content-type": "text/event-stream"}
        else:
            status, value, headers = answer
            data = value if isinstance(value, bytes) else msgspec.json.encode(value)
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": data})


def client(stub: Stub, **options: Any) -> Client:
    chosen = ClientOptions(**{"retry_seconds": 0.0, **options})
    return Client(transport=HttpTransport("http://stub", chosen, app=stub), options=chosen)


def all_accepted(content: Any) -> Answer:
    results = [accepted(f"t{index}") for index, _ in enumerate(content["tasks"])]
    return 202, {"accepted": len(results), "refused": 0, "results": results}, {}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses are noted and not slept, so that retries take no time."""
    pauses: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float, result: Any = None) -> Any:
        if seconds > 0:
            pauses.append(seconds)
        return await real(0, result)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return pauses


async def test_submissions_made_at_the_same_time_travel_in_few_requests() -> None:
    stub = Stub(lambda _method, _path, content: all_accepted(content))
    async with client(stub, batch_size=500, lanes=2) as made:
        handles = await asyncio.gather(*(made.submit("echo", {"n": n}) for n in range(2000)))
    assert len(handles) == 2000
    assert {path for _, path, _ in stub.requests} == {"/v1/tasks:batch"}
    assert len(stub.requests) <= 5
    assert sorted(one["payload"]["n"] for _, _, content in stub.requests for one in content["tasks"]) == list(
        range(2000)
    )


async def test_a_refused_submission_is_repeated_with_the_same_key_after_the_time_the_server_asked_for(
    no_pauses: list[float],
) -> None:
    def answer(_method: str, _path: str, content: Any) -> Answer:
        if len(stub.requests) < 3:
            return 429, QUEUE_FULL, {"retry-after": "2"}
        return all_accepted(content)

    stub = Stub(answer)
    async with client(stub, retry_seconds=30.0) as made:
        handle = await made.submit("echo", 1)
    assert handle.task_id == "t0"
    keys = {content["tasks"][0]["idempotency_key"] for _, _, content in stub.requests}
    assert len(stub.requests) == 3
    assert len(keys) == 1
    assert len(no_pauses) == 2
    assert all(2.0 <= pause <= 3.0 for pause in no_pauses)


async def test_a_caller_s_own_key_is_kept() -> None:
    stub = Stub(lambda _method, _path, content: all_accepted(content))
    async with client(stub) as made:
        await made.submit("echo", idempotency_key="mine")
    assert stub.requests[0][2]["tasks"][0]["idempotency_key"] == "mine"


async def test_the_patience_ends() -> None:
    stub = Stub(lambda *_: (429, QUEUE_FULL, {"retry-after": "4"}))
    async with client(stub, retry_seconds=10.0) as made:
        with pytest.raises(QueueFull, match="full") as caught:
            await made.submit("echo")
    assert caught.value.retry_after == 4.0
    assert len(stub.requests) == 3


async def test_only_the_refused_ones_of_many_are_sent_again() -> None:
    def answer(_method: str, _path: str, content: Any) -> Answer:
        results: list[Any] = []
        for one in content["tasks"]:
            full = one["payload"] % 2 and len(stub.requests) == 1
            results.append({"error": QUEUE_FULL} if full else accepted(f"t{one['payload']}"))
        return 202, {"accepted": 1, "refused": 1, "results": results}, {}

    stub = Stub(answer)
    async with client(stub, retry_seconds=30.0) as made:
        handles = await made.submit_many([("echo", n) for n in range(10)])
    assert [handle.task_id for handle in handles] == [f"t{n}" for n in range(10)]
    assert [len(content["tasks"]) for _, _, content in stub.requests] == [10, 5]


async def test_many_go_in_chunks_and_progress_is_told() -> None:
    stub = Stub(lambda _method, _path, content: all_accepted(content))
    told: list[int] = []
    async with client(stub, batch_size=100) as made:
        requests = (TaskRequest(task_type="echo", payload=n) for n in range(250))
        handles = await made.submit_many(requests, on_progress=told.append)
    assert len(handles) == 250
    assert sorted(told) == [50, 100, 100]


async def test_each_of_many_may_be_written_in_three_ways() -> None:
    stub = Stub(lambda _method, _path, content: all_accepted(content))
    async with client(stub) as made:
        same = {"task_type": "echo", "payload": 1, "priority": 2}
        await made.submit_many([("echo", 1), TaskRequest(task_type="echo", payload=1, priority=2), same])
    (sent,) = (content["tasks"] for _, _, content in stub.requests)
    assert [(task["task_type"], task["payload"], task.get("priority", 3)) for task in sent] == [
        ("echo", 1, 3),
        ("echo", 1, 2),
        ("echo", 1, 2),
    ]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"task_type": "echo", "payloda": 1}, "no field 'payloda'"),
        ({"payload": 1}, "task_type is missing"),
        ("echo", "not str"),
        (("echo",), "not tuple"),
        (5, "not int"),
    ],
)
async def test_what_is_no_task_is_refused_before_anything_is_sent(item: Any, said: str) -> None:
    stub = Stub(lambda _method, _path, content: all_accepted(content))
    async with client(stub) as made:
        with pytest.raises(InvalidRequest, match=said):
            await made.submit_many([("echo", 1), item])
    assert stub.requests == []


async def test_one_bad_request_of_many_raises_or_takes_its_place() -> None:
    def answer(_method: str, _path: str, content: Any) -> Answer:
        error = problem(422, "invalid-request", field="priority")[1]
        return 202, {"results": [accepted("a"), {"error": error}][: len(content["tasks"])]}, {}

    stub = Stub(answer)
    async with client(stub) as made:
        answers = await made.submit_many([("echo", 1), ("echo", 2)], return_exceptions=True)
        with pytest.raises(InvalidRequest) as caught:
            await made.submit_many([("echo", 1), ("echo", 2)])
    assert answers[0].task_id == "a"
    assert isinstance(answers[1], InvalidRequest)
    assert caught.value.field == "priority"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (problem(400, "malformed"), InvalidRequest),
        (problem(409, "conflict"), Conflict),
        (problem(413, "too-large"), TooLarge),
        (problem(422, "invalid-request", field="x"), InvalidRequest),
        (problem(429, "queue-full"), QueueFull),
        (problem(503, "no-eligible-agent"), NoEligibleAgent),
        (problem(503, "unavailable"), Unavailable),
        ((502, b"<html>bad gateway</html>", {}), Unavailable),
    ],
)
async def test_each_refusal_becomes_its_error(answer: Answer, error: type[Exception]) -> None:
    async with client(Stub(lambda *_: answer)) as made:
        with pytest.raises(error) as caught:
            await made.submit("echo")
    assert type(caught.value).__name__ != "AgentEnginesError"


async def test_a_batch_that_is_too_large_is_sent_one_by_one() -> None:
    def answer(_method: str, _path: str, content: Any) -> Answer:
        return problem(413, "too-large") if len(content["tasks"]) > 1 else all_accepted(content)

    stub = Stub(answer)
    async with client(stub) as made:
        await made.submit_many([("echo", n) for n in range(3)])
    assert [len(content["tasks"]) for _, _, content in stub.requests] == [3, 1, 1, 1]


async def test_large_submissions_are_split_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "BATCH_BYTES", 2500)
    stub = Stub(lambda _method, _path, content: all_accepted(content))
    async with client(stub) as made:
        await made.submit_many([("echo", "x" * 1000) for _ in range(5)])
    assert [len(content["tasks"]) for _, _, content in stub.requests] == [2, 2, 1]


@pytest.mark.parametrize("payload", [math.nan, [1, {"deep": math.inf}], object(), {"x": "\ud800"}])
async def test_what_json_cannot_carry_is_refused_before_it_is_sent(payload: Any) -> None:
    stub = Stub(lambda _method, _path, content: all_accepted(content))
    async with client(stub) as made:
        with pytest.raises(InvalidRequest) as caught:
            await made.submit("echo", payload)
    assert caught.value.field == "payload"
    assert stub.requests == []


async def test_a_feature_that_is_no_number_is_refused_by_its_place_before_it_is_sent() -> None:
    stub = Stub(lambda _method, _path, content: all_accepted(content))
    async with client(stub) as made:
        with pytest.raises(InvalidRequest) as submitted:
            await made.submit("echo", features=[1.0, "long"])  # type: ignore[list-item]
        with pytest.raises(InvalidRequest) as asked:
            await made.recommend("echo", embedding=[None])  # type: ignore[list-item]
    assert (submitted.value.field, asked.value.field) == ("features[1]", "embedding[0]")
    assert stub.requests == []


async def test_a_null_in_the_payload_is_no_reason_to_refuse() -> None:
    stub = Stub(lambda _method, _path, content: all_accepted(content))
    async with client(stub) as made:
        await made.submit("echo", {"a": None, "b": [1.5, "null"]})
    assert stub.requests[0][2]["tasks"][0]["payload"] == {"a": None, "b": [1.5, "null"]}


async def test_an_absent_server_is_unreachable_and_an_unkeyed_submission_is_not_repeated() -> None:
    options = ClientOptions(retry_seconds=30.0, generate_keys=False)
    async with Client(transport=HttpTransport("http://user:hunter2@127.0.0.1:1", options), options=options) as made:
        with pytest.raises(Unreachable, match="does not answer") as caught:
            await made.submit("echo")
    assert "hunter2" not in str(caught.value)


def test_what_may_be_repeated() -> None:
    assert repeatable(QueueFull("x"), keyed=False)
    assert repeatable(Unreachable("x"), keyed=True)
    assert not repeatable(Unreachable("x"), keyed=False)
    assert not repeatable(Conflict("x"), keyed=True)


def test_pauses_grow_are_jittered_and_end_with_the_budget() -> None:
    patience = Patience(10.0, random.Random(1))
    pauses: list[float] = []
    while (pause := patience.pause(Unreachable("x"))) is not None:
        pauses.append(pause)
    assert pauses[0] <= 0.2 < pauses[2] <= 0.8
    assert sum(pauses) <= 10.0


async def test_a_result_is_waited_for_by_long_questions() -> None:
    def answer(_method: str, path: str, content: Any) -> Answer:
        if path == "/v1/tasks:batch":
            return all_accepted(content)
        return 200, task("running" if len(stub.requests) < 4 else "success"), {}

    stub = Stub(answer)
    async with client(stub) as made:
        handle = await made.submit("echo")
        assert await handle.result(timeout=5) == {"n": 1}
        assert await handle.result() == {"n": 1}
    assert [path for _, path, _ in stub.requests[1:]] == ["/v1/tasks/t0?wait=20"] * 3


async def test_waiting_goes_on_while_the_server_is_away() -> None:
    def answer(*_: Any) -> Answer:
        return problem(503, "unavailable") if len(stub.requests) < 3 else (200, task(), {})

    stub = Stub(answer)
    async with client(stub) as made:
        view = await made.handle("t1").outcome(5)
    assert view.status is TaskStatus.SUCCESS
    assert view.submitted_at == pytest.approx(1767323045.678)


async def test_a_task_that_ended_badly_raises_with_its_reason() -> None:
    error = {"type": "ValueError", "message": "no", "retryable": False}
    stub = Stub(lambda *_: (200, task("dead_letter", result=None, error=error), {}))
    async with client(stub) as made:
        with pytest.raises(TaskFailed, match="task t1 ended as dead_letter: ValueError: no"):
            await made.handle("t1").result()


async def test_a_result_that_does_not_come_in_time_is_a_timeout() -> None:
    never = asyncio.Event()

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        await never.wait()

    options = ClientOptions()
    async with Client(transport=HttpTransport("http://stub", options, app=silent), options=options) as made:
        with pytest.raises(TimeoutError):
            await made.handle("t1").result(timeout=0.01)


async def test_thousands_of_waiters_share_a_few_questions_and_then_ask_briefly() -> None:
    asking = 0
    most = 0

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        nonlocal asking, most
        asking += 1
        most = max(most, asking)
        waits.add(scope["query_string"])
        for _ in range(3):
            await asyncio.sleep(0)
        asking -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": msgspec.json.encode(task())})

    waits: set[bytes] = set()
    options = ClientOptions(waits=8)
    async with Client(transport=HttpTransport("http://stub", options, app=slow), options=options) as made:
        await asyncio.gather(*(made.handle(f"t{n}").result() for n in range(300)))
    assert most == 8
    assert b"wait=0.25" in waits


async def test_cancel_says_where_the_task_stands_or_that_it_has_ended() -> None:
    def answer(method: str, path: str, _: Any) -> Answer:
        assert (method, path.rpartition("/")[0]) == ("DELETE", "/v1/tasks")
        return (202, {"task_id": "t1", "status": "cancelled"}, {}) if path.endswith("t1") else problem(409, "conflict")

    async with client(Stub(answer)) as made:
        assert await made.handle("t1").cancel() is TaskStatus.CANCELLED
        with pytest.raises(Conflict):
            await made.handle("t2").cancel()


async def collected(events: AsyncIterator[Any]) -> list[tuple[str, str]]:
    return [(event.id, event.event) async for event in events]


async def test_events_survive_a_broken_stream_by_their_last_id() -> None:
    first = b'retry: 1000\n\nid: 1\nevent: queued\ndata: {}\n\n: still here\n\nid: 2\nevent: progress\ndata: {"fraction": 0.5}\n\n'
    second = b'id: 3\nevent: success\ndata: {"result": 1}\n\n'
    stub = Stub(lambda *_: first if len(stub.requests) == 1 else second)
    async with client(stub) as made:
        events = await collected(made.handle("t1").events())
    assert events == [("1", "queued"), ("2", "progress"), ("3", "success")]
    assert "last-event-id" not in stub.headers[0]
    assert stub.headers[1]["last-event-id"] == "2"


async def test_events_of_an_unknown_task_are_an_error() -> None:
    async with client(Stub(lambda *_: problem(404, "not-found"))) as made:
        with pytest.raises(NotFound):
            await collected(made.handle("nope").events())


async def test_events_of_a_task_seen_to_its_end_stop() -> None:
    async with client(Stub(lambda *_: (204, b"", {}))) as made:
        assert await collected(made.handle("t1").events()) == []


async def test_recommend_asks_for_a_decision() -> None:
    candidate = {
        "agent": "a",
        "replicas": 1,
        "slots": 1,
        "in_flight": 0,
        "service_ms": 1.0,
        "completion_ms": 1.0,
        "success": 0.9,
        "cost": 0.0,
        "age_seconds": 0.1,
    }
    decision = {
        **accepted(),
        "task_id": None,
        "task_type": "echo",
        "candidates": [candidate],
        "created_at": "2026-01-01T00:00:00.000Z",
    }
    stub = Stub(lambda *_: (200, decision, {}))
    async with client(stub) as made:
        recommendation = await made.recommend("echo", requirements={"gpu": True}, priority=1)
    assert (recommendation.selected_agent, recommendation.propensity) == ("a", 0.5)
    method, path, content = stub.requests[0]
    assert (method, path) == ("POST", "/v1/decisions")
    assert (content["requirements"], content["priority"]) == ({"gpu": True}, 1)


async def test_lists_pass_their_filters_and_the_key_is_sent() -> None:
    stub = Stub(lambda *_: (200, {"items": [], "next_cursor": None}, {}))
    async with client(stub, api_key="secret-key") as made:
        assert await made.tasks(status="failed", agent=None, limit=5) == {"items": [], "next_cursor": None}
        assert await made.agents() == []
    assert stub.requests[0][1] == "/v1/tasks?status=failed&limit=5"
    assert stub.headers[0]["authorization"] == "Bearer secret-key"


async def test_a_server_that_is_none_of_ours_is_named_as_such() -> None:
    async with client(Stub(lambda *_: (200, b"<html>hello</html>", {}))) as made:
        with pytest.raises(Exception, match="is this the URL of an intelligence engine"):
            await made.agents()
    async with client(Stub(lambda *_: (404, b"<html>nope</html>", {}))) as made:
        with pytest.raises(NotFound, match="is this the URL of an intelligence engine"):
            await made.agents()


async def test_a_client_that_is_not_open_says_so() -> None:
    with pytest.raises(Exception, match="the client is not open"):
        await Client("http://127.0.0.1:1").submit("echo")


async def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="http://"):
        await Client("gopher://x").open()
