"""The loads: each keeps its tally up to date while it runs, so that one that is cancelled has still measured something."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from agent_engines.domain.errors import AgentEnginesError, NotFound, Unavailable
from agent_engines.domain.messages import Acceptance
from agent_engines.domain.tasks import TaskRequest, TaskStatus, TaskView

from .plan import MOST_OUTSTANDING, due_after, due_within
from .tally import LOST, UNENDED, WRONG, Tally, reason_of

PATIENCE_SECONDS = 30.0
"""How long the end of a task is waited for."""
CHUNK = 500
LANES = 4
"""A burst is handed in by so many requests of so many tasks at a time, as `Client.submit_many` does."""
LATE_SECONDS = 0.5
"""How much later than planned an open loop may end with sending."""
PAUSE = (0.05, 1.0)
"""Least and most seconds a refused caller waits before it tries again, whatever it was asked for."""


class Handle(Protocol):
    """A submitted task, as the client gives it."""

    @property
    def task_id(self) -> str: ...

    @property
    def acceptance(self) -> Acceptance: ...

    async def outcome(self, timeout: float | None = None) -> TaskView: ...


class Submitter(Protocol):
    """The part of `Client` that a load needs."""

    async def submit_request(self, request: TaskRequest) -> Any: ...

    async def submit_many(self, requests: Sequence[TaskRequest], *, return_exceptions: bool = False) -> list[Any]: ...

    async def task(self, task_id: str) -> TaskView: ...


class Load:
    """`make(number)` gives the request; `echoes`: a result that is not the payload is a wrong one.

    `patience`: seconds to wait for an end. `most`: outstanding tasks, whatever the load.
    """

    def __init__(
        self,
        client: Submitter,
        make: Callable[[int], TaskRequest],
        *,
        echoes: bool = False,
        patience: float = PATIENCE_SECONDS,
        most: int = MOST_OUTSTANDING,
    ) -> None:
        self._client = client
        self._make = make
        self._echoes = echoes
        self._patience = patience
        self._most = most
        self._numbers = itertools.count()

    async def closed(self, tally: Tally, *, outstanding: int, seconds: float) -> None:
        """`outstanding` callers for `seconds`, each submitting its next task when its last one has ended.

        One whose task has no end gives up: it is outstanding still.
        """
        until = tally.begun + seconds

        async def caller() -> None:
            while (now := time.perf_counter()) < until:
                answer = await self._one(tally, self._make(next(self._numbers)), now)
                if isinstance(answer, AgentEnginesError):
                    await asyncio.sleep(min(_pause(answer), max(0.0, until - time.perf_counter())))
                elif not answer:
                    return

        async with asyncio.TaskGroup() as group:
            for _ in range(min(outstanding, self._most)):
                group.create_task(caller())

    async def burst(self, tally: Tally, *, tasks: int, seconds: float) -> None:
        """`tasks` as fast as they are taken, handed in for `seconds` at most."""
        until = tally.begun + seconds
        room = asyncio.Semaphore(max(1, self._most // CHUNK))
        lanes = asyncio.Semaphore(LANES)

        async def chunk(requests: list[TaskRequest]) -> None:
            async with lanes:
                if time.perf_counter() >= until:
                    return
                tally.sent += len(requests)
                answers = await self._client.submit_many(requests, return_exceptions=True)
                accepted = _taken(tally, requests, answers)
            end = time.perf_counter() + self._patience
            seen = [await self._follow(tally, *one, max(0.0, end - time.perf_counter())) for one in accepted]
            if all(seen):
                room.release()

        async with asyncio.TaskGroup() as group:
            for start in range(0, tasks, CHUNK):
                if not await _entered(room, until):
                    return
                count = min(CHUNK, tasks - start)
                group.create_task(chunk([self._make(next(self._numbers)) for _ in range(count)]))

    async def open_loop(self, tally: Tally, *, rate: float, seconds: float) -> None:
        """`rate` tasks a second for `seconds`, whatever comes back. Times count from when a task was due, not from when
        it was sent: while the system, or we, stand still, those that wait are counted as waiting.
        """
        room = asyncio.Semaphore(self._most)
        until = tally.begun + seconds + LATE_SECONDS

        async def one(due: float) -> None:
            if await self._one(tally, self._make(next(self._numbers)), due):
                room.release()

        async with asyncio.TaskGroup() as group:
            for number in range(due_within(seconds, rate)):
                due = tally.begun + due_after(number, rate)
                if (early := due - time.perf_counter()) > 0:
                    await asyncio.sleep(early)
                if not await _entered(room, until):
                    return
                group.create_task(one(due))

    async def settle(self, tally: Tally) -> None:
        """Ask about those whose end was not seen in time: they have ended after all, are lost, or have no end yet.

        When the system does not answer, or not in time, the others count as having none.
        """
        until = time.perf_counter() + self._patience
        for task_id in sorted(tally.waiting):
            how = UNENDED
            try:
                if time.perf_counter() < until:
                    view = await self._client.task(task_id)
                    how = view.status.value if view.status.terminal else UNENDED
            except NotFound:
                how = LOST
            except AgentEnginesError:
                until = 0.0
            tally.end(task_id, how, time.perf_counter())

    async def _one(self, tally: Tally, request: TaskRequest, due: float) -> AgentEnginesError | bool:
        """Submit it and see its end: whether that was seen, or why it was refused."""
        tally.sent += 1
        try:
            handle: Handle = await self._client.submit_request(request)
        except AgentEnginesError as error:
            tally.refused[reason_of(error)] += 1
            return error
        now = time.perf_counter()
        tally.take(handle.task_id, handle.acceptance.durability, now)
        tally.accept_seconds.append(now - due)
        seen = await self._follow(tally, handle, request, self._patience)
        if seen:
            tally.end_seconds.append(time.perf_counter() - due)
        return seen

    async def _follow(self, tally: Tally, handle: Handle, request: TaskRequest, patience: float) -> bool:
        """Whether its end was seen; `settle` asks about the others."""
        with suppress(TimeoutError, AgentEnginesError):
            view = await handle.outcome(patience)
            tally.end(handle.task_id, self._judged(view, request), time.perf_counter())
            return True
        return False

    def _judged(self, view: TaskView, request: TaskRequest) -> str:
        wrong = self._echoes and view.status is TaskStatus.SUCCESS and view.result != request.payload
        return WRONG if wrong else view.status.value


async def _entered(room: asyncio.Semaphore, until: float) -> bool:
    """Whether there was room before that moment; what has no end keeps its place."""
    # Asked first: where there is room nobody waits, and what does not wait is not timed out.
    if (left := until - time.perf_counter()) <= 0:
        return False
    try:
        async with asyncio.timeout(left):
            await room.acquire()
    except TimeoutError:
        return False
    return True


def _taken(tally: Tally, requests: Sequence[TaskRequest], answers: Sequence[Any]) -> list[tuple[Handle, TaskRequest]]:
    now = time.perf_counter()
    accepted: list[tuple[Handle, TaskRequest]] = []
    for request, answer in zip(requests, answers, strict=True):
        if isinstance(answer, AgentEnginesError):
            tally.refused[reason_of(answer)] += 1
        else:
            tally.take(answer.task_id, answer.acceptance.durability, now)
            accepted.append((answer, request))
    return accepted


def _pause(error: AgentEnginesError) -> float:
    least, most = PAUSE
    return min(max(error.retry_after if isinstance(error, Unavailable) else least, least), most)
