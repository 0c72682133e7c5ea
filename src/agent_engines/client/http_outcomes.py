"""Waiting over HTTP: few questions about many tasks, started while somebody waits and ended when nobody does."""

from __future__ import annotations

import asyncio
import math
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice

import msgspec

from agent_engines.domain.errors import AgentEnginesError, Unavailable
from agent_engines.domain.tasks import TaskStatus, TaskView

from .unasked import Unasked
from .views import task_view

LONG_WAIT_SECONDS = 20.0
SHORT_WAIT_SECONDS = 0.25
RECONNECT_SECONDS = 0.5
MOST_IDS = 1000
"""What the server takes in one question (api/limits.py)."""
MOST_LANES = 8
REST_SECONDS = 0.05
"""Pause after an answer that brought little, for each thousand tasks asked about: so that the next brings more."""
CHECKS = 16
SUBMITTED = 100_000
"""Tasks not known to have ended; older ones are asked about with those beside them, as if their outcomes had had to go."""
VAIN_ASKS = 20
"""A task nobody waits for makes room for others when it was asked about so often."""

_is_uuid = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch


class EndedAnswer(msgspec.Struct):
    """What `POST /v1/tasks:wait` answers."""

    items: list[msgspec.Raw]
    more: bool = False


class _Head(msgspec.Struct):
    task_id: str
    status: TaskStatus


Ask = Callable[[Sequence[str], float], Awaitable[EndedAnswer | None]]
"""Which of these have ended, within so many seconds? None: the server does not know the question."""
Waiter = asyncio.Future[TaskView | None]

_read_head = msgspec.json.Decoder(_Head).decode


