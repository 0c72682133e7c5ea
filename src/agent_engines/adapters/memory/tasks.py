"""Task queues in memory: one for each agent and priority class, one bound for each class."""

from __future__ import annotations

from collections.abc import Sequence

from agent_engines.adapters import wire
from agent_engines.domain.agents import validated_agent_id
from agent_engines.domain.errors import AgentEnginesError, QueueFull, Unavailable
from agent_engines.domain.messages import TaskMessage
from agent_engines.domain.tasks import PriorityClass
from agent_engines.ports.bus import Delivery
from agent_engines.ports.clock import Clock

from .queues import Door, Held, LeasedQueue, Power, Tally


class MemoryTasks:
    """Implements ports.bus.TaskBus."""

    def __init__(self, clock: Clock, power: Power, *, lease_seconds: float, limit: int, max_bytes: int) -> None:
        self.lease_seconds = lease_seconds
        self._clock = clock
        self._power = power
        self._limit = limit
        self._max_bytes = max_bytes
        self._queues: dict[tuple[PriorityClass, str], LeasedQueue] = {}
        self._tallies = {priority: Tally() for priority in PriorityClass}

    async def publish_task(self, message: TaskMessage) -> None:
        priority = PriorityClass.of(message.priority)
        await self.publish_raw(priority, message.agent, wire.encode(message), wire.task_id(message))

    async def publish_tasks(self, messages: Sequence[TaskMessage]) -> list[Exception | None]:
        outcomes: list[Exception | None] = []
        for message in messages:
            try:
                await self.publish_task(message)
                outcomes.append(None)
            except AgentEnginesError as error:
                outcomes.append(error)
        return outcomes

    async def publish_raw(self, priority: PriorityClass, agent: str, raw: bytes, message_id: str = "") -> None:
        """Store any bytes: what a foreign publisher could do."""
        self._power.check()
        wire.check_size(raw, self._max_bytes)
        queue = self.queue(priority, agent)
        if self._tallies[priority].stored >= self._limit and not queue.knows(message_id):
            raise QueueFull(f"the {priority} queue holds {self._limit} tasks and takes no more")
        queue.put(raw, message_id)

    async def open_inbox(self, agent: str) -> MemoryInbox:
        self._power.check()
        return MemoryInbox(self._power, {priority: self.queue(priority, agent) for priority in PriorityClass})

    async def backlog(self, agent: str) -> int:
        self._power.check()
        return sum(len(self.queue(priority, agent)) for priority in PriorityClass)

    def queue(self, priority: PriorityClass, agent: str) -> LeasedQueue:
        queue = self._queues.get((priority, agent))
        if queue is None:
            validated_agent_id(agent)
            queue = LeasedQueue(self._clock, lease_seconds=self.lease_seconds, tally=self._tallies[priority])
            self._queues[priority, agent] = queue
        return queue


class MemoryInbox:
    """Implements ports.bus.TaskInbox; a token is (queue, sequence)."""

    def __init__(self, power: Power, queues: dict[PriorityClass, LeasedQueue]) -> None:
        self._power = power
        self._queues = queues
        self._door = Door()

    async def pull(self, priority: PriorityClass, limit: int, wait: float) -> list[Delivery]:
        self._power.check()
        queue = self._queues[priority]
        return [_delivery(queue, held) for held in await queue.pull(limit, wait, self._door)]

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        for queue, sequence in map(_token, deliveries):
            queue.ack(sequence)

    async def release(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        for queue, sequence in map(_token, deliveries):
            queue.release(sequence, delay)

    async def extend(self, deliveries: Sequence[Delivery]) -> None:
        for queue, sequence in map(_token, deliveries):
            queue.extend(sequence)

    def line(self) -> MemoryLine:
        return MemoryLine(self._power)

    async def close(self) -> None:
        self._door.is_open = False
        for queue in self._queues.values():
            queue.wake()


class MemoryLine:
    """Implements ports.bus.LeaseLine."""

    def __init__(self, power: Power) -> None:
        self._power = power
        self._closed = False

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        if self._closed:
            raise Unavailable("the line is closed")
        self._power.check()
        # Each step is one operation of the interpreter, so the loop's thread sees a queue that is whole.
        for queue, sequence in map(_token, deliveries):
            queue.extend(sequence)

    def close(self) -> None:
        self._closed = True


def _token(delivery: Delivery) -> tuple[LeasedQueue, int]:
    token: tuple[LeasedQueue, int] = delivery.token  # type: ignore[assignment]
    return token


def _delivery(queue: LeasedQueue, held: Held) -> Delivery:
    token = (queue, held.sequence)
    try:
        return Delivery(wire.decode_task(held.raw), held.count, token)
    except wire.UNDECODABLE as error:
        return Delivery(None, held.count, token, held.raw, str(error))
