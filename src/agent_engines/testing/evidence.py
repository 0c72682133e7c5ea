"""Evidence: what the servers did, in order, for a checker that believes nobody's word."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from agent_engines.domain.messages import Report, TaskMessage
from agent_engines.domain.tasks import TaskStatus

TaskKey: TypeAlias = tuple[str, int]
"""(task id, generation)."""
ReportKey: TypeAlias = tuple[str, int, int, int, str]
"""(task id, generation, attempt, delivery, kind)."""


class Fact(NamedTuple):
    """`what`: stored, acked, returned, lost (of messages), committed (reports), written, changed, removed (terminal rows),
    hedged, retried (dispatches the ledger gave out).
    """

    what: str
    kind: str
    key: Hashable
    status: TaskStatus | None = None


class Evidence:
    """An ordered list of facts; append only."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def stored(self, kind: str, keys: Iterable[Hashable]) -> None:
        self.facts.extend(Fact("stored", kind, key) for key in keys)

    def acked(self, kind: str, keys: Iterable[Hashable]) -> None:
        self.facts.extend(Fact("acked", kind, key) for key in keys)

    def returned(self, kind: str, keys: Iterable[Hashable]) -> None:
        """A power failure undid the acknowledgement."""
        self.facts.extend(Fact("returned", kind, key) for key in keys)

    def lost(self, kind: str, keys: Iterable[Hashable]) -> None:
        """A power failure undid the store."""
        self.facts.extend(Fact("lost", kind, key) for key in keys)

    def committed(self, reports: Sequence[Report]) -> None:
        """The ledger has dealt with these, whatever its verdict."""
        self.facts.extend(Fact("committed", "report", report_key(report), report.status) for report in reports)

    def dispatched(self, what: str, keys: Iterable[TaskKey]) -> None:
        """The ledger gave out a second leg (hedged), or the next attempt of a task (retried)."""
        self.facts.extend(Fact(what, "task", key) for key in keys)

    def row(self, what: str, task_id: str, status: TaskStatus) -> None:
        """A terminal row was written, changed or removed."""
        self.facts.append(Fact(what, "row", task_id, status))


def task_key(message: TaskMessage) -> TaskKey:
    return message.task_id, message.generation


def report_key(report: Report) -> ReportKey:
    return report.task_id, report.generation, report.attempt, report.delivery, report.kind.value
