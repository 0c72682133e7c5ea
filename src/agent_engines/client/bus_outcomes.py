"""Waiting over the bus: outcomes are told once they are recorded; what was not heard, or had to go, is asked for."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec

from agent_engines.domain.errors import AgentEnginesError, Unavailable, Unreachable
from agent_engines.domain.messages import Report, ReportKind, TaskQuery, TasksQuery, TasksReply
from agent_engines.domain.tasks import TaskStatus, TaskView
from agent_engines.runtime.batching import Batcher

from .unasked import Unasked

ASK_AGAIN_SECONDS = 5.0
ASKS_PER_SECOND = 200
"""Signals may get lost, so a waiter also asks; when very many wait, more rarely."""
MOST_IDS = 500
"""In one question; a router takes 1,000 (engines/gateway.py)."""
LANES = 2
ALONE_SECONDS = 60.0
"""A router that does not know the question for many is not asked it again for so long."""


class _Head(msgspec.Struct):
    task_id: str
    status: TaskStatus


Ask = Callable[[str, msgspec.Struct, Any], Awaitable[Any]]
"""Ask the router for `what`, with this question; the answer in this shape. Raises the router's refusal, Unreachable."""

_read_head = msgspec.json.Decoder(_Head).decode
_read_view = msgspec.json.Decoder(TaskView).decode


class BusOutcomes:
    """At most `asks` questions about one task are under way at the same time, and LANES about many."""

    def __init__(self, ask: Ask, *, asks: int) -> None:
        self._ask = ask
        self._waiters: dict[str, asyncio.Future[TaskView]] = {}
        self._unasked: Unasked[Report | bytes] = Unasked()
        self._asking = asyncio.Semaphore(asks)
        self._together: Batcher[str, TaskView] = Batcher(
            self._views, max_batch=MOST_IDS, max_waiting=sys.maxsize, lanes=min(asks, LANES)
        )
        self._alone_until = 0.0

    async def outcome(self, task_id: str, timeout: float | None) -> TaskView:
        """The terminal view. Raises TimeoutError, NotFound."""
        known = self._unasked.take(task_id)
        if known is not None:
            return _view(known)
        waiter = self._waiters.get(task_id)
        if waiter is None:
            waiter = self._waiters[task_id] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                if self._unasked.dropped:
                    await self._ask_for(task_id, waiter)
                while not waiter.done():
                    pause = max(ASK_AGAIN_SECONDS, len(self._waiters) / ASKS_PER_SECOND)
                    await asyncio.wait((waiter,), timeout=pause)
                    if not waiter.done():
                        await self._ask_for(task_id, waiter)
            return waiter.result()
        finally:
            if self._waiters.get(task_id) is waiter:
                del self._waiters[task_id]

    def told(self, reports: Iterable[Report]) -> None:
        """What was recorded: wake those who wait for it, keep the rest."""
        for report in reports:
            if report.kind is not ReportKind.FINAL:
                continue
            waiter = self._waiters.get(report.task_id)
            if waiter is None:
                # The signal may be faster than the reply to the submission.
                self._unasked.put(report.task_id, report, len(bytes(report.result)))
            elif not waiter.done():
                waiter.set_result(_view(report))

    def forget(self, task_id: str) -> None:
        """The task runs again: what was kept is not its outcome any more."""
        self._unasked.forget(task_id)

    async def close(self) -> None:
        """Whoever still waits is cancelled. The bus must be closed, or answer."""
        for waiter in self._waiters.values():
            waiter.cancel()
        await self._together.close()

    async def _ask_for(self, task_id: str, waiter: asyncio.Future[TaskView]) -> None:
        try:
            # What a message cannot say must not be others' trouble.
            view = await (self._together.put(task_id) if task_id.isascii() else self._one(task_id))
        except Unavailable:
            # The task is accepted; whoever is away now comes back, and the waiter's own timeout decides.
            return
        if view.status.terminal and not waiter.done():
            waiter.set_result(view)

    async def _views(self, task_ids: Sequence[str]) -> list[TaskView | BaseException]:
        """Of each of these tasks, as it is now, or why there is none. Raises Unavailable."""
        wanted = list(dict.fromkeys(task_ids))
        if asyncio.get_running_loop().time() < self._alone_until:
            found = await self._each(wanted)
        else:
            try:
                found = await self._many(wanted)
            except Unreachable:
                found = await self._without_many(wanted)
        return [found[task_id] for task_id in task_ids]

    async def _many(self, wanted: list[str]) -> dict[str, TaskView | BaseException]:
        """With those that had to go beside them. Raises Unavailable."""
        found: dict[str, TaskView | BaseException] = {}
        beside = self._unasked.beside(wanted, MOST_IDS - len(wanted))
        try:
            while True:
                part: TasksReply = await self._ask("several", TasksQuery(task_ids=[*wanted, *beside]), TasksReply)
                brought = self._taken(part.items, set(wanted))
                found.update(brought)
                left = [task_id for task_id in wanted if task_id not in brought]
                vain = len(left) == len(wanted) and not beside
                self._unasked.missed(beside)
                wanted, beside = left, []
                if not wanted or not part.more or vain:
                    break
        except Unavailable:
            raise
        except (AgentEnginesError, msgspec.MsgspecError):
            # What is wrong with one of them is that one's error, as below.
            pass
        finally:
            self._unasked.missed(beside)
        # What is not in an answer is not known there, not yet, or does not fit into a message.
        return found | await self._each(wanted)

    def _taken(self, items: Iterable[msgspec.Raw], wanted: set[str]) -> dict[str, TaskView]:
        """Of those that are wanted; of the others the ends are kept."""
        found: dict[str, TaskView] = {}
        for item in items:
            data = bytes(item)
            head = _read_head(data)
            if head.task_id in wanted:
                found[head.task_id] = _read_view(data)
            elif not head.status.terminal:
                continue
            elif waiter := self._waiters.get(head.task_id):
                self._unasked.forget(head.task_id)
                if not waiter.done():
                    waiter.set_result(_read_view(data))
            else:
                self._unasked.bring(head.task_id, data, len(data))
        return found

    async def _without_many(self, wanted: list[str]) -> dict[str, TaskView | BaseException]:
        """Nobody answered: an older router does not know the question, unless none is there. Raises Unavailable."""
        first = await self._each(wanted[:1])
        for answer in first.values():
            if isinstance(answer, Unavailable):
                raise answer
        self._alone_until = asyncio.get_running_loop().time() + ALONE_SECONDS
        return first | await self._each(wanted[1:])

    async def _each(self, task_ids: Sequence[str]) -> dict[str, TaskView | BaseException]:
        answers = await asyncio.gather(*map(self._one, task_ids), return_exceptions=True)
        return dict(zip(task_ids, answers, strict=True))

    async def _one(self, task_id: str) -> TaskView:
        async with self._asking:
            return await self._ask("task", TaskQuery(task_id=task_id), TaskView)


def _view(known: Report | bytes) -> TaskView:
    if isinstance(known, bytes):
        return _read_view(known)
    return TaskView(
        task_id=known.task_id,
        request_id=known.request_id,
        task_type=known.task_type,
        status=known.status,
        selected_agent=known.agent,
        priority=known.priority,
        attempts=known.attempt,
        submitted_at=known.submitted_at,
        started_at=known.started_at,
        completed_at=known.completed_at,
        execution_time_ms=known.execution_time_ms,
        result=msgspec.json.decode(known.result),
        error=known.error,
        quality=known.quality,
        cost=known.cost,
    )
