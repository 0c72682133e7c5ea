"""The ledger: the durable truth about tasks, decisions, results and agents.

Rules every adapter keeps:
- at most one terminal row per task, ever; it never changes (first writer wins);
- a success is recorded whenever nothing terminal exists yet; a failure or retry only from the current generation;
- of a hedged task two generations are current: the failure of one is noted, that of the other one decides (domain/legs.py);
- every write may be repeated: the second time changes nothing;
- every call has a deadline and raises Unavailable past it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

import msgspec

from agent_engines.domain.agents import AgentMode, AgentProfile
from agent_engines.domain.decisions import Decision
from agent_engines.domain.errors import Unavailable
from agent_engines.domain.messages import Report
from agent_engines.domain.tasks import Task, TaskStatus, TaskView

from .feedback import FeedbackStore
from .learned import LearnedStore
from .redrives import RedriveStore
from .retention import Retention
from .schedules import ScheduleStore
from .secrets import SharedSecrets
from .tenants import TenantStore
from .verdicts import Verdict


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A task with the decision that dispatches it, written together."""

    task: Task
    decision: Decision


class Known(msgspec.Struct, frozen=True, gc=False):
    """What the ledger already held under a task id that was to be accepted."""

    task_id: str
    body_hash: bytes
    status: TaskStatus
    decision: Decision | None
    max_attempts: int | None = None


class StoredTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task read back for another dispatch."""

    task: Task
    status: TaskStatus
    generation: int
    attempt: int
    max_attempts: int
    last_agent: str | None


class Hedge(msgspec.Struct, frozen=True):
    """A second leg: the decision about it (with its task's id), and the agent of the first one."""

    first: str
    decision: Decision


class TaskKind(msgspec.Struct, frozen=True):
    """What decides who may do a task."""

    task_type: str
    requirements: dict[str, Any] = {}


class Page(msgspec.Struct, frozen=True):
    """`next_cursor` is opaque; None on the last page."""

    items: list[Any]
    next_cursor: str | None


class TaskFilter(msgspec.Struct, frozen=True, kw_only=True):
    status: TaskStatus | None = None
    task_type: str | None = None
    agent: str | None = None
    since: float | None = None
    cursor: str | None = None
    limit: int = 50


class DecisionFilter(msgspec.Struct, frozen=True, kw_only=True):
    task_type: str | None = None
    agent: str | None = None
    since: float | None = None
    cursor: str | None = None
    limit: int = 50


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt that did not end its task, or is running."""

    attempt: int
    generation: int
    agent: str
    replica: str
    status: TaskStatus
    started_at: float | None
    completed_at: float | None
    error_type: str | None
    error_message: str | None


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    task_id: str
    task_type: str
    agent: str | None
    reason: str
    attempts: int
    created_at: float
    redriven_at: float | None = None


class LetterFilter(msgspec.Struct, frozen=True, kw_only=True):
    """`reason`: a part of it, in any case; `since`, `until`: given up then, both ends included; `waiting`: not redriven yet."""

    task_type: str | None = None
    agent: str | None = None
    reason: str | None = None
    since: float | None = None
    until: float | None = None
    waiting: bool = False
    cursor: str | None = None
    limit: int = 50


class AgentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `agents`."""

    name: str
    agent_type: str
    status: str
    capabilities: Any
    metadata: dict[str, Any]
    created_at: float
    last_seen: float | None


class LoggedDecision(msgspec.Struct, frozen=True, kw_only=True):
    """A decision joined with its outcome, for learning and for judging policies."""

    decision: Decision
    status: TaskStatus | None
    quality: float | None
    cost: float | None
    execution_time_ms: float | None


class TaskLedger(Protocol):
    """Writing a task's life."""

    async def accept(self, entries: Sequence[Entry]) -> list[Known]:
        """Commit tasks and decisions together; returns those task ids that were there already (nothing changed for them).

        All or nothing. A Known whose decision has one's own request id is one's own earlier write: a repeated call, or
        the same task twice in `entries` (the first one counts). Raises InvalidRequest when one entry cannot be stored.
        """
        ...

    async def plan(self, tasks: Sequence[Task]) -> list[Known]:
        """Commit tasks that wait for their `run_at`, queued and not decided yet; returns those ids that were there already.

        All or nothing. Nobody takes them for stranded; `claim_due` hands them out when they are due. Raises
        InvalidRequest when one of them cannot be stored.
        """
        ...

    async def renew(self, task_ids: Sequence[str], now: float) -> None:
        """Let the silence of these tasks count from `now`: they were accepted long before they could be written."""
        ...

    async def known(self, task_ids: Collection[str]) -> list[Known]:
        """What is there under these ids. Whoever asks promises it to its caller: from now on it cannot be withdrawn."""
        ...

    async def withdraw(self, task_ids: Sequence[str]) -> None:
        """Forget tasks whose dispatch was refused for certain, so nothing was promised.

        One to which anything has happened since stays: above all one that `accept` has told another caller about.
        """
        ...

    async def record(self, reports: Sequence[Report]) -> list[Verdict]:
        """Apply reports in one transaction; one verdict each, in order."""
        ...

    async def due_retries(self, now: float) -> int:
        """How many retries are due and not taken yet, counted up to 10,000."""
        ...

    async def claim_due(self, now: float, limit: int, *, retries: int | None = None) -> list[StoredTask]:
        """Take retries that are due, at most `retries`: generation and attempt already raised, status queued again.

        And planned tasks whose time has come, as generation 1: this is their first dispatch.
        """
        ...

    async def hand_back(self, tasks: Sequence[StoredTask], now: float) -> None:
        """Give up claimed tasks that were not sent: `claim_due` hands them out again from `now` on, as the same generation.

        One that has ended, was cancelled or was claimed by somebody else meanwhile stays as it is.
        """
        ...

    async def stranded_kinds(self, older_than: float, *, agents: Sequence[str] | None = None) -> list[TaskKind]:
        """What kinds of tasks `claim_stranded` would find: at most 1,000, of more others at each call."""
        ...

    async def claim_stranded(
        self,
        older_than: float,
        limit: int,
        *,
        kinds: Sequence[TaskKind] | None = None,
        agents: Sequence[str] | None = None,
    ) -> list[StoredTask]:
        """Take queued and running tasks without news since `older_than` (epoch seconds); generation already raised.

        `kinds`: only these, and what is past its deadline. A running task is given its own `timeout_seconds` on top,
        unless `agents` are named: then only what these have, as they are gone. One whose cancellation was asked for is
        cancelled instead.
        """
        ...

    async def redispatched(self, entries: Sequence[tuple[str, Decision]]) -> None:
        """Note the new decision for tasks that were claimed and published again."""
        ...

    async def hedge(self, hedges: Sequence[Hedge]) -> list[StoredTask]:
        """Give first dispatches that are under way a second leg, generation 2 of the same attempt, and record its decision.

        Those that have ended, failed, were cancelled or dispatched again meanwhile are left out.
        """
        ...

    async def legs(self, task_id: str) -> list[str]:
        """The agents of a hedged task's legs, those that have fallen left out; empty: it was not hedged."""
        ...

    async def cancel(self, task_id: str, now: float) -> TaskStatus:
        """Cancel: a queued or retrying task becomes cancelled at once, a running one is marked.

        Returns the status afterwards; raises NotFound, Conflict (terminal already).
        """
        ...

    async def reopen(self, task_id: str, now: float) -> StoredTask:
        """Redrive a dead letter or retry a failed task: as a new generation with a new attempt budget.

        The terminal row moves to the dead letter's history. Raises NotFound, Conflict (succeeded, or not terminal).
        """
        ...


ENDED_BYTES = 4 * 1024 * 1024
"""What the results of one `ended` may weigh together, as stored: callers name up to a thousand tasks, of 1 MiB each."""


class Several(msgspec.Struct, frozen=True):
    """Some of the tasks asked for, in no order. `more`: others belong here too, but their results did not fit."""

    items: list[TaskView]
    more: bool = False


class TaskReader(Protocol):
    """Reading a task's life."""

    async def task(self, task_id: str) -> TaskView:
        """Raises NotFound."""
        ...

    async def origin(self, task_id: str) -> str:
        """Where its submitter listens for outcomes; empty when that is not known."""
        ...

    async def several(self, task_ids: Sequence[str], most_bytes: int = ENDED_BYTES) -> Several:
        """Those of these tasks that are known, ended or not, up to so many bytes of results; at least one if there is one."""
        ...

    async def ended(self, task_ids: Sequence[str]) -> Several:
        """Those of these tasks that are terminal, with their results, up to ENDED_BYTES; at least one if there is one."""
        ...

    async def tasks(self, wanted: TaskFilter) -> Page:
        """Newest first; items are TaskView without `result`."""
        ...

    async def attempts(self, task_id: str) -> list[AttemptView]: ...

    async def dead_letters(self, limit: int, cursor: str | None) -> Page: ...

    async def letters(self, wanted: LetterFilter) -> Page:
        """Dead letters, newest first."""
        ...

    async def count_letters(self, wanted: LetterFilter) -> int:
        """How many there are, whatever `cursor` and `limit` say."""
        ...

    async def dead_letter(self, task_id: str) -> DeadLetter:
        """Raises NotFound."""
        ...

    async def counts(self) -> dict[str, int]:
        """Tasks by status, terminal ones counted from `task_results`."""
        ...


class DecisionLog(Protocol):
    """The record of every choice."""

    async def log(self, decisions: Sequence[Decision]) -> None:
        """Record decisions that dispatched nothing (recommendations)."""

    async def decision(self, request_id: str) -> Decision:
        """Raises NotFound."""
        ...

    async def decisions(self, wanted: DecisionFilter) -> Page: ...

    async def outlines(self, since: float, limit: int) -> list[LoggedDecision]:
        """As `history`, the decisions without words, context and numbers; `eligible` names everybody."""
        ...

    async def outlines_of(self, request_ids: Sequence[str]) -> list[LoggedDecision]:
        """The outlines of these, in any order; who dispatched nothing or is not there is left out."""
        ...

    async def history(self, since: float, limit: int) -> list[LoggedDecision]:
        """Dispatched decisions with their outcomes, oldest first; of more than `limit` the newest."""
        ...


class AgentDirectory(Protocol):
    """The `agents` table: who was ever there. `register` returns what operators said of them where that is not `active`."""

    async def register(self, profiles: Sequence[AgentProfile], now: float) -> dict[str, AgentMode]: ...

    async def seen(self, names: Sequence[str], now: float) -> None: ...

    async def set_status(self, name: str, status: str) -> None: ...
    async def agents(self) -> list[AgentRecord]: ...


class Ledger(Protocol):
    """One pool of connections with its parts."""

    @property
    def tasks(self) -> TaskLedger: ...

    @property
    def reader(self) -> TaskReader: ...

    @property
    def decisions(self) -> DecisionLog: ...

    @property
    def agents(self) -> AgentDirectory: ...

    @property
    def retention(self) -> Retention: ...

    @property
    def schedules(self) -> ScheduleStore: ...

    @property
    def redrives(self) -> RedriveStore: ...

    @property
    def tenants(self) -> TenantStore: ...

    @property
    def feedback(self) -> FeedbackStore: ...

    @property
    def secrets(self) -> SharedSecrets: ...

    @property
    def learned(self) -> LearnedStore: ...

    async def check(self) -> bool:
        """A real query within 2 seconds."""
        ...

    def refusal(self) -> Unavailable | None:
        """What every call that can do without an answer would raise at once, while the ledger is known to be away."""

    async def close(self) -> None: ...
