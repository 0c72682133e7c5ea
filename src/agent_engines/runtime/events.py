"""Events of one task, the same on every router: derived from the ledger's rows and the progress stream, never stored.

    queued -> running -> progress ... -> retrying -> running -> ... -> success | failed | dead_letter | ...

An id is `round.attempt.phase.sequence` in fixed widths, so ids sort as text. The round rises when an ended task is run
again; the sequence is the progress stream's. Only the current round is told. Progress that arrives after its attempt is
over is not told: a stream never goes back.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from agent_engines.domain.errors import Unavailable
from agent_engines.domain.legs import LOST
from agent_engines.domain.messages import Progress
from agent_engines.domain.tasks import TaskStatus, TaskView
from agent_engines.ports.bus import Bus
from agent_engines.ports.ledger import AttemptView, Ledger
from agent_engines.ports.service import TaskEvent
from agent_engines.ports.telemetry import Log

from .desk import LOOK_SECONDS, TaskDesk, Watch

QUEUED, RUNNING, PROGRESS, RETRYING, TERMINAL = 0, 1, 2, 3, 9
SETTLE_SECONDS = 0.2
"""The stored progress of an ended task is complete when nothing more comes for this long."""

_ID = re.compile(r"(\d{2,})\.(\d{4,})\.(\d)\.(\d{12,})")


def event_id(around: int, attempt: int, phase: int, sequence: int = 0) -> str:
    return f"{around:02d}.{attempt:04d}.{phase}.{sequence:012d}"


def life(view: TaskView, attempts: Sequence[AttemptView]) -> list[TaskEvent]:
    """What the ledger's rows tell, in order; the last event is the terminal one when the task has ended."""
    around, rows = current_round(attempts)
    events = {
        event_id(around, 1, QUEUED): TaskEvent(id=event_id(around, 1, QUEUED), event="queued", data=_queued(view))
    }

    def add(attempt: int, phase: int, name: str, data: dict[str, Any]) -> None:
        key = event_id(around, attempt, phase)
        events.setdefault(key, TaskEvent(id=key, event=name, data=data))

    for row in rows:
        if row.started_at is not None:
            add(row.attempt, RUNNING, "running", _running(view, row.attempt, row.agent, row.started_at))
        if row.status is TaskStatus.RETRYING:
            add(row.attempt, RETRYING, "retrying", _retrying(view, row))
    attempt = max([view.attempts, 1, *(row.attempt for row in rows)])
    if view.started_at is not None and view.status is not TaskStatus.RETRYING:
        add(attempt, RUNNING, "running", _running(view, attempt, view.selected_agent, view.started_at))
    if view.status.terminal:
        add(attempt, TERMINAL, str(view.status), msgspec.to_builtins(view))
    return [events[key] for key in sorted(events)]


def current_round(attempts: Sequence[AttemptView]) -> tuple[int, list[AttemptView]]:
    """Number of the current round, from 1, and its rows. A terminal row ends a round: it was kept when the task was reopened.

    That of a hedge's loser does not, and is no news either.
    """
    around, rows = 1, list[AttemptView]()
    for row in attempts:
        if row.error_type == LOST:
            continue
        if row.status.terminal:
            around, rows = around + 1, []
        else:
            rows.append(row)
    return around, rows