class HttpOutcomes:
    """`view` reads one task now. At most `lanes` questions are under way; the last one is brief, so that none has to wait long."""

    def __init__(self, ask: Ask, view: Callable[[str], Awaitable[TaskView]], *, lanes: int) -> None:
        self._ask = ask
        self._view = view
        self._lanes = max(2, min(lanes, MOST_LANES))
        self._supported = True
        self._closed = False
        self._waiters: dict[str, list[Waiter]] = {}
        self._strangers: set[str] = set()
        """Waited for, but not known to exist."""
        self._unsettled: OrderedDict[str, int] = OrderedDict()
        self._unasked: Unasked[bytes] = Unasked()
        self._asked: set[str] = set()
        self._jobs: set[asyncio.Task[None]] = set()
        self._soon: asyncio.Handle | None = None
        self._meagre_at = -math.inf

    def submitted(self, task_ids: Iterable[str]) -> None:
        """These exist: ask about them along with others."""
        if not self._supported:
            return
        for task_id in task_ids:
            if _is_uuid(task_id) and task_id not in self._unasked:
                self._unsettled.setdefault(task_id, 0)
        if (over := len(self._unsettled) - SUBMITTED) > 0:
            self._unasked.drop([self._unsettled.popitem(last=False)[0] for _ in range(over)])

    async def outcome(self, task_id: str) -> TaskView | None:
        """The terminal view; None when this task has to be asked for by itself. Raises NotFound."""
        if not self._supported or not _is_uuid(task_id):
            return None
        known = self._unasked.take(task_id)
        if known is not None:
            return _read_view(known)
        if self._closed:
            raise AgentEnginesError("the client is closed")
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(task_id, []).append(waiter)
        if task_id not in self._unsettled:
            self._strangers.add(task_id)
        self._start_soon()
        try:
            return await waiter
        finally:
            self._leave(task_id, waiter)

    def forget(self, task_id: str) -> None:
        """The task runs again: what was kept, or is on its way here, is not its outcome any more."""
        self._unasked.forget(task_id)
        self._asked.discard(task_id)

    async def close(self) -> None:
        """Whoever still waits gets an error."""
        self._closed = True
        for task_id in list(self._waiters):
            self._fail(task_id, AgentEnginesError("the client is closed"))
        self._stop()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    def _leave(self, task_id: str, waiter: Waiter) -> None:
        waiting = self._waiters.get(task_id, [])
        if waiter in waiting:
            waiting.remove(waiter)
            if not waiting:
                del self._waiters[task_id]
                self._strangers.discard(task_id)
        if not self._waiters:
            self._stop()

    def _stop(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        for job in self._jobs:
            job.cancel()

    def _start_soon(self) -> None:
        """Later in this round of the loop, when everybody who begins to wait now has said so."""
        if self._soon is None and self._waiters and not self._closed:
            self._soon = asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._soon = None
        while len(self._jobs) < self._lanes:
            wanted = list(islice((one for one in self._waiters if one not in self._asked), MOST_IDS + 1))
            if not wanted:
                return
            brief = len(wanted) > MOST_IDS or len(self._jobs) + 1 == self._lanes
            ids = self._filled(wanted[:MOST_IDS])
            self._asked.update(ids)
            wait = SHORT_WAIT_SECONDS if brief else LONG_WAIT_SECONDS
            job = asyncio.ensure_future(self._run(ids, 0.0 if self._strangers.intersection(ids) else wait))
            self._jobs.add(job)
            job.add_done_callback(lambda job, ids=ids: self._done(job, ids))

    def _filled(self, wanted: list[str]) -> list[str]:
        """With tasks nobody waits for yet: those that had to go beside them, or else the next in the order of submission."""
        room = MOST_IDS - len(wanted)
        if beside := self._unasked.beside(wanted, room):
            return [*wanted, *beside]
        waiters, asked = self._waiters, self._asked
        others = (one for one in self._unsettled if one not in waiters and one not in asked)
        return [*wanted, *islice(others, room)]

    async def _run(self, ids: list[str], wait: float) -> None:
        time = asyncio.get_running_loop().time
        rest = min(REST_SECONDS * len(self._asked) / MOST_IDS, SHORT_WAIT_SECONDS)
        if (pause := self._meagre_at + rest - time()) > 0:
            await asyncio.sleep(pause)
        try:
            answer = await self._ask(ids, wait)
        except Unavailable as error:
            # The tasks are accepted; whoever is away now comes back, and the waiters' own timeouts decide.
            await asyncio.sleep(_patience(error))
            return
        if answer is None:
            self._give_up()
            return
        ended = {self._deliver(bytes(item)) for item in answer.items}
        if 2 * len(ended) < len(ids):
            self._meagre_at = time()
        missing = [one for one in ids if one not in ended]
        self._in_vain(missing)
        if not answer.more:
            await self._check([one for one in missing if one in self._strangers])

    def _done(self, job: asyncio.Task[None], ids: list[str]) -> None:
        self._jobs.discard(job)
        self._asked.difference_update(ids)
        self._unasked.missed(ids)
        error = None if job.cancelled() else job.exception()
        if error is not None:
            for task_id in ids:
                self._fail(task_id, error)
        self._start_soon()

    def _in_vain(self, ids: list[str]) -> None:
        """Whoever was asked about goes to the end of the row."""
        for task_id in ids:
            waiting = self._waiters.pop(task_id, None)
            if waiting is not None:
                self._waiters[task_id] = waiting
            elif task_id in self._unsettled:
                self._unsettled[task_id] += 1
                if self._unsettled[task_id] % VAIN_ASKS == 0:
                    self._unsettled.move_to_end(task_id)

    async def _check(self, strangers: list[str]) -> None:
        """Tell those who wait for a task that does not exist."""
        for start in range(0, len(strangers), CHECKS):
            await asyncio.gather(*map(self._check_one, strangers[start : start + CHECKS]))

    async def _check_one(self, task_id: str) -> None:
        try:
            view = await self._view(task_id)
        except Unavailable as error:
            await asyncio.sleep(_patience(error))
            return
        except AgentEnginesError as error:
            self._fail(task_id, error)
            return
        self._strangers.discard(task_id)
        if view.status.terminal:
            self._wake(task_id, view)

    def _deliver(self, item: bytes) -> str:
        """Wake those who wait for it, or keep it. Returns the task's id."""
        head = _read_head(item)
        if head.status.terminal:
            self._unsettled.pop(head.task_id, None)
            if head.task_id in self._waiters:
                self._unasked.forget(head.task_id)
                self._wake(head.task_id, _read_view(item))
            elif head.task_id in self._asked and not self._unasked.bring(head.task_id, item, len(item)):
                self._unasked.put(head.task_id, item, len(item))
        return head.task_id

    def _wake(self, task_id: str, view: TaskView | None) -> None:
        self._strangers.discard(task_id)
        for waiter in self._waiters.pop(task_id, ()):
            if not waiter.done():
                waiter.set_result(view)

    def _fail(self, task_id: str, error: BaseException) -> None:
        self._strangers.discard(task_id)
        for waiter in self._waiters.pop(task_id, ()):
            if not waiter.done():
                waiter.set_exception(error)

    def _give_up(self) -> None:
        """An older server: everybody asks for himself."""
        self._supported = False
        self._unsettled.clear()
        for task_id in list(self._waiters):
            self._wake(task_id, None)


def _read_view(item: bytes) -> TaskView:
    return task_view(msgspec.json.decode(item))


def _patience(error: Unavailable) -> float:
    return min(max(error.retry_after, RECONNECT_SECONDS), 5.0)
