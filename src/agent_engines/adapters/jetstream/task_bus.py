"""Tasks over JetStream: one work queue for each priority class, one durable for each agent in it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from agent_engines.adapters import wire
from agent_engines.domain import subjects
from agent_engines.domain.agents import validated_agent_id
from agent_engines.domain.errors import AgentEnginesError, InvalidRequest, Unavailable
from agent_engines.domain.messages import TaskMessage
from agent_engines.domain.tasks import PriorityClass
from agent_engines.domain.traces import TRACEPARENT
from agent_engines.ports.bus import Delivery
from agent_engines.ports.telemetry import Log

from .api import JetStreamApi
from .connection import Connection
from .lane import Arrival, Lane, answer, nak
from .lease_line import SocketLine
from .requests import Outgoing, Requests
from .streams import durable_consumer


class JetStreamTasks:
    """Implements ports.bus.TaskBus."""

    def __init__(
        self, connection: Connection, requests: Requests, api: JetStreamApi, *, lease_seconds: float, log: Log
    ) -> None:
        self.lease_seconds = lease_seconds
        self._connection = connection
        self._requests = requests
        self._api = api
        self._log = log
        self._subjects: dict[tuple[int, str], bytes] = {}
        """By priority and agent."""

    async def publish_task(self, message: TaskMessage) -> None:
        await self._requests.publish(self._outgoing(message))

    async def publish_tasks(self, messages: Sequence[TaskMessage]) -> list[Exception | None]:
        if len(messages) == 1:
            return [await self._published(messages[0])]
        outcomes: list[Exception | None] = [None] * len(messages)
        outgoing: list[Outgoing] = []
        places: list[int] = []
        for place, message in enumerate(messages):
            try:
                outgoing.append(self._outgoing(message))
                places.append(place)
            except AgentEnginesError as error:
                outcomes[place] = error
        try:
            published = await self._requests.publish_all(outgoing)
        except Unavailable as error:
            published = [error] * len(outgoing)
        for place, outcome in zip(places, published, strict=True):
            outcomes[place] = outcome if isinstance(outcome, Exception) else None
        return outcomes

    async def _published(self, message: TaskMessage) -> Exception | None:
        """What became of one message alone: most submissions over HTTP are no more than that."""
        try:
            await self._requests.publish(self._outgoing(message))
        except AgentEnginesError as error:
            return error
        return None

    async def publish_raw(self, priority: PriorityClass, agent: str, raw: bytes, message_id: str = "") -> None:
        """Store any bytes: what a foreign publisher could do."""
        header = headers(message_id, None) if message_id else b""
        await self._requests.publish(Outgoing(_subject(priority, agent), raw, header))

    async def open_inbox(self, agent: str) -> JetStreamInbox:
        validated_agent_id(agent)
        lanes = {priority: self._lane(priority, agent) for priority in PriorityClass}
        try:
            await asyncio.gather(*(lane.open() for lane in lanes.values()))
        except BaseException:
            await asyncio.gather(*(lane.close() for lane in lanes.values()))
            raise
        return JetStreamInbox(self._connection, lanes, self._log)

    async def backlog(self, agent: str) -> int:
        """A work queue holds exactly what is waiting or unacknowledged, so its messages are counted."""
        validated_agent_id(agent)
        counts = await asyncio.gather(*(self._stored(priority, agent) for priority in PriorityClass))
        return sum(counts)

    async def _stored(self, priority: PriorityClass, agent: str) -> int:
        subject = subjects.task(priority, agent)
        answer = await self._api.call(f"STREAM.INFO.{subjects.task_stream(priority)}", {"subjects_filter": subject})
        counts: dict[str, Any] = answer["state"].get("subjects") or {}
        return int(counts.get(subject, 0))

    def _lane(self, priority: PriorityClass, agent: str) -> Lane:
        stream = subjects.task_stream(priority)
        name = subjects.agent_durable(agent)
        config = durable_consumer(name, self.lease_seconds, subjects.task(priority, agent))

        async def ensure() -> str:
            await self._api.ensure_consumer(stream, name, config)
            return name

        return Lane(self._connection, stream, ensure, self._log)

    def _outgoing(self, message: TaskMessage) -> Outgoing:
        place = (message.priority, message.agent)
        subject = self._subjects.get(place)
        if subject is None:
            subject = self._subjects[place] = _subject(PriorityClass.of(message.priority), message.agent)
        return Outgoing(subject, wire.encode(message), headers(wire.task_id(message), message.traceparent))


class JetStreamInbox:
    """Implements ports.bus.TaskInbox; a token is the reply subject of the delivery."""

    def __init__(self, connection: Connection, lanes: dict[PriorityClass, Lane], log: Log) -> None:
        self._connection = connection
        self._lanes = lanes
        self._log = log

    async def pull(self, priority: PriorityClass, limit: int, wait: float) -> list[Delivery]:
        lane = self._lanes[priority]
        arrivals = await lane.pull(limit, wait)
        if not arrivals and lane.silent:
            raise Unavailable("the bus did not answer a pull", retry_after=1.0)
        return [_delivery(arrival) for arrival in arrivals]

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._answer(deliveries, b"+ACK")

    async def release(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        self._answer(deliveries, nak(delay))

    async def extend(self, deliveries: Sequence[Delivery]) -> None:
        self._answer(deliveries, b"+WPI")

    def line(self) -> SocketLine:
        return SocketLine(self._connection, self._log)

    async def close(self) -> None:
        await asyncio.gather(*(lane.close() for lane in self._lanes.values()))

    def _answer(self, deliveries: Sequence[Delivery], verb: bytes) -> None:
        if not answer(self._connection, [cast("bytes", delivery.token) for delivery in deliveries], verb):
            self._log.warning("Acknowledgements dropped, the bus is away", count=len(deliveries), verb=verb.decode())


def _subject(priority: PriorityClass, agent: str) -> bytes:
    return subjects.task(priority, validated_agent_id(agent)).encode()


def headers(message_id: str, traceparent: str | None) -> bytes:
    """A header block. Raises InvalidRequest when the id could break out of it."""
    if not (message_id.isascii() and message_id.isprintable()):
        raise InvalidRequest("a message id may hold printable ASCII only", field="task_id")
    if traceparent is not None and TRACEPARENT.fullmatch(traceparent):
        return f"NATS/1.0\r\nNats-Msg-Id: {message_id}\r\ntraceparent: {traceparent}\r\n\r\n".encode()
    return f"NATS/1.0\r\nNats-Msg-Id: {message_id}\r\n\r\n".encode()


def _delivery(arrival: Arrival) -> Delivery:
    try:
        return Delivery(wire.decode_task(arrival.data), arrival.delivered, arrival.reply)
    except wire.UNDECODABLE as error:
        return Delivery(None, arrival.delivered, arrival.reply, arrival.data, str(error))
