"""A stream kept as a log with one shared reader: how full it is, how far it was read, and forgetting its oldest part."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar, cast

from agent_engines.adapters import wire
from agent_engines.domain.journal import LogState
from agent_engines.ports.telemetry import Log

from .api import JetStreamApi
from .connection import Connection
from .lane import Arrival, Lane, answer, nak
from .streams import durable_consumer


class Delivered(Protocol):
    """Anything a log's inbox gives out."""

    @property
    def token(self) -> object: ...


Delivery = TypeVar("Delivery", bound=Delivered)


class StreamLog:
    """`durable` is the reader whose acknowledgements say what is settled."""

    def __init__(self, api: JetStreamApi, stream: str, durable: str) -> None:
        self._api = api
        self._stream = stream
        self._durable = durable

    async def open(self, connection: Connection, lease_seconds: float, log: Log) -> Lane:
        """The shared reader's way in; its durable is made when it is not there. Raises Unavailable."""

        async def ensure() -> str:
            await self._api.ensure_consumer(
                self._stream, self._durable, durable_consumer(self._durable, lease_seconds, None)
            )
            return self._durable

        lane = Lane(connection, self._stream, ensure, log)
        await lane.open()
        return lane

    async def state(self) -> LogState:
        """Raises Unavailable."""
        reader: dict[str, Any] | None
        stream, reader = await asyncio.gather(
            self._api.call(f"STREAM.INFO.{self._stream}"),
            self._api.find(f"CONSUMER.INFO.{self._stream}.{self._durable}"),
        )
        state, bound = stream["state"], int(stream["config"].get("max_bytes", 0))
        return LogState(
            first=int(state["first_seq"]),
            last=int(state["last_seq"]),
            settled=0 if reader is None else int(reader["ack_floor"].get("stream_seq", 0)),
            bytes=int(state["bytes"]),
            bound=max(0, bound),
        )

    async def trim(self, before: int) -> None:
        """Raises Unavailable."""
        await self._api.call(f"STREAM.PURGE.{self._stream}", {"seq": before})


class LogInbox(Generic[Delivery]):
    """Implements ports.bus.ReportInbox and JournalInbox; a token is the reply subject of the delivery.

    `read` makes a delivery of an arrival; what it cannot read (wire.UNDECODABLE) is set aside with the message `unreadable`.
    """

    def __init__(
        self, connection: Connection, lane: Lane, log: Log, *, read: Callable[[Arrival], Delivery], unreadable: str
    ) -> None:
        self._connection = connection
        self._lane = lane
        self._log = log
        self._read = read
        self._unreadable = unreadable

    async def pull(self, limit: int, wait: float) -> list[Delivery]:
        deliveries: list[Delivery] = []
        for arrival in await self._lane.pull(limit, wait):
            try:
                deliveries.append(self._read(arrival))
            except wire.UNDECODABLE as error:
                # The stream is a log: the bytes stay there for inspection, only this reader is done with them.
                self._log.error(self._unreadable, sequence=arrival.sequences[0], error=str(error))
                answer(self._connection, [arrival.reply], b"+TERM")
        return deliveries

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._answer(deliveries, b"+ACK")

    async def release(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        self._answer(deliveries, nak(delay))

    async def close(self) -> None:
        await self._lane.close()

    def _answer(self, deliveries: Sequence[Delivery], verb: bytes) -> None:
        if not answer(self._connection, [cast("bytes", delivery.token) for delivery in deliveries], verb):
            self._log.warning("Acknowledgements dropped, the bus is away", count=len(deliveries), verb=verb.decode())
