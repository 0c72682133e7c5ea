"""Event streams: a task's life as server-sent events, resumable on any replica with Last-Event-ID."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any, cast

from agent_engines.domain.errors import Unavailable
from agent_engines.domain.iso_times import with_iso_times
from agent_engines.ports.service import IntelligenceService, TaskEvent
from agent_engines.ports.telemetry import Log

from .exchange import Call, Reply, Send, encode
from .limits import ApiLimits
from .routing import Operation
from .tasks import task_id_of

EVENT_STREAM = "text/event-stream"
TERMINAL = frozenset({"success", "failed", "dead_letter", "cancelled", "expired"})
RETRY = b"retry: 1000\n\n"
HEARTBEAT = b": still here\n\n"
FAREWELL = b": this server is going away, reconnect\n\n"


class EventRoutes:
    """GET /v1/tasks/{id}/events. `open` streams are bounded."""

    def __init__(self, service: IntelligenceService, limits: ApiLimits, log: Log, draining: asyncio.Event) -> None:
        self._service = service
        self._limits = limits
        self._log = log
        self._draining = draining
        self.open = 0

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/tasks/{task_id}/events",
                handler=self.follow,
                summary="What happens to a task, as server-sent events until it has ended",
                tag="tasks",
                headers={"Last-Event-ID": "go on after this event"},
                replies={200: None, 204: None},
                problems=(404, 406, 503),
                media_type=EVENT_STREAM,
            )
        ]

    async def follow(self, call: Call) -> Reply:
        call.accept(EVENT_STREAM)
        if self.open >= self._limits.event_streams:
            raise Unavailable("too many event streams are open", retry_after=5.0)
        task_id = task_id_of(call)
        view = await self._service.task(task_id)
        after = call.header(b"last-event-id") or None
        events = self._service.events(task_id, after)
        if after is not None and view.status.terminal:
            stored = [event async for event in events]
            if not stored:
                # 204 tells an EventSource to stop reconnecting (HTML standard, section 9.2).
                return Reply(204)
            events = _again(stored)
        return EventStream(events, self)

    async def serve(self, events: AsyncIterator[TaskEvent], call: Call, send: Send) -> None:
        """Write events until the terminal one, until the caller leaves, or until this server drains."""
        self.open += 1
        gone = asyncio.ensure_future(call.gone())
        drain = asyncio.ensure_future(self._draining.wait())
        try:
            async with aclosing(cast("Any", events)):
                await self._pump(events, send, gone, drain)
        except TimeoutError:
            self._log.info("Event stream cut off: its reader takes nothing", request_id=call.request_id)
        finally:
            self.open -= 1
            for watch in (gone, drain):
                watch.cancel()
            await asyncio.gather(gone, drain, return_exceptions=True)

    async def _pump(
        self, events: AsyncIterator[TaskEvent], send: Send, gone: asyncio.Future[Any], drain: asyncio.Future[Any]
    ) -> None:
        coming = asyncio.ensure_future(_next(events))
        try:
            while True:
                done, _ = await asyncio.wait(
                    (coming, gone, drain),
                    timeout=self._limits.heartbeat_seconds,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if gone in done:
                    return
                if coming in done:
                    event = coming.result()
                    await self._write(send, b"" if event is None else framed(event), more=not _last(event))
                    if _last(event):
                        return
                    coming = asyncio.ensure_future(_next(events))
                elif drain in done:
                    await self._write(send, FAREWELL, more=False)
                    return
                else:
                    await self._write(send, HEARTBEAT)
        finally:
            coming.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(coming, return_exceptions=True)

    async def _write(self, send: Send, data: bytes, *, more: bool = True) -> None:
        async with asyncio.timeout(self._limits.write_seconds):
            await send({"type": "http.response.body", "body": data, "more_body": more})


class EventStream(Reply):
    """The answer that goes on. HEAD gets its headers only."""

    __slots__ = ("_events", "_owner")

    def __init__(self, events: AsyncIterator[TaskEvent], owner: EventRoutes) -> None:
        super().__init__(200, b"", b"text/event-stream; charset=utf-8")
        self.headers.append((b"cache-control", b"no-store"))
        # nginx would otherwise keep events until its buffer is full.
        self.headers.append((b"x-accel-buffering", b"no"))
        self._events = events
        self._owner = owner

    async def write(self, call: Call, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        if call.method == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        await send({"type": "http.response.body", "body": RETRY, "more_body": True})
        await self._owner.serve(self._events, call, send)


def framed(event: TaskEvent) -> bytes:
    """One event in the stream's format. JSON has no raw line breaks, so one data line is enough."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (
        event.id.encode(),
        event.event.encode(),
        encode(with_iso_times(event.data)),
    )


def _last(event: TaskEvent | None) -> bool:
    return event is None or event.event in TERMINAL


async def _next(events: AsyncIterator[TaskEvent]) -> TaskEvent | None:
    return await anext(events, None)


async def _again(stored: list[TaskEvent]) -> AsyncIterator[TaskEvent]:
    for event in stored:
        yield event
