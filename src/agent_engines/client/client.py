"""Client: the asynchronous front door for programs."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self, cast

from msgspec.structs import replace

from agent_engines.domain.decisions import DecisionContext, Recommendation
from agent_engines.domain.errors import AgentEnginesError, InvalidRequest, Unavailable
from agent_engines.domain.feedback import DEFAULT_SOURCE, FeedbackDraft, check_feedback
from agent_engines.domain.messages import Acceptance
from agent_engines.domain.tasks import DEFAULT_PRIORITY, TaskRequest, TaskStatus, TaskView
from agent_engines.domain.terms import DEFAULT_TENANT, Affinity, Budget
from agent_engines.runtime.batching import Batcher

from .handle import TaskHandle
from .http_transport import HttpTransport
from .options import ClientOptions
from .retrying import Patience, repeatable
from .schedules import Schedules
from .tenants import Tenants
from .transport import Transport

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    from uuid_utils import uuid7

DEFAULT_URL = "http://127.0.0.1:8080"
Connector = Callable[[str | None, ClientOptions], Awaitable[Transport]]


async def connect_http(url: str | None, options: ClientOptions) -> Transport:
    """The transport for an `http://` or `https://` URL. Raises InvalidRequest for others."""
    chosen = url or DEFAULT_URL
    if chosen.partition("://")[0] not in ("http", "https"):
        raise InvalidRequest("the URL of the system must begin with http:// or https://", field="url")
    return HttpTransport(chosen, options)


class Client:
    """`async with Client() as client: handle = await client.submit("echo", {"n": 1}); print(await handle.result())`.

    Submissions made at the same time travel together, so thousands of callers cost few requests.
    """

    connector: ClassVar[Connector] = staticmethod(connect_http)
    """How a URL becomes a transport; composition replaces it by one that knows the bus and the environment."""

    def __init__(
        self, url: str | None = None, *, options: ClientOptions | None = None, transport: Transport | None = None
    ) -> None:
        self.options = options or ClientOptions()
        self._url = url
        self._given = transport
        self._opened: Transport | None = None
        self._rng = random.Random()
        self._batcher: Batcher[TaskRequest, Acceptance] | None = None
        self._first: Batcher[TaskRequest, Acceptance] | None = None

    @staticmethod
    def _traceparent() -> str | None:
        """The trace the caller is in, which its tasks then belong to; composition knows where to look."""
        return None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect; `async with` does it. May be called twice."""
        if self._opened is None:
            self._opened = self._given or await type(self).connector(self._url, self.options)
            size, lanes = self.options.batch_size, self.options.lanes
            self._batcher = Batcher(self._opened.submit, max_batch=size, lanes=lanes)
            self._first = Batcher(partial(self._opened.submit, fresh=True), max_batch=size, lanes=lanes)

    async def close(self) -> None:
        """Let what is being submitted finish, then disconnect. May be called twice."""
        for batcher in (self._first, self._batcher):
            if batcher is not None:
                await batcher.close()
        transport, self._opened = self._opened, None
        if transport is not None:
            await transport.close()

    @property
    def transport(self) -> Transport:
        if self._opened is None:
            raise AgentEnginesError("the client is not open: use `async with Client() as client`")
        return self._opened

    async def submit(  # noqa: PLR0913 - the caller's words for one task, all but two with defaults
        self,
        task_type: str,
        payload: Any = None,
        *,
        priority: int = DEFAULT_PRIORITY,
        requirements: dict[str, Any] | None = None,
        timeout_seconds: float | None = None,
        idempotency_key: str | None = None,
        deadline: float | None = None,
        max_attempts: int | None = None,
        metadata: dict[str, Any] | None = None,
        run_at: float | None = None,
        strategy: str | None = None,
        features: Iterable[float] | None = None,
        embedding: Iterable[float] | None = None,
        tenant: str = DEFAULT_TENANT,
        budget: Budget | None = None,
        affinity: Affinity | None = None,
    ) -> TaskHandle:
        """Hand in one task; it is durable when this returns. `deadline`, `run_at` (not before then): epoch seconds.

        `strategy`: how its agent is chosen; `features`, `embedding`: what it looks like, in numbers (docs/guides/routing.md).

        A full queue or an absent server is waited for (`options.retry_seconds`). Raises InvalidRequest, Conflict,
        QueueFull, NoEligibleAgent, Unavailable.
        """
        return await self.submit_request(
            TaskRequest(
                task_type=task_type,
                payload=payload,
                priority=priority,
                requirements=requirements or {},
                timeout_seconds=timeout_seconds,
                idempotency_key=idempotency_key,
                deadline=deadline,
                max_attempts=max_attempts,
                metadata=metadata or {},
                run_at=run_at,
                strategy=strategy,
                features=_floats("features", features),
                embedding=_floats("embedding", embedding),
                tenant=tenant,
                budget=budget,
                affinity=affinity,
            )
        )

    async def submit_request(self, request: TaskRequest) -> TaskHandle:
        """The same for a request that is already put together."""
        transport = self.transport
        assert self._batcher is not None
        assert self._first is not None
        wanted = _traced(request, type(self)._traceparent())
        request = self._keyed(wanted)
        batcher = self._batcher if request is wanted else self._first
        patience: Patience | None = None
        while True:
            try:
                return TaskHandle(await batcher.put(request), transport)
            except AgentEnginesError as error:
                batcher = self._batcher
                patience = patience or Patience(self.options.retry_seconds, self._rng)
                pause = patience.pause(error) if _may_repeat(error, request) else None
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    async def submit_many(
        self,
        requests: Iterable[TaskRequest | tuple[str, Any] | Mapping[str, Any]],
        *,
        return_exceptions: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Any]:
        """Hand in many tasks; a TaskHandle for each, in order.

        Each is a TaskRequest, (task_type, payload), or a mapping with the fields of a TaskRequest. Raises
        InvalidRequest, before anything is sent, for what is none of these.

        A refused one raises its error after all were tried, or, with `return_exceptions`, takes its place in the list.
        `on_progress(n)` hears how many more are answered.
        """
        trace = type(self)._traceparent()
        given = [_traced(_as_request(item), trace) for item in requests]
        wanted = [self._keyed(request) for request in given]
        fresh = all(before is not after for before, after in zip(given, wanted, strict=True))
        size = self.options.batch_size
        lanes = asyncio.Semaphore(self.options.lanes)

        async def send(chunk: Sequence[TaskRequest]) -> list[TaskHandle | AgentEnginesError]:
            async with lanes:
                answers = await self._submit_chunk(chunk, fresh=fresh)
            if on_progress is not None:
                on_progress(len(chunk))
            return answers

        async with asyncio.TaskGroup() as group:
            jobs = [group.create_task(send(wanted[at : at + size])) for at in range(0, len(wanted), size)]
        answers = [answer for job in jobs for answer in job.result()]
        if not return_exceptions:
            for answer in answers:
                if isinstance(answer, AgentEnginesError):
                    raise answer
        return answers

    async def recommend(  # noqa: PLR0913 - the caller's words for one question, all but one with defaults
        self,
        task_type: str,
        *,
        requirements: dict[str, Any] | None = None,
        priority: int = DEFAULT_PRIORITY,
        deadline: float | None = None,
        request_id: str | None = None,
        strategy: str | None = None,
        features: Iterable[float] | None = None,
        embedding: Iterable[float] | None = None,
    ) -> Recommendation:
        """Who should do this? Decides and records, dispatches nothing. Raises NoEligibleAgent, InvalidRequest."""
        return await self.transport.recommend(
            DecisionContext(
                request_id=request_id or os.urandom(16).hex(),
                task_type=task_type,
                requirements=requirements or {},
                priority=priority,
                deadline=deadline,
                strategy=strategy,
                features=_row("features", features),
                embedding=_row("embedding", embedding),
            )
        )

    async def task(self, task_id: str) -> TaskView:
        """Raises NotFound."""
        return await self.transport.task(task_id)

    async def tasks(self, **filters: Any) -> dict[str, Any]:
        """A page of tasks: `items`, `next_cursor`. Filters: status, task_type, agent, since, cursor, limit."""
        return await self.transport.read("tasks", filters)

    async def feedback(
        self, task_id: str, quality: float, *, source: str = DEFAULT_SOURCE, comment: str = ""
    ) -> dict[str, Any]:
        """Say how good the work of an ended task was: 0 useless, 1 perfect; the routers learn from it.

        The same again changes nothing. Raises InvalidRequest, NotFound, Conflict (not ended, or judged otherwise before).
        """
        draft = FeedbackDraft(quality=quality, source=source, comment=comment)
        check_feedback(draft)
        return await self.transport.feedback(task_id, draft)

    async def agents(self) -> list[dict[str, Any]]:
        """The fleet as the router sees it."""
        return (await self.transport.read("agents"))["items"]

    async def decisions(self, **filters: Any) -> dict[str, Any]:
        """A page of decisions: `items`, `next_cursor`. Filters: task_type, agent, since, cursor, limit."""
        return await self.transport.read("decisions", filters)

    async def dead_letters(self, **filters: Any) -> dict[str, Any]:
        """A page of dead letters: `items`, `next_cursor`. Filters: task_type, agent, reason, since, waiting, cursor, limit."""
        return await self.transport.read("dead-letters", filters)

    async def redrive_dead_letters(self, **order: Any) -> dict[str, Any]:
        """Run many dead letters again in the background: `state`, `matched`, `redriven`, `skipped`.

        `order`: task_type, agent, reason, since, limit, rate (a second). Raises Conflict while another redrive runs.
        """
        return await self.transport.change("POST", "dead-letters:redrive", order)

    async def redrive_progress(self) -> dict[str, Any]:
        """How far the redrive got that runs, or ran last. Raises NotFound."""
        return await self.transport.read("dead-letters:redrive")

    async def stop_redrive(self) -> dict[str, Any]:
        """What has been redriven stays so. Raises NotFound."""
        return await self.transport.change("DELETE", "dead-letters:redrive")

    @property
    def schedules(self) -> Schedules:
        """Tasks that are made again and again."""
        return Schedules(self.transport)

    @property
    def tenants(self) -> Tenants:
        """What each tenant may spend, and its share of busy agents."""
        return Tenants(self.transport)

    def handle(self, task_id: str) -> TaskHandle:
        """A handle for a task that was submitted elsewhere; its acceptance holds the id only."""
        return TaskHandle(_known(task_id), self.transport)

    async def _submit_chunk(
        self, requests: Sequence[TaskRequest], *, fresh: bool
    ) -> list[TaskHandle | AgentEnginesError]:
        """Send them; those that were refused for the moment are sent again, together."""
        transport = self.transport
        answers = list(await transport.submit(requests, fresh=fresh))
        patience = Patience(self.options.retry_seconds, self._rng)
        while True:
            failed = [index for index, answer in enumerate(answers) if isinstance(answer, AgentEnginesError)]
            again = [index for index in failed if _may_repeat(answers[index], requests[index])]
            pause = patience.pause(max((_error(answers[index]) for index in again), key=_asked)) if again else None
            if pause is None:
                return [
                    answer if isinstance(answer, AgentEnginesError) else TaskHandle(answer, transport)
                    for answer in answers
                ]
            await asyncio.sleep(pause)
            for index, answer in zip(again, await transport.submit([requests[index] for index in again]), strict=True):
                answers[index] = answer

    def _keyed(self, request: TaskRequest) -> TaskRequest:
        if request.idempotency_key is not None or not self.options.generate_keys:
            return request
        return replace(request, idempotency_key=str(uuid7()))


