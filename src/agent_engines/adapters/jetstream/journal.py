"""The journal over JetStream: a subject for each task, on which only the first message is taken."""

from __future__ import annotations

from collections.abc import Sequence

from agent_engines.adapters import wire
from agent_engines.domain import subjects
from agent_engines.domain.errors import Unavailable
from agent_engines.domain.journal import JournalEntry, LogState
from agent_engines.ports.bus import JournalDelivery
from agent_engines.ports.telemetry import Log

from .api import API_SECONDS, JetStreamApi
from .connection import Connection
from .lane import Arrival
from .logs import LogInbox, StreamLog
from .requests import Outgoing, Requests

FIRST_ONLY = b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: 0\r\n\r\n"
"""Not a message id: the server forgets those after two minutes, and answers a repetition as if it had been stored."""


class JetStreamJournal:
    """Implements ports.bus.Journal."""

    def __init__(
        self, connection: Connection, requests: Requests, api: JetStreamApi, *, lease_seconds: float, log: Log
    ) -> None:
        self._connection = connection
        self._requests = requests
        self._api = api
        self._lease_seconds = lease_seconds
        self._log = log
        self._stream = StreamLog(api, subjects.JOURNAL_STREAM, subjects.KEEPER_DURABLE)

    async def publish_entries(self, entries: Sequence[JournalEntry]) -> list[Exception | None]:
        outgoing = [Outgoing(_subject(entry.task.task_id), wire.encode(entry), FIRST_ONLY) for entry in entries]
        try:
            outcomes = await self._requests.publish_all(outgoing)
        except Unavailable as error:
            return [error] * len(outgoing)
        return [outcome if isinstance(outcome, Exception) else None for outcome in outcomes]

    async def find(self, task_id: str) -> JournalEntry | None:
        subject = _subject(task_id).decode()
        reply = await self._requests.request(
            f"$JS.API.DIRECT.GET.{subjects.JOURNAL_STREAM}.{subject}", b"", API_SECONDS
        )
        if reply.header is None or reply.header.startswith(b"NATS/1.0 4"):
            return None
        try:
            return wire.decode_entry(reply.data)
        except wire.UNDECODABLE as error:
            self._log.error("An entry of the journal cannot be read", task_id=task_id, error=str(error))
            return None

    async def open_journal(self) -> LogInbox[JournalDelivery]:
        lane = await self._stream.open(self._connection, self._lease_seconds, self._log)
        return LogInbox(self._connection, lane, self._log, read=_read, unreadable="An unreadable entry was set aside")

    async def state(self) -> LogState:
        return await self._stream.state()

    async def trim(self, before: int) -> None:
        await self._stream.trim(before)


def _read(arrival: Arrival) -> JournalDelivery:
    return JournalDelivery(wire.decode_entry(arrival.data), arrival.reply)


def _subject(task_id: str) -> bytes:
    """Raises InvalidRequest."""
    return subjects.journal(wire.valid_task_id(task_id)).encode()
