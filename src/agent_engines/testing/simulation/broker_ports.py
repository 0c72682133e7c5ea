"""The broker as one process sees it: implements ports.bus over the network of the simulation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, cast

from agent_engines.adapters import wire
from agent_engines.adapters.memory.signals import matches
from agent_engines.domain.errors import AgentEnginesError, Unavailable
from agent_engines.domain.journal import LogState
from agent_engines.domain.messages import Progress, Report, TaskMessage
from agent_engines.domain.tasks import PriorityClass
from agent_engines.ports.bus import Delivery, ReportDelivery
from agent_engines.testing.evidence import report_key, task_key

from .broker_model import Arrived, Broker, ModelQueue, Pull
from .network import Network, Reply, check_alive
from .no_journal import NoJournal
from .no_lessons import NoLessons
from .process import Process

BROKER = "broker"
SLACK_SECONDS = 2.0
NOTES = ("starts.", "series.")
"""Settings that agents write: about starts of redelivered tasks, and about deaths in series."""
Handler = Callable[[str, bytes], Awaitable[bytes | None]]


class Listener:
    """One subscription of one process."""

    def __init__(self, owner: Process, subject: str, handler: Handler, switchboard: Switchboard) -> None:
        self.owner = owner
        self.tokens = subject.split(".")
        self._handler = handler
        self._switchboard = switchboard

    def hear(self, subject: str, data: bytes) -> None:
        """Called in the listener's own process."""
        if self.owner.alive:
            self.owner.spawn(self._handle(subject, data), name=f"hears {subject}")

    async def _handle(self, subject: str, data: bytes) -> None:
        await self._handler(subject, data)

    async def close(self) -> None:
        self._switchboard.drop(self)