def _as_request(item: object) -> TaskRequest:
    """Raises InvalidRequest."""
    match item:
        case TaskRequest():
            return item
        case (str() as task_type, payload):
            return TaskRequest(task_type=task_type, payload=payload)
        case Mapping():
            given = {str(name): value for name, value in cast("Mapping[Any, Any]", item).items()}
            known = TaskRequest.__struct_fields__
            if unknown := next((name for name in given if name not in known), None):
                raise InvalidRequest(f"there is no field {unknown!r}", field=unknown)
            if "task_type" not in given:
                raise InvalidRequest("task_type is missing", field="task_type")
            return TaskRequest(**given)
        case _:
            raise InvalidRequest(
                f"a task is a TaskRequest, (task_type, payload) or a mapping of fields, not {type(item).__name__}"
            )


def _traced(request: TaskRequest, trace: str | None) -> TaskRequest:
    """A request that names a trace stays in that one."""
    return request if trace is None or request.traceparent is not None else replace(request, traceparent=trace)


def _may_repeat(answer: object, request: TaskRequest) -> bool:
    return repeatable(answer, keyed=request.idempotency_key is not None)


def _error(answer: object) -> AgentEnginesError:
    assert isinstance(answer, AgentEnginesError)
    return answer


def _asked(error: AgentEnginesError) -> float:
    return error.retry_after if isinstance(error, Unavailable) else 0.0


def _known(task_id: str) -> Acceptance:
    return Acceptance(
        task_id=task_id,
        request_id=task_id,
        status=TaskStatus.QUEUED,
        selected_agent=None,
        confidence=0.0,
        propensity=0.0,
        strategy="",
        reasoning="submitted elsewhere",
        policy_version="",
        existing=True,
    )


def _floats(field: str, numbers: Iterable[float] | None) -> list[float] | None:
    """Any row of numbers, an array's too. Raises InvalidRequest naming the place."""
    if numbers is None:
        return None
    found: list[float] = []
    try:
        # What was read before the first that is none stays in it, and tells the place.
        found.extend(map(float, numbers))
    except (TypeError, ValueError, OverflowError) as error:
        place = f"{field}[{len(found)}]"
        raise InvalidRequest(f"{place} is not a number: {error}", field=place) from None
    return found


def _row(field: str, numbers: Iterable[float] | None) -> tuple[float, ...] | None:
    found = _floats(field, numbers)
    return None if found is None else tuple(found)