class TaskEvents:
    """Streams of events; each open stream costs one watch and one progress subscription."""

    def __init__(self, bus: Bus, ledger: Ledger, desk: TaskDesk, log: Log) -> None:
        self._bus = bus
        self._log = log
        self._ledger = ledger
        self._desk = desk

    async def follow(self, task_id: str, after: str | None = None) -> AsyncGenerator[TaskEvent, None]:
        """Events past `after`, then live ones, ending with the terminal one. Raises NotFound."""
        last = after if after is not None and _ID.fullmatch(after) else ""
        await self._desk.read(task_id)
        inbox: asyncio.Queue[tuple[int, Progress]] = asyncio.Queue(maxsize=1000)
        with self._desk.watch(task_id) as watch:
            pump = asyncio.get_running_loop().create_task(
                self._pump(task_id, _sequence(last), inbox, watch), name="progress-pump"
            )
            try:
                while True:
                    watch.news.clear()
                    view = await self._desk.read(task_id)
                    attempts = await self._ledger.reader.attempts(task_id)
                    if view.status.terminal:
                        await self._settle(inbox, watch)
                    for event in _merged(view, attempts, _drained(inbox)):
                        if event.id > last:
                            last = event.id
                            yield event
                    if view.status.terminal:
                        return
                    await self._desk.wait_for_news(watch, LOOK_SECONDS)
            finally:
                pump.cancel()
                with suppress(asyncio.CancelledError):
                    await asyncio.gather(pump, return_exceptions=True)

    async def _pump(self, task_id: str, after: int, inbox: asyncio.Queue[tuple[int, Progress]], watch: Watch) -> None:
        """Move progress into the inbox; a bus that is away costs progress, never the stream."""
        while True:
            following: AsyncIterator[tuple[int, Progress]] | None = None
            try:
                following = self._bus.reports.follow_progress(task_id, after)
                async for sequence, progress in following:
                    after = sequence
                    await inbox.put((sequence, progress))
                    watch.news.set()
            except Unavailable as error:
                self._log.info("Progress is not followed for now", task_id=task_id, error=str(error))
            finally:
                if isinstance(following, AsyncGenerator):
                    await following.aclose()
            await asyncio.sleep(LOOK_SECONDS)

    async def _settle(self, inbox: asyncio.Queue[tuple[int, Progress]], watch: Watch) -> None:
        """Wait until the stored progress of an ended task has arrived."""
        while not inbox.full():
            before = inbox.qsize()
            watch.news.clear()
            await self._desk.wait_for_news(watch, SETTLE_SECONDS)
            if inbox.qsize() == before:
                return


def _merged(
    view: TaskView, attempts: Sequence[AttemptView], progress: Sequence[tuple[int, Progress]]
) -> list[TaskEvent]:
    """Rows and progress in one order. Progress tells of an attempt that runs before its row may say so."""
    around, _ = current_round(attempts)
    events = {event.id: event for event in life(view, attempts)}
    began = _round_began(attempts)
    for sequence, told in progress:
        if told.at and told.at < began:
            continue
        running = event_id(around, told.attempt, RUNNING)
        if running not in events:
            events[running] = TaskEvent(
                id=running, event="running", data=_running(view, told.attempt, view.selected_agent, told.at)
            )
        key = event_id(around, told.attempt, PROGRESS, sequence)
        events[key] = TaskEvent(id=key, event="progress", data=_progress(told))
    return [events[key] for key in sorted(events)]


def _round_began(attempts: Sequence[AttemptView]) -> float:
    ends = [row.completed_at or 0.0 for row in attempts if row.status.terminal and row.error_type != LOST]
    return max(ends, default=0.0)


def _drained(inbox: asyncio.Queue[tuple[int, Progress]]) -> list[tuple[int, Progress]]:
    return [inbox.get_nowait() for _ in range(inbox.qsize())]


def _sequence(last: str) -> int:
    """Progress sequence to go on after; 0 (all of it, filtered by id) when the last event was none."""
    found = _ID.fullmatch(last)
    return int(found[4]) if found is not None and int(found[3]) == PROGRESS else 0


def _queued(view: TaskView) -> dict[str, Any]:
    return {
        "task_id": view.task_id,
        "task_type": view.task_type,
        "priority": view.priority,
        "submitted_at": view.submitted_at,
    }


def _running(view: TaskView, attempt: int, agent: str | None, started_at: float) -> dict[str, Any]:
    return {"task_id": view.task_id, "attempt": attempt, "selected_agent": agent, "started_at": started_at}


def _progress(told: Progress) -> dict[str, Any]:
    return {
        "task_id": told.task_id,
        "attempt": told.attempt,
        "fraction": told.fraction,
        "message": told.message,
        "data": told.data,
        "at": told.at,
    }


def _retrying(view: TaskView, row: AttemptView) -> dict[str, Any]:
    return {
        "task_id": view.task_id,
        "attempt": row.attempt,
        "selected_agent": row.agent,
        "error": {"type": row.error_type, "message": row.error_message},
        "completed_at": row.completed_at,
    }
