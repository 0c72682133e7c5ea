"""The log of lessons over JetStream: every router reads all of it, in order."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from agent_engines.domain import subjects
from agent_engines.domain.journal import LogState
from agent_engines.ports.telemetry import Log

from .api import JetStreamApi
from .connection import Connection
from .ordered import OrderedReader
from .requests import Outgoing, Requests
from .task_bus import headers


class JetStreamLessons:
    """Implements ports.bus.LessonLog."""

    def __init__(self, connection: Connection, requests: Requests, api: JetStreamApi, *, log: Log) -> None:
        self._connection = connection
        self._requests = requests
        self._api = api
        self._log = log

    async def publish(self, router: str, data: bytes, message_id: str) -> None:
        await self._requests.publish(Outgoing(subjects.lesson(router).encode(), data, headers(message_id, None)))

    async def follow(self, after: int) -> AsyncGenerator[tuple[int, bytes], None]:
        start: dict[str, Any] = {"deliver_policy": "all"}
        if after > 0:
            start = {"deliver_policy": "by_start_sequence", "opt_start_seq": after + 1}
        reader = OrderedReader(
            self._connection, self._api, subjects.LESSONS_STREAM, subject=subjects.LESSONS, start=start, log=self._log
        )
        async with aclosing(reader.read()) as arrivals:
            async for sequence, arrival in arrivals:
                yield sequence, arrival.data

    async def identity(self) -> str:
        return str((await self._info())["created"])

    async def state(self) -> LogState:
        state = (await self._info())["state"]
        return LogState(first=int(state["first_seq"]), last=int(state["last_seq"]), bytes=int(state["bytes"]))

    async def _info(self) -> dict[str, Any]:
        return await self._api.call(f"STREAM.INFO.{subjects.LESSONS_STREAM}")
