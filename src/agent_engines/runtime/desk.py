"""The desk: answers about tasks, wakes those who wait for one, cancels and runs again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec

from agent_engines.domain import subjects
from agent_engines.domain.errors import Conflict, NotFound, Unavailable
from agent_engines.domain.messages import CancelOrder, Report, ReportKind
from agent_engines.domain.tasks import TaskError, TaskStatus, TaskView
from agent_engines.ports.bus import Bus
from agent_engines.ports.cache import Cache
from agent_engines.ports.clock import Clock
from agent_engines.ports.ledger import Ledger, Page, Several, StoredTask, TaskFilter
from agent_engines.ports.telemetry import Telemetry

from .batching import Batcher
from .broadcasts import broadcast
from .journal import TaskJournal
from .outcomes import Outcome
from .redispatch import Redispatcher

CACHE_SECONDS = 300.0
LOOK_SECONDS = 2.0
"""Signals may be lost: whoever waits asks the ledger this often."""
MAX_WAIT_SECONDS = 3600.0
LOOKS = 2
"""Questions to the ledger under way at once: readers by the thousand must not stand in line for its connections."""
LOOKED_AT = 100
REOPENED_AT_ONCE = 4

Answer = TypeVar("Answer")

_decode_view = msgspec.json.Decoder(TaskView).decode
_encode = msgspec.json.Encoder().encode


class Watch:
    """One caller's wait for news about any of some tasks; a context manager."""

    def __init__(self, watches: dict[str, dict[Watch, None]], task_ids: Sequence[str], *, final: bool) -> None:
        self._watches = watches
        self._task_ids = task_ids
        self.final = final
        self.news = asyncio.Event()

    def __enter__(self) -> Watch:
        for task_id in self._task_ids:
            self._watches.setdefault(task_id, {})[self] = None
        return self

    def __exit__(self, *_: object) -> None:
        for task_id in self._task_ids:
            watching = self._watches.get(task_id)
            if watching is not None:
                watching.pop(self, None)
                if not watching:
                    del self._watches[task_id]


