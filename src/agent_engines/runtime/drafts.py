"""A submission under way: what was decided about it, and what the ledger says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from agent_engines.domain.decisions import Decision
from agent_engines.domain.errors import AgentEnginesError, BudgetSpent, BudgetTooSmall, NoEligibleAgent, Unavailable
from agent_engines.domain.messages import SubmitResult, TaskMessage
from agent_engines.domain.task_names import moment_of
from agent_engines.domain.tasks import Task
from agent_engines.ports.ledger import Known

from .answers import refusal
from .decider import Choice
from .hedging import Watched

DEFAULT_ATTEMPTS = 3
"""Where neither the task nor its agent says how often it may be tried."""
SAME_WRITE_SECONDS = 1e-4
"""The ledger keeps microseconds: a decision with our request id and our time is our own, written by a repeated call."""
FOR_NOW = (NoEligibleAgent, BudgetSpent, BudgetTooSmall)
"""Refusals that say nothing about a task accepted before: a repeated submission gets its first answer."""
FRESH_SECONDS = 50.0
"""A key may be called fresh for so long around its moment. Whoever used it before did so at most twice as long ago, which
is less than a bus remembers message ids (wire.DUPLICATE_WINDOW_SECONDS): of the two dispatches it keeps the first."""


def fresh_key(key: str, now: float) -> bool:
    """Whether a key that is called fresh may be believed; `now`: epoch seconds."""
    moment = moment_of(key)
    return moment is not None and abs(now - moment) < FRESH_SECONDS


@dataclass(frozen=True, slots=True)
class Submission:
    """What the requests of a submission are answered, in order; None: nothing yet.

    `untaken`: refused for now, each with its place; under the same key they may have been accepted before.
    """

    results: list[SubmitResult | None]
    untaken: list[tuple[int, Task]]

    def refuse(self, place: int, error: AgentEnginesError, task: Task | None = None) -> None:
        """`task`: where the request was one already."""
        self.results[place] = SubmitResult(refused=refusal(error))
        if task is not None and task.idempotency_key is not None and isinstance(error, FOR_NOW):
            self.untaken.append((place, task))


class Taken(msgspec.Struct, frozen=True, gc=False):
    """A task that somebody was chosen for, and counted with; see Draft."""

    place: int
    task: Task
    choice: Choice
    charged: bool


class Draft(msgspec.Struct, frozen=True, gc=False):
    """A request under way. `place`: its position in the submission; `began`: monotonic seconds.

    `after_ledger`: its key may be known already, so it is sent when the ledger has said that it is new.
    """

    place: int
    task: Task
    decision: Decision
    message: TaskMessage
    began: float
    after_ledger: bool
    watched: Watched | None = None
    """It may be hedged when it takes long."""
    charged: bool = False
    """Its price was put down as under way for it; not for a repeat of what is under way already."""


class Turn(msgspec.Struct, frozen=True, gc=False):
    """What the drafts of one turn share. `now`: epoch seconds; `began`: monotonic seconds; `away`: the ledger is, so far."""

    origin: str
    traceparent: str | None
    fresh: bool
    now: float
    began: float
    away: Unavailable | None


Said = Known | BaseException | None
"""What the ledger answered to one entry."""


def ledger_words(drafts: Sequence[Draft], answers: Sequence[Said]) -> list[Known | AgentEnginesError | None]:
    """For each: None for a new task, also when it was this very write that came through before. Raises what is no AgentEnginesError."""
    return [None if said is None else _ledger_word(draft, said) for draft, said in zip(drafts, answers, strict=True)]


def _ledger_word(draft: Draft, said: Known | BaseException) -> Known | AgentEnginesError | None:
    if isinstance(said, AgentEnginesError):
        return said
    if isinstance(said, BaseException):
        raise said
    if said.decision is None:
        return said
    same = said.decision.request_id == draft.decision.request_id
    return None if same and abs(said.decision.created_at - draft.decision.created_at) < SAME_WRITE_SECONDS else said
