"""The client for programs without an event loop."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from agent_engines.client import ClientOptions, SyncClient
from agent_engines.client.client import Client
from agent_engines.client.handle import TaskHandle
from agent_engines.client.sync import SyncTaskHandle
from agent_engines.domain.decisions import DecisionContext, Recommendation
from agent_engines.domain.errors import AgentEnginesError, QueueFull, Unreachable
from agent_engines.domain.messages import Acceptance
from agent_engines.domain.tasks import TaskRequest, TaskStatus, TaskView
from agent_engines.ports.service import TaskEvent


class OwnTransport:
    """A system in a dictionary: every task succeeds with its payload."""

    waiting: ClassVar[threading.Event] = threading.Event()

    def __init__(self) -> None:
        self.tasks: dict[str, Any] = {}
        self.threads: set[str] = set()
        self.closed = 0

    async def submit(self, requests: list[TaskRequest], *, fresh: bool = False) -> list[Any]:
        self.threads.add(threading.current_thread().name)
        answers: list[Any] = []
        for request in requests:
            if request.task_type == "full":
                answers.append(QueueFull("full"))
                continue
            task_id = "slow" if request.task_type == "slow" else f"t{len(self.tasks)}"
            self.tasks[task_id] = request.payload
            answers.append(
                Acceptance(
                    task_id=task_id,
                    request_id=task_id,
                    status=TaskStatus.QUEUED,
                    selected_agent="a",
                    confidence=1.0,
                    propensity=1.0,
                    strategy="s",
                    reasoning="r",
                    policy_version="v",
                )
            )
        return answers

    async def task(self, task_id: str) -> TaskView:
        return await self.outcome(task_id, None)

    async def outcome(self, task_id: str, timeout: float | None) -> TaskView:
        if timeout == 0.0:
            raise TimeoutError
        if task_id == "slow":
            self.waiting.set()
            await asyncio.Event().wait()
        return TaskView(
            task_id=task_id,
            request_id=task_id,
            task_type="echo",
            status=TaskStatus.SUCCESS,
            selected_agent="a",
            priority=3,
            attempts=1,
            submitted_at=0.0,
            result=self.tasks[task_id],
        )

    async def cancel(self, task_id: str) -> TaskStatus:
        return TaskStatus.CANCELLED

    async def events(self, task_id: str) -> Any:
        for number, name in enumerate(("queued", "success")):
            yield TaskEvent(id=str(number), event=name, data={})

    async def recommend(self, context: DecisionContext) -> Recommendation:
        raise Unreachable("nobody")

    async def read(self, what: str, query: Any = None) -> Any:
        return {"items": [what], "next_cursor": None}

    async def act(self, what: str) -> Any:
        return {}

    async def close(self) -> None:
        self.closed += 1


def opened(transport: OwnTransport) -> SyncClient:
    return SyncClient(transport=transport, options=ClientOptions(retry_seconds=0.0))


def test_the_same_methods_block_until_they_are_done() -> None:
    transport = OwnTransport()
    with opened(transport) as client:
        handle = client.submit("echo", {"n": 1})
        assert handle.result(timeout=5) == {"n": 1}
        assert handle.status().status is TaskStatus.SUCCESS
        assert handle.cancel() is TaskStatus.CANCELLED
        assert [event.event for event in handle.events()] == ["queued", "success"]
        assert [one.result() for one in client.submit_many([("echo", 1), ("echo", 2)])] == [1, 2]
        assert client.agents() == ["agents"]
        assert client.handle("t0").result() == {"n": 1}
    assert transport.closed == 1


def test_errors_come_out_as_they_are() -> None:
    with opened(OwnTransport()) as client:
        with pytest.raises(QueueFull):
            client.submit("full")
        with pytest.raises(Unreachable):
            client.recommend("echo")
        with pytest.raises(TimeoutError):
            client.submit("echo").result(timeout=0.0)


def test_many_threads_may_share_one_client() -> None:
    transport = OwnTransport()
    with opened(transport) as client, ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: client.submit("echo", n).result(5), range(200)))
    assert results == list(range(200))
    assert transport.threads == {"agent-engines-client"}


def test_closing_ends_the_thread_and_may_be_repeated() -> None:
    client = opened(OwnTransport())
    client.close()
    client.close()
    assert "agent-engines-client" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(AgentEnginesError, match="closed"):
        client.submit("echo")


def test_closing_ends_the_waiting_of_other_threads() -> None:
    client = SyncClient(transport=OwnTransport())
    handle = client.submit("slow", 1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(handle.result)
        assert OwnTransport.waiting.wait(5)
        client.close()
        with pytest.raises(AgentEnginesError, match="closed"):
            waiting.result(5)
    with pytest.raises(AgentEnginesError, match="closed"):
        handle.result()


def test_it_has_every_method_of_the_asynchronous_one() -> None:
    own = {"connector", "open", "options", "transport"}
    assert {name for name in vars(Client) if not name.startswith("_")} - own <= set(dir(SyncClient))
    assert {name for name in vars(TaskHandle) if not name.startswith("_")} <= set(dir(SyncTaskHandle))
    with SyncClient(transport=OwnTransport()) as client:
        assert client.submit_request(TaskRequest(task_type="t", payload=3)).result() == 3


def test_a_client_that_cannot_open_leaves_no_thread() -> None:
    with pytest.raises(AgentEnginesError):
        SyncClient("gopher://x")
    assert "agent-engines-client" not in {thread.name for thread in threading.enumerate()}
