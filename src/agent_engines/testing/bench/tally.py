"""What one load came to: counted while it runs, summed up afterwards."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_engines.domain.errors import (
    AgentEnginesError,
    BudgetSpent,
    InvalidRequest,
    NoEligibleAgent,
    QueueFull,
    TooLarge,
    Unavailable,
    Unreachable,
)
from agent_engines.domain.percentiles import percentile
from agent_engines.domain.tasks import TaskStatus

UNREACHABLE = "unreachable"
"""Whether it was accepted is not known."""
WRONG = "wrong result"
LOST = "lost"
UNENDED = "no end"
PERCENTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
_REASONS: tuple[tuple[type[AgentEnginesError], str], ...] = (
    (QueueFull, "429 queue full"),
    (BudgetSpent, "429 budget spent"),
    (NoEligibleAgent, "503 no eligible agent"),
    (Unreachable, UNREACHABLE),
    (Unavailable, "503 unavailable"),
    (TooLarge, "413 too large"),
    (InvalidRequest, "422 invalid"),
)


def reason_of(error: AgentEnginesError) -> str:
    """Why a submission was not accepted, in the words of the HTTP interface whichever way it went."""
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), type(error).__name__)


@dataclass
class Tally:
    """Counts of one load. Moments are seconds of one steady clock; `due` counts tasks of an open loop that had to be sent.

    `waiting`: ids of tasks that are accepted and have not ended. `ends`: by status, and WRONG, LOST and UNENDED.
    """

    begun: float
    ended: float = 0.0
    sent: int = 0
    accepted: int = 0
    due: int | None = None
    refused: Counter[str] = field(default_factory=Counter[str])
    ends: Counter[str] = field(default_factory=Counter[str])
    durability: Counter[str] = field(default_factory=Counter[str])
    waiting: set[str] = field(default_factory=set[str])
    accept_seconds: list[float] = field(default_factory=list[float])
    end_seconds: list[float] = field(default_factory=list[float])
    last_accepted: float = 0.0
    last_end: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict[str, float])
    """CPU seconds by process."""

    def take(self, task_id: str, durability: str, now: float) -> None:
        """It was accepted."""
        self.accepted += 1
        self.waiting.add(task_id)
        self.durability[durability] += 1
        self.last_accepted = now

    def end(self, task_id: str, how: str, now: float) -> None:
        """It ended, or we know that it did not."""
        self.waiting.discard(task_id)
        self.ends[how] += 1
        if how not in (LOST, UNENDED):
            self.last_end = now

    @property
    def done(self) -> int:
        return self.ends[TaskStatus.SUCCESS.value]

    @property
    def bad(self) -> int:
        """Tasks that ended otherwise than well, or not at all."""
        return self.ends.total() - self.done

    @property
    def under_way(self) -> int:
        """Tasks without an answer or without an end: only while it runs, and after an interruption."""
        return self.sent - self.refused.total() - self.accepted + len(self.waiting)

    @property
    def unsent(self) -> int:
        """Tasks of an open loop that had to be sent and were not."""
        return 0 if self.due is None else max(0, self.due - self.sent)


def summary(tally: Tally) -> dict[str, Any]:
    """The figures of one load; rates and percentiles are null where there is nothing to tell.

    {"sent", "accepted", "done", "refused": {reason: n}, "failed": {how: n}, "under_way", "unsent", "seconds",
     "accepted_per_s", "done_per_s", "accept_ms": {"p50", "p95", "p99"}, "latency_ms": {.., "max"},
     "cpu_s_per_1000": {process: seconds}}
    A task of an open loop that should have been sent and was not, or has not ended, is slower than every other.
    """
    never = 0 if tally.due is None else tally.unsent + tally.under_way + tally.ends[UNENDED] + tally.ends[LOST]
    return {
        "sent": tally.sent,
        "accepted": tally.accepted,
        "done": tally.done,
        "refused": dict(tally.refused),
        "failed": {how: count for how, count in tally.ends.items() if how != TaskStatus.SUCCESS.value},
        "under_way": tally.under_way,
        "unsent": tally.unsent,
        "seconds": max(0.0, tally.ended - tally.begun),
        "accepted_per_s": _rate(tally.accepted, tally.last_accepted - tally.begun),
        "done_per_s": _rate(tally.done, tally.last_end - tally.begun),
        "accept_ms": milliseconds(tally.accept_seconds),
        "latency_ms": milliseconds(tally.end_seconds, never=never) | {"max": _most(tally.end_seconds, never)},
        "cpu_s_per_1000": {name: 1000 * spent / tally.done for name, spent in tally.cpu.items()} if tally.done else {},
    }


def milliseconds(seconds: Sequence[float], *, never: int = 0) -> dict[str, float | None]:
    """PERCENTILES of these and of `never` more that have no end; null where too few are known, or it is one of those."""
    ordered = [*sorted(seconds), *[math.inf] * never]
    return {name: _finite(percentile(ordered, share)) for name, share in PERCENTILES.items()}


def exit_code(tallies: Sequence[Tally]) -> int:
    """0 done, 1 something failed, was lost or did not end, or nothing was accepted, 3 because nobody answered."""
    if any(tally.bad for tally in tallies):
        return 1
    idle = [tally for tally in tallies if tally.sent and not tally.accepted]
    if any(UNREACHABLE in tally.refused for tally in idle):
        return 3
    return 1 if idle else 0


def spent(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """CPU seconds between two looks, of the processes that were there both times."""
    # One that was started again in between begins at nothing; what it had used before is not known.
    return {name: after[name] - used for name, used in before.items() if name in after and after[name] >= used}


def _rate(count: int, seconds: float) -> float | None:
    return count / seconds if count and seconds > 0 else None


def _most(seconds: Sequence[float], never: int) -> float | None:
    return 1000 * max(seconds) if seconds and not never else None


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else 1000 * value
