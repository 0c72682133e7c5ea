"""Reports and progress over JetStream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from agent_engines.adapters import wire
from agent_engines.domain import subjects
from agent_engines.domain.agents import validated_agent_id
from agent_engines.domain.journal import LogState
from agent_engines.domain.messages import Progress, Report
from agent_engines.ports.bus import ReportDelivery
from agent_engines.ports.telemetry import Log

from .api import JetStreamApi
from .connection import Connection
from .lane import Arrival
from .logs import LogInbox, StreamLog
from .ordered import OrderedReader
from .requests import Outgoing, Requests
from .task_bus import headers


class JetStreamReports:
    """Implements ports.bus.ReportBus."""

    def __init__(
        self, connection: Connection, requests: Requests, api: JetStreamApi, *, lease_seconds: float, log: Log
    ) -> None:
        self._connection = connection
        self._requests = requests
        self._api = api
        self._lease_seconds = lease_seconds
        self._log = log
        self._stream = StreamLog(api, subjects.RESULTS_STREAM, subjects.RECORDER_DURABLE)

    async def publish_reports(self, agent: str, reports: Sequence[Report]) -> None:
        subject = subjects.result(validated_agent_id(agent)).encode()
        batches = wire.report_messages(reports, self._connection.max_payload // 2)
        outgoing = [Outgoing(subject, raw, headers(message_id, None)) for message_id, raw in batches]
        for outcome in await self._requests.publish_all(outgoing):
            if isinstance(outcome, Exception):
                raise outcome

    async def open_reports(self) -> LogInbox[ReportDelivery]:
        lane = await self._stream.open(self._connection, self._lease_seconds, self._log)
        return LogInbox(self._connection, lane, self._log, read=_read, unreadable="Unreadable reports were set aside")

    async def state(self) -> LogState:
        return await self._stream.state()

    async def trim(self, before: int) -> None:
        await self._stream.trim(before)

    async def publish_progress(self, progress: Progress) -> None:
        await self._requests.publish(
            Outgoing(subjects.progress(wire.valid_task_id(progress.task_id)).encode(), wire.encode(progress))
        )

    async def follow_progress(self, task_id: str, after: int = 0) -> AsyncGenerator[tuple[int, Progress], None]:
        start: dict[str, Any] = {"deliver_policy": "all"}
        if after > 0:
            start = {"deliver_policy": "by_start_sequence", "opt_start_seq": after + 1}
        reader = OrderedReader(
            self._connection,
            self._api,
            subjects.PROGRESS_STREAM,
            subject=subjects.progress(wire.valid_task_id(task_id)),
            start=start,
            log=self._log,
        )
        async with aclosing(reader.read()) as arrivals:
            async for sequence, arrival in arrivals:
                try:
                    progress = wire.decode_progress(arrival.data)
                except wire.UNDECODABLE as error:
                    self._log.warning("Unreadable progress was skipped", sequence=sequence, error=str(error))
                    continue
                yield sequence, progress


def _read(arrival: Arrival) -> ReportDelivery:
    return ReportDelivery(wire.decode_reports(arrival.data), arrival.reply)
