"""SyncClient: the same client for programs without an event loop. One background thread runs one loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from typing import Any, ClassVar, Self, TypeVar

from agent_engines.domain.decisions import Recommendation
from agent_engines.domain.errors import AgentEnginesError
from agent_engines.domain.messages import Acceptance
from agent_engines.domain.tasks import TaskRequest, TaskStatus, TaskView
from agent_engines.ports.service import TaskEvent

from .client import Client
from .handle import TaskHandle
from .options import ClientOptions
from .schedules import SyncSchedules
from .tenants import SyncTenants
from .transport import Transport

Value = TypeVar("Value")
CLOSE_SECONDS = 5.0
"""For tasks that do something when they are cancelled."""


class LoopThread:
    """An event loop in a daemon thread. `run` blocks the caller until the coroutine is done."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._closing = False
        self._gate = threading.Lock()
        """Nothing is handed to a loop that is about to stop: it would wait there for ever."""
        self._thread = threading.Thread(target=self._loop.run_forever, name="agent-engines-client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Value]) -> Value:
        """The coroutine's result; an interrupted caller cancels it. Raises AgentEnginesError when closed, meanwhile too."""
        if threading.current_thread() is self._thread:
            work.close()
            raise AgentEnginesError("a SyncClient cannot be used inside its own callbacks: use Client")
        with self._gate:
            if self._closing:
                work.close()
                raise AgentEnginesError("the client is closed")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise AgentEnginesError("the client was closed meanwhile") from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End what still waits, in whatever thread, then the loop. May be called twice."""
        with self._gate:
            if self._closing:
                return
            self._closing = True
        asyncio.run_coroutine_threadsafe(_end_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


async def _end_others() -> None:
    """Cancel every other task of this loop: threads wait for them, and nobody would run them any more."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=CLOSE_SECONDS)


class SyncTaskHandle:
    """A submitted task; the methods of TaskHandle, blocking."""

    def __init__(self, handle: TaskHandle, thread: LoopThread) -> None:
        self._handle = handle
        self._thread = thread

    def __repr__(self) -> str:
        return f"Sync{self._handle!r}"

    @property
    def acceptance(self) -> Acceptance:
        return self._handle.acceptance

    @property
    def task_id(self) -> str:
        return self._handle.task_id

    @property
    def request_id(self) -> str:
        return self._handle.request_id

    def result(self, timeout: float | None = None) -> Any:
        """Raises TaskFailed, TimeoutError."""
        return self._thread.run(self._handle.result(timeout))

    def outcome(self, timeout: float | None = None) -> TaskView:
        """Raises TimeoutError."""
        return self._thread.run(self._handle.outcome(timeout))

    def status(self) -> TaskView:
        return self._thread.run(self._handle.status())

    def events(self) -> Iterator[TaskEvent]:
        events = self._handle.events()

        async def following() -> TaskEvent | None:
            return await anext(events, None)

        while (event := self._thread.run(following())) is not None:
            yield event

    def cancel(self) -> TaskStatus:
        """Raises Conflict when it has ended already."""
        return self._thread.run(self._handle.cancel())


class SyncClient:
    """`with SyncClient() as client: print(client.submit("echo", {"n": 1}).result())`. Safe to use from many threads."""

    client_class: ClassVar[type[Client]] = Client

    def __init__(
        self, url: str | None = None, *, options: ClientOptions | None = None, transport: Transport | None = None
    ) -> None:
        self._thread = LoopThread()
        self._client = self.client_class(url, options=options, transport=transport)
        try:
            self._thread.run(self._client.open())
        except BaseException:
            self._thread.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let what is being submitted finish, then disconnect; who waits in another thread gets AgentEnginesError. May be called twice."""
        try:
            self._thread.run(self._client.close())
        except AgentEnginesError:
            # Closed already.
            return
        self._thread.close()

    def submit(self, task_type: str, payload: Any = None, **options: Any) -> SyncTaskHandle:
        """`options` are those of Client.submit."""
        return self._wrapped(self._thread.run(self._client.submit(task_type, payload, **options)))

    def submit_request(self, request: TaskRequest) -> SyncTaskHandle:
        """See Client.submit_request."""
        return self._wrapped(self._thread.run(self._client.submit_request(request)))

    def submit_many(
        self,
        requests: Iterable[TaskRequest | tuple[str, Any] | Mapping[str, Any]],
        *,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """A SyncTaskHandle for each, in order; see Client.submit_many."""
        answers = self._thread.run(self._client.submit_many(requests, return_exceptions=return_exceptions))
        return [self._wrapped(answer) if isinstance(answer, TaskHandle) else answer for answer in answers]

    def recommend(self, task_type: str, **options: Any) -> Recommendation:
        return self._thread.run(self._client.recommend(task_type, **options))

    def task(self, task_id: str) -> TaskView:
        return self._thread.run(self._client.task(task_id))

    def tasks(self, **filters: Any) -> dict[str, Any]:
        return self._thread.run(self._client.tasks(**filters))

    def feedback(self, task_id: str, quality: float, **options: Any) -> dict[str, Any]:
        """`options` are those of Client.feedback."""
        return self._thread.run(self._client.feedback(task_id, quality, **options))

    def agents(self) -> list[dict[str, Any]]:
        return self._thread.run(self._client.agents())

    def decisions(self, **filters: Any) -> dict[str, Any]:
        return self._thread.run(self._client.decisions(**filters))

    def dead_letters(self, **filters: Any) -> dict[str, Any]:
        return self._thread.run(self._client.dead_letters(**filters))

    def redrive_dead_letters(self, **order: Any) -> dict[str, Any]:
        return self._thread.run(self._client.redrive_dead_letters(**order))

    def redrive_progress(self) -> dict[str, Any]:
        return self._thread.run(self._client.redrive_progress())

    def stop_redrive(self) -> dict[str, Any]:
        return self._thread.run(self._client.stop_redrive())

    @property
    def schedules(self) -> SyncSchedules:
        return SyncSchedules(self._client.schedules, self._thread.run)

    @property
    def tenants(self) -> SyncTenants:
        return SyncTenants(self._client.tenants, self._thread.run)

    def handle(self, task_id: str) -> SyncTaskHandle:
        return self._wrapped(self._client.handle(task_id))

    def _wrapped(self, handle: TaskHandle) -> SyncTaskHandle:
        return SyncTaskHandle(handle, self._thread)
