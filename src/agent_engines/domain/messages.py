"""What travels on the bus, version 1: JSON objects, unknown fields ignored, payloads embedded as the caller's bytes.

Compatibility rule: a field is only ever added, with a default; a writer uses it one release after readers know it.
All times are epoch seconds (float), all durations say their unit.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from .agents import AgentProfile, AgentState, Load
from .tasks import NO_PAYLOAD, TaskError, TaskRequest, TaskStatus
from .terms import DEFAULT_TENANT

VERSION = 1


class TaskMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One dispatch of one task to one agent. (generation, delivery) is its epoch: generation counts dispatches."""

    v: int = VERSION
    task_id: str
    request_id: str
    task_type: str
    agent: str
    generation: int = 1
    attempt: int = 1
    max_attempts: int = 3
    priority: int = 3
    payload: msgspec.Raw = NO_PAYLOAD
    requirements: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    timeout_seconds: float | None = None
    deadline: float | None = None
    submitted_at: float = 0.0
    origin: str = ""
    traceparent: str | None = None
    capability: str = ""
    tenant: str = DEFAULT_TENANT
    weight: float = 1.0
    """The tenant's share of an agent that has more to do than it can."""
    dispatched_at: float = 0.0
    """When this generation was published; an order to cancel does not reach dispatches made after it."""
    hedge: bool = False
    """The second leg of an attempt whose first one is under way elsewhere."""


class ReportKind(StrEnum):
    STARTED = "started"
    """The attempt runs (only told for attempts that take a while)."""
    RETRY = "retry"
    """The attempt failed and another one is due at `retry_at`."""
    FINAL = "final"
    """The attempt ended the task: `status` is terminal."""
    FEEDBACK = "feedback"
    """Somebody judged the work of a task that had ended: `quality`, by `judge`."""


class Judge(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who judges somebody else's work, and in which words."""

    source: str
    comment: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What an agent says about one attempt; enough to rebuild the ledger's rows from it."""

    v: int = VERSION
    kind: ReportKind
    task_id: str
    request_id: str
    task_type: str
    agent: str | None
    replica: str = ""
    generation: int = 1
    attempt: int = 1
    delivery: int = 1
    status: TaskStatus = TaskStatus.RUNNING
    result: msgspec.Raw = NO_PAYLOAD
    error: TaskError | None = None
    started_at: float | None = None
    completed_at: float | None = None
    execution_time_ms: float | None = None
    retry_at: float | None = None
    quality: float | None = None
    """0..1, when the handler judged its own work; None: only success or failure is known."""
    cost: float | None = None
    tokens: int | None = None
    tenant: str = DEFAULT_TENANT
    priority: int = 3
    submitted_at: float = 0.0
    origin: str = ""
    traceparent: str | None = None
    capability: str = ""
    judge: Judge | None = None
    """FEEDBACK only."""


class ReportBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Many reports in one bus message: a lone outcome goes at once, a busy agent sends hundreds."""

    v: int = VERSION
    seal: str = ""
    """On `outcomes.*` the routers' mark over the JSON of `reports`: their capabilities were checked, so they may teach."""
    reports: tuple[Report, ...]


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """One replica of an agent, telling who it is and how busy. `seq` rises by one each time."""

    v: int = VERSION
    agent: str
    replica: str
    state: AgentState
    load: Load
    sent_at: float
    seq: int = 0
    profile: AgentProfile | None = None
    """Present in full heartbeats (start, every interval, on request); absent in the light ones in between."""
    interval_seconds: float = 30.0


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a handler tells about its task while it runs."""

    v: int = VERSION
    task_id: str
    attempt: int = 1
    fraction: float | None = None
    message: str = ""
    data: Any = None
    at: float = 0.0


class CancelOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Tell whoever runs these tasks to stop."""

    v: int = VERSION
    task_ids: tuple[str, ...]
    at: float = 0.0
    """When it was ordered; 0: when it arrives."""


class Acceptance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The answer to a submission: durable from here on."""

    task_id: str
    request_id: str
    status: TaskStatus
    selected_agent: str | None
    confidence: float
    propensity: float
    strategy: str
    reasoning: str
    policy_version: str
    durability: str = "committed"
    existing: bool = False
    """True when the idempotency key was already known: this is the first submission's answer."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why one submission of a batch was not accepted. `kind` is the error class's name."""

    kind: str
    detail: str
    field: str | None = None
    retry_after: float | None = None


class SubmitBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Submissions over the bus; outcomes come back on `recorded.<origin>`."""

    v: int = VERSION
    origin: str
    requests: tuple[TaskRequest, ...]
    fresh: bool = False
    """Their idempotency keys were made for this message: nobody has submitted them before."""


class SubmitReply(msgspec.Struct, frozen=True, kw_only=True):
    """One entry for each request, in order."""

    v: int = VERSION
    results: tuple[SubmitResult, ...]


class SubmitResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    accepted: Acceptance | None = None
    refused: Refusal | None = None


class TaskQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Ask `intelligence` for `task`, `attempts`, `cancel`, `retry`, `redrive`, `judgements` or `dead_letter` of one task."""

    task_id: str
    wait_seconds: float = 0.0
    """`task` only: answer as soon as the task is terminal, at the latest after this long."""


class EventQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Ask `intelligence` for `events`: what happened to a task that has ended, past the event with the id `after`.

    The answer is as many events as fit a message, in order; the last of all is the end. None while the task has not ended.
    """

    task_id: str
    after: str = ""


class TasksQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Ask `intelligence` for `several` tasks, as they are now. Routers from this release on know it."""

    task_ids: list[str]


class TasksReply(msgspec.Struct, frozen=True):
    """The answer: TaskViews of those that are known, and whether there are `more` that did not fit into a message."""

    items: list[msgspec.Raw]
    more: bool = False


class FeedbackOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Ask `intelligence` for `feedback`: judge a task that has ended (domain/feedback.py)."""

    task_id: str
    quality: float
    source: str = "caller"
    comment: str = ""


class DecisionQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Ask `intelligence` for one `decision`."""

    request_id: str


class AgentQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Ask `intelligence` for one `agent`; with `mode` (active, draining, quarantined) ask `set_mode`."""

    agent: str
    mode: str | None = None


class PageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Ask `intelligence` for `dead_letters`. `tasks` and `decisions` take the filters of ports/ledger.py."""

    limit: int = 50
    cursor: str | None = None
    task_type: str | None = None
    agent: str | None = None
    reason: str | None = None
    since: float | None = None
    waiting: bool = False


class ReportQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Ask `intelligence` to ask another engine: `report`."""

    engine: str
    what: str


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The reply to every ask of the intelligence engine: `value` as JSON, or why there is none."""

    value: msgspec.Raw = NO_PAYLOAD
    refused: Refusal | None = None
