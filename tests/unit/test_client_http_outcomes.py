"""Waiting for many over HTTP: few questions, none left when nobody waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import msgspec
import pytest

from agent_engines.client import Client, ClientOptions
from agent_engines.client import http_outcomes as outcomes_module
from agent_engines.client import unasked as unasked_module
from agent_engines.client.http_transport import HttpTransport
from agent_engines.domain.errors import AgentEnginesError, InvalidRequest, NotFound
from agent_engines.domain.tasks import TaskRequest


def name(number: int) -> str:
    return str(UUID(int=number))


class Server:
    """Tasks in this process, ended by the test. `most`: tasks in one answer; `knows_waits`: False for an older server."""

    def __init__(self, *, most: int = 1000, knows_waits: bool = True) -> None:
        self.most = most
        self.knows_waits = knows_waits
        self.tasks: list[str] = []
        self.ended: set[str] = set()
        self.news = asyncio.Event()
        self.questions: list[dict[str, Any]] = []
        self.reads: list[str] = []
        self.asking = 0
        self.refusals: list[int] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        content = msgspec.json.decode((await receive())["body"] or b"null")
        self.asking += 1
        try:
            status, body = await self.answer(scope["path"], content)
        finally:
            self.asking -= 1
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": msgspec.json.encode(body)})

    async def answer(self, path: str, content: Any) -> tuple[int, Any]:
        if path == "/v1/tasks:batch":
            return 202, {"results": [self.accept() for _ in content["tasks"]]}
        if path == "/v1/tasks:wait":
            if not self.knows_waits:
                return 405, {"status": 405, "detail": "no"}
            return await self.waited(content)
        task_id = path.rpartition("/")[2].removesuffix(":retry")
        self.reads.append(task_id)
        return (200, self.view(task_id)) if task_id in self.tasks else (404, {"status": 404, "detail": "no such task"})

    async def waited(self, content: Any) -> tuple[int, Any]:
        self.questions.append(content)
        if self.refusals:
            status = self.refusals.pop()
            return status, {"status": status, "detail": "refused"}
        assert 1 <= len(content["task_ids"]) <= 1000
        while not (found := [one for one in content["task_ids"] if one in self.ended]) and content["wait"]:
            if content["wait"] < 1:
                await settled()
                break
            self.news.clear()
            await self.news.wait()
        return 200, {"items": [self.view(one) for one in found[: self.most]], "more": len(found) > self.most}

    def accept(self) -> dict[str, Any]:
        self.tasks.append(name(len(self.tasks)))
        task_id = self.tasks[-1]
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

    def view(self, task_id: str) -> dict[str, Any]:
        ended = task_id in self.ended
        return {
            "task_id": task_id,
            "request_id": task_id,
            "task_type": "echo",
            "status": "success" if ended else "running",
            "selected_agent": "a",
            "priority": 3,
            "attempts": 1,
            "result": task_id if ended else None,
            "submitted_at": "2026-01-02T03:04:05.678Z",
        }

    def end(self, *task_ids: str) -> None:
        self.ended.update(task_ids)
        self.news.set()


@asynccontextmanager
async def opened(server: Server, **options: Any) -> AsyncGenerator[Client]:
    """A client of this server; when it closes, nothing it started may be left."""
    before = asyncio.all_tasks()
    chosen = ClientOptions(retry_seconds=0.0, **options)
    async with Client(transport=HttpTransport("http://stub", chosen, app=server), options=chosen) as made:
        yield made
    await settled()
    assert asyncio.all_tasks() <= before
    assert server.asking == 0


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0)


async def submitted(client: Client, count: int) -> list[Any]:
    return await client.submit_many(TaskRequest(task_type="echo", payload=n) for n in range(count))


async def test_thousands_of_outcomes_in_turn_take_few_questions() -> None:
    server = Server()
    async with opened(server) as client:
        handles = await submitted(client, 20_000)
        server.end(*server.tasks)
        assert [await handle.result() for handle in handles] == [handle.task_id for handle in handles]
    assert len(server.questions) == 20
    assert server.reads == []


async def test_thousands_of_outcomes_at_once_take_few_questions_and_all_arrive() -> None:
    server = Server(most=400)
    async with opened(server) as client:
        handles = await submitted(client, 5000)
        waiting = asyncio.gather(*(handle.result() for handle in handles))
        await until(lambda: server.asking > 0)
        server.end(*server.tasks)
        assert await waiting == [handle.task_id for handle in handles]
    assert len(server.questions) < 50
    assert server.reads == []


async def test_who_begins_to_wait_later_does_not_wait_for_the_others() -> None:
    server = Server()
    async with opened(server, waits=2) as client:
        handles = await submitted(client, 1)
        waiting = [asyncio.ensure_future(handles[0].result())]
        await until(lambda: server.asking == 1)
        # Nobody asks about these before somebody waits for them: they were submitted later.
        for _ in range(3):
            handles += await submitted(client, 1)
            waiting.append(asyncio.ensure_future(handles[-1].result()))
            await settled()
        server.ended.add(handles[3].task_id)
        assert await asyncio.wait_for(waiting[3], 10) == handles[3].task_id
        assert [one.done() for one in waiting] == [False, False, False, True]
        server.end(*server.tasks)
        assert await asyncio.wait_for(asyncio.gather(*waiting), 10) == server.tasks


async def test_two_may_wait_for_the_same_task() -> None:
    server = Server()
    async with opened(server) as client:
        (handle,) = await submitted(client, 1)
        both = asyncio.gather(handle.result(), client.handle(handle.task_id).result())
        await until(lambda: server.asking == 1)
        server.end(handle.task_id)
        assert await asyncio.wait_for(both, 10) == [handle.task_id] * 2


async def test_whoever_stops_waiting_leaves_nothing_running() -> None:
    server = Server()
    async with opened(server) as client:
        handles = await submitted(client, 3)
        before = asyncio.all_tasks()
        waiting = [asyncio.ensure_future(handle.result()) for handle in handles]
        await until(lambda: server.asking == 1)
        with pytest.raises(TimeoutError):
            await handles[0].result(timeout=0.001)
        assert server.asking == 1
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await until(lambda: server.asking == 0)
        assert asyncio.all_tasks() <= before


async def test_closing_ends_every_wait() -> None:
    server = Server()
    async with opened(server) as client:
        (handle,) = await submitted(client, 1)
        waiting = asyncio.ensure_future(handle.result())
        await until(lambda: server.asking == 1)
    with pytest.raises(AgentEnginesError, match="closed"):
        await asyncio.wait_for(waiting, 10)


async def test_tasks_of_others_are_found_or_not_found() -> None:
    server = Server()
    async with opened(server) as client:
        server.tasks += [name(7), name(8)]
        server.end(name(7))
        assert await client.handle(name(7)).result() == name(7)
        assert server.reads == []
        with pytest.raises(NotFound):
            await client.handle(name(9)).result()
        waiting = asyncio.ensure_future(client.handle(name(8)).result())
        await until(lambda: len(server.questions) > 2 and server.asking == 1)
        assert server.reads == [name(9), name(8)]
        server.end(name(8))
        assert await asyncio.wait_for(waiting, 10) == name(8)


async def test_an_older_server_is_asked_about_one_task_at_a_time() -> None:
    server = Server(knows_waits=False)
    async with opened(server) as client:
        handles = await submitted(client, 5)
        server.end(*server.tasks)
        assert await asyncio.gather(*(handle.result() for handle in handles)) == server.tasks
    assert sorted(server.reads) == server.tasks


async def test_waiting_goes_on_when_the_server_was_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes_module, "_patience", lambda _: 0.0)
    server = Server()
    server.refusals = [503, 502, 503]
    async with opened(server) as client:
        (handle,) = await submitted(client, 1)
        server.end(handle.task_id)
        assert await handle.result(timeout=10) == handle.task_id
    assert len(server.questions) == 4


async def test_another_refusal_is_the_waiter_s_error() -> None:
    server = Server()
    server.refusals = [422]
    async with opened(server) as client:
        (handle,) = await submitted(client, 1)
        with pytest.raises(InvalidRequest, match="refused"):
            await handle.result()


@pytest.mark.parametrize("answer", [{}, {"items": [{"task_id": 5}]}, {"items": 3}])
async def test_an_answer_that_cannot_be_read_is_the_waiter_s_error(answer: Any) -> None:
    class Odd(Server):
        async def waited(self, content: Any) -> tuple[int, Any]:
            return 200, answer

    async with opened(Odd()) as client:
        (handle,) = await submitted(client, 1)
        with pytest.raises((AgentEnginesError, msgspec.ValidationError)):
            await asyncio.wait_for(handle.result(), 10)


async def test_what_is_kept_is_bounded_and_what_was_dropped_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unasked_module, "REMEMBERED", 10)
    server = Server()
    async with opened(server) as client:
        handles = await submitted(client, 100)
        server.end(*server.tasks)
        await handles[0].result()
        assert await handles[1].result() == handles[1].task_id
        assert len(server.questions) == 2
        assert await handles[99].result() == handles[99].task_id
        assert len(server.questions) == 2


async def test_tasks_that_do_not_end_do_not_keep_others_from_being_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes_module, "MOST_IDS", 2)
    server = Server()
    async with opened(server, waits=2) as client:
        handles = await submitted(client, 12)
        waiting = [asyncio.ensure_future(handle.result()) for handle in handles]
        await until(lambda: server.asking > 0)
        server.ended.add(handles[11].task_id)
        assert await asyncio.wait_for(waiting[11], 10) == handles[11].task_id
        assert [one.done() for one in waiting] == [False] * 11 + [True]
        server.end(*server.tasks)
        assert await asyncio.wait_for(asyncio.gather(*waiting), 10) == server.tasks


async def test_an_outcome_that_was_kept_is_forgotten_when_the_task_runs_again() -> None:
    server = Server()
    async with opened(server) as client:
        handles = await submitted(client, 2)
        server.end(*server.tasks)
        await handles[0].result()
        await client.transport.act(f"tasks/{handles[1].task_id}:retry")
        assert await handles[1].result() == handles[1].task_id
    assert len(server.questions) == 2


async def test_a_task_nobody_waits_for_makes_room_when_it_was_asked_about_in_vain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outcomes_module, "MOST_IDS", 2)
    monkeypatch.setattr(outcomes_module, "VAIN_ASKS", 2)
    server = Server()
    async with opened(server) as client:
        handles = await submitted(client, 5)
        server.end(*server.tasks[1:])
        for handle in handles[1:]:
            assert await asyncio.wait_for(handle.result(), 10) == handle.task_id
    asked = [question["task_ids"] for question in server.questions]
    assert asked == [[name(1), name(0)], [name(2), name(0)], [name(3), name(4)]]


@pytest.mark.parametrize("order", [1, -1])
async def test_a_loop_over_more_tasks_than_can_be_known_takes_few_questions(
    monkeypatch: pytest.MonkeyPatch, order: int
) -> None:
    monkeypatch.setattr(outcomes_module, "SUBMITTED", 2000)
    monkeypatch.setattr(unasked_module, "REMEMBERED", 1000)
    server = Server()
    async with opened(server) as client:
        handles = (await submitted(client, 6000))[::order]
        server.end(*server.tasks)
        assert [await handle.result() for handle in handles] == server.tasks[::order]
    assert len(server.questions) <= 6000 / 250
    assert server.reads == []


async def test_an_outcome_on_its_way_here_is_forgotten_when_the_task_runs_again() -> None:
    server = Server()
    async with opened(server) as client:
        first, second = await submitted(client, 2)
        waiting = asyncio.ensure_future(first.result())
        await until(lambda: server.asking > 0)
        await client.transport.act(f"tasks/{second.task_id}:retry")
        server.end(*server.tasks)
        assert await waiting == first.task_id
        assert await second.result() == second.task_id
    assert [question["task_ids"] for question in server.questions] == [[name(0), name(1)], [name(1)]]
