"""The bus: durable queues for tasks and reports, lossy signals for load and progress, small shared settings.

Guarantees an adapter must keep (and the behaviour suite checks):
- a published task is delivered at least once to the agent it names, until acknowledged; a message id already
  seen within the de-duplication window (2 minutes) is not stored again;
- a late acknowledgement is honoured even if the message was redelivered meanwhile: an ack proves nothing;
- a full queue refuses (QueueFull), it never drops;
- order is not promised.
Every method raises Unavailable when the bus does not answer within its deadline; the outcome of a publish is then
unknown, and repeating it with the same id is safe.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from agent_engines.domain.journal import JournalEntry, LogState
from agent_engines.domain.messages import Progress, Report, TaskMessage
from agent_engines.domain.tasks import PriorityClass


class Delivery(msgspec.Struct, frozen=True):
    """One arrival of a task at an agent. `count` is 1 the first time; `token` is what the adapter acks with."""

    message: TaskMessage | None
    """None when the bytes could not be decoded: `raw` and `problem` then say what arrived."""
    count: int
    token: object
    raw: bytes = b""
    problem: str = ""


class ReportDelivery(msgspec.Struct, frozen=True):
    """One bus message of reports; acked as a whole after all of them are recorded."""

    reports: tuple[Report, ...]
    token: object


class LeaseLine(Protocol):
    """Renews leases for one thread beside the event loop, whatever the loop does. Every call blocks."""

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        """Start the redelivery clocks again, confirmed by the bus. Raises Unavailable, after 5 seconds at most."""
        ...

    def close(self) -> None:
        """From any thread; a `renew` under way ends soon. May be called twice."""
        ...


class TaskInbox(Protocol):
    """The queue of one agent, shared by its replicas."""

    async def pull(self, priority: PriorityClass, limit: int, wait: float) -> list[Delivery]:
        """Up to `limit` tasks of one priority class; returns as soon as there is at least one, or [] after `wait` seconds."""
        ...

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Remove these from the queue for good. Fire and forget: a lost ack means a redelivery."""
        ...

    async def release(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        """Hand these back, to be delivered again after `delay` seconds."""
        ...

    async def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Renew the lease: the redelivery clock starts again."""
        ...

    def line(self) -> LeaseLine | None:
        """A new way to renew leases beside the event loop; None where there are no threads: use `extend`."""
        ...

    async def close(self) -> None: ...


class TaskBus(Protocol):
    """Tasks on their way to agents."""

    @property
    def lease_seconds(self) -> float:
        """How long a delivery may stay unacknowledged before it is delivered again."""
        ...

    async def publish_task(self, message: TaskMessage) -> None:
        """Durable when it returns. Message id: `task_id:generation`. Raises QueueFull, Unavailable."""
        ...

    async def publish_tasks(self, messages: Sequence[TaskMessage]) -> list[Exception | None]:
        """Many at once: for each, in order, None when it is durable, else what `publish_task` would have raised."""
        ...

    async def open_inbox(self, agent: str) -> TaskInbox:
        """Create the agent's queues if they do not exist, and open them."""
        ...

    async def backlog(self, agent: str) -> int:
        """Tasks waiting or unacknowledged for this agent, over all priority classes."""
        ...


class ReportInbox(Protocol):
    """The recorder's view of the report log; replicas of the recorder share it."""

    async def pull(self, limit: int, wait: float) -> list[ReportDelivery]: ...

    async def ack(self, deliveries: Sequence[ReportDelivery]) -> None: ...

    async def release(self, deliveries: Sequence[ReportDelivery], delay: float = 0.0) -> None: ...

    async def close(self) -> None: ...


class ReportBus(Protocol):
    """Reports on their way to the recorder."""

    async def publish_reports(self, agent: str, reports: Sequence[Report]) -> None:
        """One message of many, durable when it returns. Message id: a digest of its bytes. Raises Unavailable."""
        ...

    async def open_reports(self) -> ReportInbox: ...

    async def state(self) -> LogState:
        """How full the log is and how much of it waits for the recorder."""
        ...

    async def trim(self, before: int) -> None:
        """Forget every message before this sequence; the caller knows that it is recorded (domain/journal.py)."""
        ...

    async def publish_progress(self, progress: Progress) -> None:
        """Durable for a day, lossy under pressure (the oldest go first)."""
        ...

    def follow_progress(self, task_id: str, after: int = 0) -> AsyncIterator[tuple[int, Progress]]:
        """Progress of one task as (sequence, progress), first what is stored past `after`, then live, until closed."""
        ...


class JournalDelivery(msgspec.Struct, frozen=True):
    """One accepted task on its way into the ledger."""

    entry: JournalEntry
    token: object


class JournalInbox(Protocol):
    """The keepers' view of the journal; all routers share it."""

    async def pull(self, limit: int, wait: float) -> list[JournalDelivery]: ...

    async def ack(self, deliveries: Sequence[JournalDelivery]) -> None: ...

    async def release(self, deliveries: Sequence[JournalDelivery], delay: float = 0.0) -> None: ...

    async def close(self) -> None: ...


class Journal(Protocol):
    """Accepted tasks the ledger does not have yet: a log with one entry for a task, the first one."""

    async def publish_entries(self, entries: Sequence[JournalEntry]) -> list[Exception | None]:
        """For each, in order: None when it is durable, Conflict when the journal has an entry of that task, else why not."""
        ...

    async def find(self, task_id: str) -> JournalEntry | None:
        """The entry of one task, for as long as the journal remembers it."""
        ...

    async def open_journal(self) -> JournalInbox: ...

    async def state(self) -> LogState:
        """How full the log is and how much of it waits for the ledger."""
        ...

    async def trim(self, before: int) -> None:
        """Forget every message before this sequence; the caller knows that the ledger has it."""
        ...


class LessonLog(Protocol):
    """What outcomes taught: a log that every router reads whole and in order; the oldest go first when it is full."""

    async def publish(self, router: str, data: bytes, message_id: str) -> None:
        """Durable when it returns. Raises Unavailable, TooLarge."""
        ...

    def follow(self, after: int) -> AsyncGenerator[tuple[int, bytes], None]:
        """(sequence, message) of everything past `after`, stored and to come, each once and in order, until closed."""
        ...

    async def identity(self) -> str:
        """Which log this is: another one begins with sequence 1 again."""
        ...

    async def state(self) -> LogState:
        """What the log holds."""
        ...


class Subscription(Protocol):
    async def close(self) -> None: ...


class Signals(Protocol):
    """Lossy and fast: nobody listening is not an error."""

    async def send(self, subject: str, data: bytes) -> None: ...

    async def listen(
        self, subject: str, handler: Callable[[str, bytes], Awaitable[bytes | None]], *, queue: str = ""
    ) -> Subscription:
        """Call `handler(subject, data)` for each message; what it returns is the reply. `*` matches one token, `>` the rest.

        With `queue`, one member of the group gets each message.
        """
        ...

    async def ask(self, subject: str, data: bytes, timeout: float) -> bytes:
        """Raises Unavailable when nobody answers in `timeout` seconds."""
        ...


class Settings(Protocol):
    """Small values shared by all processes, watched rather than polled; last writer wins unless `revision` is given."""

    async def get(self, key: str) -> tuple[bytes, int] | None:
        """Value and revision, or None."""
        ...

    async def put(self, key: str, value: bytes, *, revision: int | None = None, ttl: float | None = None) -> int:
        """Store and return the new revision.

        With `revision`: only if the stored one is the same (0: only if absent), else Conflict. With `ttl` seconds: gone afterwards.
        """
        ...

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        """With `revision`: only if the stored one is the same, else Conflict."""
        ...

    def watch(self, prefix: str) -> AsyncIterator[tuple[str, bytes | None]]:
        """(key, value) for every stored key under the prefix, then every change; None means deleted."""
        ...


class Bus(Protocol):
    """One connection to the bus with its parts."""

    @property
    def tasks(self) -> TaskBus: ...

    @property
    def reports(self) -> ReportBus: ...

    @property
    def signals(self) -> Signals: ...

    @property
    def settings(self) -> Settings: ...

    @property
    def journal(self) -> Journal: ...

    @property
    def lessons(self) -> LessonLog: ...

    @property
    def safe(self) -> bool:
        """True when what the bus has acknowledged survives a power cut by itself (ADR 0001): it may accept tasks alone."""
        ...

    @property
    def connected(self) -> bool: ...

    @property
    def max_message_bytes(self) -> int:
        """The largest message the bus takes."""
        ...

    async def check(self) -> bool:
        """A real round trip within 2 seconds."""
        ...

    async def provision(self) -> None:
        """Create streams, durables and buckets that are missing; widen what may be widened; refuse destructive change."""
        ...

    async def close(self) -> None:
        """Flush what was published, then disconnect; never longer than 5 seconds."""
        ...