class TaskDesk:
    """Needs `recorded` to be told what was committed; without it, waiters still look every few seconds."""

    def __init__(
        self,
        bus: Bus,
        ledger: Ledger,
        redispatcher: Redispatcher,
        *,
        clock: Clock,
        telemetry: Telemetry,
        cache: Cache | None = None,
    ) -> None:
        self._bus = bus
        self._ledger = ledger
        self._redispatcher = redispatcher
        self._clock = clock
        self._cache = cache
        self._log = telemetry.log("intelligence")
        self.journal: TaskJournal | None = None
        self._watches: dict[str, dict[Watch, None]] = {}
        self._looking: Batcher[str, TaskView] = Batcher(self._look, max_batch=LOOKED_AT, lanes=LOOKS)

    @property
    def waiting(self) -> int:
        """Tasks somebody waits for."""
        return len(self._watches)

    def recorded(self, outcomes: Iterable[Outcome]) -> None:
        """Wake those who wait for these tasks."""
        watches = self._watches
        if not watches:
            return
        for outcome in outcomes:
            for watch in watches.get(outcome.task_id, ()):
                if not watch.final or outcome.kind is ReportKind.FINAL:
                    watch.news.set()

    def watch(self, task_id: str, *, final: bool = False) -> Watch:
        """`final`: only news that may end the task."""
        return Watch(self._watches, (task_id,), final=final)

    async def task(self, task_id: str, wait: float = 0.0) -> TaskView:
        """The task now, or as soon as it is terminal within `wait` seconds. Raises NotFound."""
        if wait <= 0:
            return await self._cached(task_id) or await self.read(task_id)
        # The loop's clock, because the loop's timers do the waiting.
        time = asyncio.get_running_loop().time
        until = time() + min(wait, MAX_WAIT_SECONDS)
        with self.watch(task_id, final=True) as watch:
            while True:
                watch.news.clear()
                view = await self.read(task_id)
                left = until - time()
                if view.status.terminal or left <= 0:
                    return view
                await self.wait_for_news(watch, min(left, LOOK_SECONDS))

    async def ended(self, task_ids: Sequence[str], wait: float = 0.0) -> Several:
        """Those that are terminal; with `wait` seconds, as soon as one is. Unknown tasks are not in the answer."""
        time = asyncio.get_running_loop().time
        until = time() + min(wait, MAX_WAIT_SECONDS)
        with Watch(self._watches, task_ids if wait > 0 else (), final=True) as watch:
            while True:
                watch.news.clear()
                found = await self._ledger.reader.ended(task_ids)
                left = until - time()
                if found.items or left <= 0:
                    return found
                await self.wait_for_news(watch, min(left, LOOK_SECONDS))

    async def read(self, task_id: str) -> TaskView:
        """The ledger's word; successes are remembered in the cache. Raises NotFound, Unavailable, QueueFull."""
        view = await self._asked(task_id, lambda: self._looking.put(task_id))
        # Any other end can be undone (`reopen`), and a reader who saw it before would remember it afterwards.
        if self._cache is not None and view.status is TaskStatus.SUCCESS:
            await self._cache.set(_key(task_id), _encode(view), CACHE_SECONDS)
        return view

    async def tasks(self, wanted: TaskFilter) -> Page:
        return await self._ledger.reader.tasks(wanted)

    async def wait_for_news(self, watch: Watch, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await watch.news.wait()

    async def cancel(self, task_id: str) -> TaskStatus:
        """Cancel, tell the agent (of a hedged task both), wake the waiters. Raises NotFound, Conflict."""
        now = self._clock.now()
        status = await self._asked(task_id, lambda: self._ledger.tasks.cancel(task_id, now))
        self._redispatcher.forget(task_id)
        view = await self._ledger.reader.task(task_id)
        for agent in dict.fromkeys([view.selected_agent, *await self._ledger.tasks.legs(task_id)]):
            if agent is not None:
                await self._send_order(agent, task_id, now)
        if status is TaskStatus.CANCELLED:
            origin = await self._ledger.reader.origin(task_id)
            await broadcast(self._bus, origin, _cancelled(view, origin, now))
        return status

    async def retry(self, task_id: str) -> TaskView:
        """Run a task again that ended without success. Raises NotFound, Conflict."""
        stored = await self._asked(task_id, lambda: self._ledger.tasks.reopen(task_id, self._clock.now()))
        await self._redispatcher.send([stored], reason="reopened")
        # A router of the release before remembers every end.
        await self._forget(task_id)
        return await self._ledger.reader.task(task_id)

    async def redrive(self, task_id: str) -> TaskView:
        """Run a dead letter again. Raises NotFound (no dead letter of that name), Conflict."""
        letter = await self._ledger.reader.dead_letter(task_id)
        if letter.redriven_at is not None:
            self._log.info("A dead letter is driven again", task_id=task_id, redriven_at=letter.redriven_at)
        return await self.retry(task_id)

    async def redrive_many(self, task_ids: Sequence[str]) -> int:
        """Run many dead letters again; how many. Those that are none any more are passed over. Raises Unavailable."""
        now = self._clock.now()
        waiting = iter(task_ids)
        opened: list[StoredTask] = []

        async def work() -> None:
            for task_id in waiting:
                with suppress(NotFound, Conflict):
                    opened.append(await self._ledger.tasks.reopen(task_id, now))

        try:
            # Few at once: redriving must not keep others from the ledger's connections.
            await asyncio.gather(*(work() for _ in range(REOPENED_AT_ONCE)))
        finally:
            # What was reopened is on its way, also when the ledger went away in the middle.
            await self._redispatcher.send(opened, reason="reopened")
            for stored in opened:
                await self._forget(stored.task.task_id)
        return len(opened)

    async def dead_letters(self, limit: int, cursor: str | None) -> Page:
        return await self._ledger.reader.dead_letters(limit, cursor)

    async def _asked(self, task_id: str, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """What the ledger says; a task it does not know yet may be on its way there in the journal."""
        try:
            return await ask()
        except NotFound:
            if self.journal is None or not await self.journal.bring(task_id):
                raise
        return await ask()

    async def _look(self, task_ids: Sequence[str]) -> list[TaskView | BaseException]:
        """Everybody who asks while one question is under way shares the next one."""
        found: dict[str, TaskView] = {}
        wanted = list(dict.fromkeys(task_ids))
        while wanted:
            page = await self._ledger.reader.several(wanted)
            found.update((view.task_id, view) for view in page.items)
            if not page.more:
                break
            wanted = [task_id for task_id in wanted if task_id not in found]
        return [found.get(task_id) or NotFound(f"no task {task_id}") for task_id in task_ids]

    async def _send_order(self, agent: str, task_id: str, now: float) -> None:
        order = _encode(CancelOrder(task_ids=(task_id,), at=now))
        try:
            await self._bus.signals.send(subjects.cancel(agent), order)
        except Unavailable as error:
            self._log.warning("The agent was not told of a cancellation", task_id=task_id, error=str(error))

    async def _cached(self, task_id: str) -> TaskView | None:
        if self._cache is None:
            return None
        data = await self._cache.get(_key(task_id))
        if data is None:
            return None
        try:
            return _decode_view(data)
        except msgspec.MsgspecError as error:
            self._log.warning("A cached task could not be read", task_id=task_id, error=str(error))
            return None

    async def _forget(self, task_id: str) -> None:
        if self._cache is not None:
            await self._cache.delete(_key(task_id))


def _key(task_id: str) -> str:
    return f"task:{task_id}"


def _cancelled(view: TaskView, origin: str, now: float) -> Report:
    return Report(
        kind=ReportKind.FINAL,
        task_id=view.task_id,
        request_id=view.request_id,
        task_type=view.task_type,
        agent=view.selected_agent,
        attempt=max(1, view.attempts),
        delivery=0,
        status=TaskStatus.CANCELLED,
        error=TaskError("Cancelled", "cancelled by request"),
        completed_at=now,
        priority=view.priority,
        submitted_at=view.submitted_at,
        origin=origin,
    )