class Switchboard:
    """Who listens to what; shared by all processes."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._listeners: list[Listener] = []

    def add(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def drop(self, listener: Listener) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)

    def forget(self, owner: Process) -> None:
        self._listeners = [listener for listener in self._listeners if listener.owner is not owner]

    def send(self, subject: str, data: bytes) -> None:
        """Deliver to each listener by itself; every copy may be lost."""
        tokens = subject.split(".")
        for listener in self._listeners:
            if not matches(listener.tokens, tokens) or self.network.lost_signal():
                continue
            if self.network.reachable(listener.owner, BROKER):
                context = listener.owner.context
                self.network.loop.call_later(self.network.latency(), listener.hear, subject, data, context=context)


class SimulatedSignals:
    """Implements ports.bus.Signals, without questions: nobody in the simulation asks."""

    def __init__(self, owner: Process, switchboard: Switchboard) -> None:
        self._owner = owner
        self._switchboard = switchboard

    async def send(self, subject: str, data: bytes) -> None:
        check_alive(self._owner)
        network = self._switchboard.network
        if not network.reachable(self._owner, BROKER):
            raise Unavailable("the broker is not connected")
        network.post(self._owner, BROKER, f"signals {subject}", lambda: self._switchboard.send(subject, data))

    async def listen(self, subject: str, handler: Handler, *, queue: str = "") -> Listener:
        listener = Listener(self._owner, subject, handler, self._switchboard)
        await self._switchboard.network.call(
            self._owner, BROKER, f"listens {subject}", lambda: self._switchboard.add(listener)
        )
        return listener

    async def ask(self, subject: str, data: bytes, timeout: float) -> bytes:
        raise Unavailable(f"nobody listens on {subject}")


class SimulatedTasks:
    """Implements ports.bus.TaskBus."""

    def __init__(self, owner: Process, broker: Broker) -> None:
        self.lease_seconds = broker.lease
        self._owner = owner
        self._broker = broker

    async def publish_task(self, message: TaskMessage) -> None:
        raw = wire.encode(message)
        queue = self._broker.queue(PriorityClass.of(message.priority), message.agent)
        message_id = wire.task_id(message)
        await self._broker.network.call(
            self._owner,
            BROKER,
            f"publishes {message_id} attempt {message.attempt} to {message.agent}",
            lambda: queue.put(raw, (task_key(message),), message_id),
        )

    async def publish_tasks(self, messages: Sequence[TaskMessage]) -> list[Exception | None]:
        found = await asyncio.gather(*(self.publish_task(message) for message in messages), return_exceptions=True)
        for one in found:
            if one is not None and not isinstance(one, AgentEnginesError):
                raise one
        return [one if isinstance(one, Exception) else None for one in found]

    async def open_inbox(self, agent: str) -> SimulatedInbox:
        await self._broker.network.call(self._owner, BROKER, f"opens {agent}", lambda: None)
        queues = {priority: self._broker.queue(priority, agent) for priority in PriorityClass}
        return SimulatedInbox(self._owner, queues)

    async def backlog(self, agent: str) -> int:
        queues = [self._broker.queue(priority, agent) for priority in PriorityClass]
        return await self._broker.network.call(
            self._owner, BROKER, f"counts {agent}", lambda: sum(len(queue.held) for queue in queues)
        )


class SimulatedInbox:
    """Implements ports.bus.TaskInbox; a token is (queue, sequence)."""

    def __init__(self, owner: Process, queues: dict[PriorityClass, ModelQueue]) -> None:
        self._owner = owner
        self._queues = queues
        self._closed = False

    async def pull(self, priority: PriorityClass, limit: int, wait: float) -> list[Delivery]:
        if self._closed:
            raise Unavailable("the inbox is closed")
        queue = self._queues[priority]
        return [_delivery(queue, one) for one in await pulled(self._owner, queue, limit, wait)]

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        for queue, sequence in map(_token, deliveries):
            answer(self._owner, queue, f"acks {sequence}", lambda q=queue, s=sequence: q.ack(s))

    async def release(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        for queue, sequence in map(_token, deliveries):
            answer(self._owner, queue, f"releases {sequence}", lambda q=queue, s=sequence: q.release(s, delay))

    async def extend(self, deliveries: Sequence[Delivery]) -> None:
        for queue, sequence in map(_token, deliveries):
            answer(self._owner, queue, f"extends {sequence}", lambda q=queue, s=sequence: q.extend(s))

    def line(self) -> None:
        """No threads here: leases are renewed from the loop."""
        return

    async def close(self) -> None:
        self._closed = True


class SimulatedReports:
    """Implements ports.bus.ReportBus."""

    def __init__(self, owner: Process, broker: Broker) -> None:
        self._owner = owner
        self._broker = broker

    async def publish_reports(self, agent: str, reports: Sequence[Report]) -> None:
        for message_id, raw in wire.report_messages(reports, self._broker.max_bytes // 2):
            keys = tuple(report_key(report) for report in wire.decode_reports(raw))
            told = ", ".join(f"{key[0]}:{key[1]} {key[4]}" for key in keys)
            await self._broker.network.call(
                self._owner,
                BROKER,
                f"reports {told}",
                lambda raw=raw, keys=keys, message_id=message_id: self._broker.reports.put(raw, keys, message_id),
            )

    async def open_reports(self) -> SimulatedReportInbox:
        await self._broker.network.call(self._owner, BROKER, "opens reports", lambda: None)
        return SimulatedReportInbox(self._owner, self._broker.reports)

    async def state(self) -> LogState:
        return LogState(last=len(self._broker.reports.held))

    async def trim(self, before: int) -> None:
        """The model has no bound in bytes."""

    async def publish_progress(self, progress: Progress) -> None:
        """Told and forgotten: nobody in the simulation follows progress."""

    async def follow_progress(self, task_id: str, after: int = 0) -> AsyncIterator[tuple[int, Progress]]:
        raise Unavailable("progress is not simulated")
        yield


class SimulatedReportInbox:
    """Implements ports.bus.ReportInbox; a token is the sequence."""

    def __init__(self, owner: Process, queue: ModelQueue) -> None:
        self._owner = owner
        self._queue = queue

    async def pull(self, limit: int, wait: float) -> list[ReportDelivery]:
        arrived = await pulled(self._owner, self._queue, limit, wait)
        return [ReportDelivery(wire.decode_reports(one.raw), one.sequence) for one in arrived]

    async def ack(self, deliveries: Sequence[ReportDelivery]) -> None:
        for delivery in deliveries:
            sequence = cast("int", delivery.token)
            answer(self._owner, self._queue, f"acks report {sequence}", lambda s=sequence: self._queue.ack(s))

    async def release(self, deliveries: Sequence[ReportDelivery], delay: float = 0.0) -> None:
        for delivery in deliveries:
            sequence = cast("int", delivery.token)
            answer(
                self._owner,
                self._queue,
                f"releases report {sequence}",
                lambda s=sequence: self._queue.release(s, delay),
            )

    async def close(self) -> None:
        """Nothing is held on the broker."""


class SimulatedSettings:
    """Implements ports.bus.Settings for the agents' notes; other processes only look for what nobody has set.

    Nothing expires: a run is shorter than any note is kept.
    """

    def __init__(self, owner: Process, broker: Broker) -> None:
        self._owner = owner
        self._broker = broker

    async def get(self, key: str) -> tuple[bytes, int] | None:
        if not key.startswith(NOTES):
            return None
        stored = self._broker.settings
        return await self._broker.network.call(self._owner, BROKER, f"looks at {key}", lambda: stored.get(key))

    async def put(self, key: str, value: bytes, *, revision: int | None = None, ttl: float | None = None) -> int:
        if not key.startswith(NOTES):
            raise Unavailable("only notes are simulated")
        what = f"sets {key} to {value.decode()}"
        return await self._broker.network.call(
            self._owner, BROKER, what, lambda: self._broker.set_note(key, value, revision)
        )

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        raise Unavailable("settings are not simulated")

    def watch(self, prefix: str) -> AsyncIterator[tuple[str, bytes | None]]:
        return _Silence()


class _Silence:
    """Never tells anything. A class, because a generator left behind would be closed at the collector's whim."""

    def __aiter__(self) -> _Silence:
        return self

    async def __anext__(self) -> tuple[str, bytes | None]:
        await asyncio.get_running_loop().create_future()
        raise StopAsyncIteration


