"""A model of the broker that shows the nasty facts; tests/integration/test_broker_facts.py holds the real one to the same.

- a delivery that is not acknowledged within its lease comes again, for ever: a poisonous message stays;
- an acknowledgement counts whoever sends it and however late; a second one changes nothing;
- a message id is known for a while, then it is forgotten: the same publish is stored again;
- a full queue refuses, except a duplicate, which is answered as the first time; a refused publish burns no id;
- a new leader may hand out the same delivery count twice;
- a power failure may undo the last second of stores and acknowledgements, unless each write is synced.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from agent_engines.adapters import wire
from agent_engines.domain.errors import Conflict, QueueFull
from agent_engines.domain.tasks import PriorityClass
from agent_engines.testing.evidence import Evidence, ReportKey, TaskKey

from .network import Network
from .process import Process

Push = Callable[[list["Arrived"]], None]


@dataclass(slots=True)
class Stored:
    sequence: int
    raw: bytes
    keys: tuple[Hashable, ...]
    """What the evidence calls its content."""
    message_id: str
    at: float
    count: int = 0
    due: float | None = None
    """When it comes again; None while it waits in line."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """One delivery."""

    sequence: int
    raw: bytes
    count: int


@dataclass(slots=True, eq=False)
class Pull:
    owner: Process
    limit: int
    push: Push


@dataclass(slots=True)
class ModelQueue:
    """One durable work queue with one consumer, shared by many pullers."""

    network: Network
    evidence: Evidence
    kind: str
    lease: float
    window: float
    limit: int = 1_000_000
    discard_old: bool = False
    """A planted bug: a full queue drops instead of refusing."""
    held: dict[int, Stored] = field(default_factory=dict[int, Stored])
    ready: deque[int] = field(default_factory=deque[int])
    seen: dict[str, float] = field(default_factory=dict[str, float])
    pulls: list[Pull] = field(default_factory=list[Pull])
    acked: deque[tuple[float, Stored]] = field(default_factory=deque[tuple[float, Stored]])
    sequence: int = 0

    def put(self, raw: bytes, keys: tuple[Hashable, ...], message_id: str) -> None:
        """Raises QueueFull."""
        now = self.network.loop.time()
        self._forget_old_ids(now)
        if message_id in self.seen:
            return
        if len(self.held) >= self.limit:
            if not self.discard_old:
                raise QueueFull(f"the queue holds {self.limit} tasks and takes no more")
            del self.held[next(iter(self.held))]
        self.seen[message_id] = now + self.window
        self.sequence += 1
        self.held[self.sequence] = Stored(self.sequence, raw, keys, message_id, now)
        self.ready.append(self.sequence)
        self.evidence.stored(self.kind, keys)
        self._hand_out()

    def pull(self, pull: Pull) -> None:
        self.pulls.append(pull)
        self._hand_out()

    def end_pull(self, pull: Pull) -> None:
        """Nobody waits any more: the time is over, or the connection went."""
        if pull in self.pulls:
            self.pulls.remove(pull)
            pull.push([])

    def ack(self, sequence: int) -> None:
        stored = self.held.pop(sequence, None)
        if stored is not None:
            self.acked.append((self.network.loop.time(), stored))
            if len(self.acked) > 1000:
                self.acked.popleft()
            self.evidence.acked(self.kind, stored.keys)

    def release(self, sequence: int, delay: float) -> None:
        stored = self.held.get(sequence)
        if stored is None or stored.due is None:
            return
        if delay > 0:
            self._lease(stored, delay)
        else:
            stored.due = None
            self.ready.append(sequence)
            self._hand_out()

    def extend(self, sequence: int) -> None:
        stored = self.held.get(sequence)
        if stored is not None and stored.due is not None:
            self._lease(stored, self.lease)

    def elect(self) -> None:
        """A new leader that had not yet heard of the newest deliveries: counts are repeated, what is out comes again."""
        for stored in self.held.values():
            if stored.due is not None:
                stored.count = max(0, stored.count - 1)

    def forget_ids(self) -> None:
        self.seen.clear()

    def lose_power(self, seconds: float) -> None:
        """Undo what was not synced: stores vanish, acknowledged messages are back."""
        since = self.network.loop.time() - seconds
        for at, stored in self.acked:
            if at > since and stored.at <= since:
                stored.due = None
                self.held[stored.sequence] = stored
                self.ready.append(stored.sequence)
                self.evidence.returned(self.kind, stored.keys)
        self.acked.clear()
        for stored in [stored for stored in self.held.values() if stored.at > since]:
            del self.held[stored.sequence]
            self.seen.pop(stored.message_id, None)
            self.evidence.lost(self.kind, stored.keys)

    def disconnect(self, owner: Process) -> None:
        """Its connection closed: what it asked for will not be sent."""
        self.pulls = [pull for pull in self.pulls if pull.owner is not owner]

    def _hand_out(self) -> None:
        while self.pulls and self.ready:
            batch = self._take(self.pulls[0].limit)
            if batch:
                self.pulls.pop(0).push(batch)

    def _take(self, limit: int) -> list[Arrived]:
        taken: list[Arrived] = []
        while self.ready and len(taken) < limit:
            stored = self.held.get(self.ready.popleft())
            if stored is None or stored.due is not None:
                continue
            stored.count += 1
            self._lease(stored, self.lease)
            taken.append(Arrived(stored.sequence, stored.raw, stored.count))
        return taken

    def _lease(self, stored: Stored, seconds: float) -> None:
        stored.due = self.network.loop.time() + seconds
        self.network.later(seconds, self._came_due, stored, stored.due)

    def _came_due(self, stored: Stored, due: float) -> None:
        if stored.due == due and self.held.get(stored.sequence) is stored:
            stored.due = None
            self.ready.append(stored.sequence)
            self._hand_out()

    def _forget_old_ids(self, now: float) -> None:
        while self.seen and next(iter(self.seen.values())) <= now:
            del self.seen[next(iter(self.seen))]


@dataclass(slots=True)
class Broker:
    """All queues of the one broker, its signals' listeners, and its settings."""

    network: Network
    evidence: Evidence
    lease: float
    window: float = wire.DUPLICATE_WINDOW_SECONDS
    limit: int = 1_000_000
    discard_old: bool = False
    max_bytes: int = 1 << 20
    tasks: dict[tuple[PriorityClass, str], ModelQueue] = field(
        default_factory=dict[tuple[PriorityClass, str], ModelQueue]
    )
    reports: ModelQueue = field(init=False)
    settings: dict[str, tuple[bytes, int]] = field(default_factory=dict[str, tuple[bytes, int]])
    """Value and revision by key."""

    def __post_init__(self) -> None:
        self.reports = ModelQueue(self.network, self.evidence, "report", self.lease, self.window)

    def queue(self, priority: PriorityClass, agent: str) -> ModelQueue:
        found = self.tasks.get((priority, agent))
        if found is None:
            found = ModelQueue(
                self.network, self.evidence, "task", self.lease, self.window, self.limit, self.discard_old
            )
            self.tasks[priority, agent] = found
        return found

    @property
    def queues(self) -> Sequence[ModelQueue]:
        return [*self.tasks.values(), self.reports]

    def set_note(self, key: str, value: bytes, revision: int | None) -> int:
        """Store a setting; its new revision. Raises Conflict when `revision` is not the stored one (0: none)."""
        known = self.settings[key][1] if key in self.settings else 0
        if revision is not None and revision != known:
            raise Conflict(f"the setting {key} changed meanwhile")
        self.settings[key] = (value, known + 1)
        return known + 1

    def elect(self) -> None:
        for queue in self.queues:
            queue.elect()

    def forget_ids(self) -> None:
        for queue in self.queues:
            queue.forget_ids()

    def lose_power(self, seconds: float = 1.0) -> None:
        for queue in self.queues:
            queue.lose_power(seconds)

    def disconnect(self, owner: Process) -> None:
        for queue in self.queues:
            queue.disconnect(owner)

    def drop_connections(self) -> None:
        """What a broker that dies does to everybody."""
        for queue in self.queues:
            queue.pulls.clear()

    def remaining(self) -> tuple[list[TaskKey], list[ReportKey]]:
        """What is still stored."""
        tasks = [key for queue in self.tasks.values() for stored in queue.held.values() for key in stored.keys]
        reports = [key for stored in self.reports.held.values() for key in stored.keys]
        return tasks, reports  # type: ignore[return-value]