class SimulatedBus:
    """Implements ports.bus.Bus for one process."""

    def __init__(self, owner: Process, broker: Broker, switchboard: Switchboard) -> None:
        self._owner = owner
        self._broker = broker
        self.tasks = SimulatedTasks(owner, broker)
        self.reports = SimulatedReports(owner, broker)
        self.signals = SimulatedSignals(owner, switchboard)
        self.settings = SimulatedSettings(owner, broker)
        self.journal = NoJournal()
        self.lessons = NoLessons()
        owner.on_death.append(lambda: broker.disconnect(owner))
        owner.on_death.append(lambda: switchboard.forget(owner))

    @property
    def safe(self) -> bool:
        return False

    @property
    def connected(self) -> bool:
        return self._broker.network.reachable(self._owner, BROKER)

    @property
    def max_message_bytes(self) -> int:
        return self._broker.max_bytes

    async def check(self) -> bool:
        return self.connected

    async def provision(self) -> None:
        """Queues of the model come into being by use."""

    async def close(self) -> None:
        self._broker.disconnect(self._owner)


def answer(owner: Process, queue: ModelQueue, what: str, work: Callable[[], object]) -> None:
    """Acknowledge in some form; nobody answers, and it may be lost."""
    check_alive(owner)
    if not queue.network.lost_ack():
        queue.network.post(owner, BROKER, what, work)


async def pulled(owner: Process, queue: ModelQueue, limit: int, wait: float) -> list[Arrived]:
    """One pull request: the broker waits up to `wait` seconds for the first message, and answers with what it has."""
    if limit <= 0:
        return []
    network = queue.network

    def serve(reply: Reply) -> None:
        def push(batch: list[Arrived]) -> None:
            if batch:
                network.note(f"{owner.name} gets {[(one.sequence, one.count) for one in batch]}")
            reply(batch, None)

        pull = Pull(owner, limit, push)
        queue.pull(pull)
        network.later(max(wait, 0.0), queue.end_pull, pull)

    found: Any = await network.request(owner, BROKER, serve, wait + SLACK_SECONDS, calm=True)
    return found


def _token(delivery: Delivery) -> tuple[ModelQueue, int]:
    return cast("tuple[ModelQueue, int]", delivery.token)


def _delivery(queue: ModelQueue, arrived: Arrived) -> Delivery:
    return Delivery(wire.decode_task(arrived.raw), arrived.count, (queue, arrived.sequence))
