"""Repeats: submissions with an idempotency key the ledger knows already get the answer the first one got.

A router may die between the ledger's commit and the bus. Nobody was promised that task; whoever repeats the submission is
promised it now, so a copy is sent first: the bus keeps one of two. That holds as well for a submission nobody could take at
this moment: a router that has just started knows no agent yet, and this is where repeats of what its predecessor had under
way arrive.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from agent_engines.domain.budgets import capped_attempts
from agent_engines.domain.errors import AgentEnginesError, Unavailable
from agent_engines.domain.messages import SubmitResult, TaskMessage
from agent_engines.domain.tasks import Task, TaskStatus
from agent_engines.ports.clock import Clock
from agent_engines.ports.ledger import Known, TaskLedger
from agent_engines.ports.telemetry import Log

from .answers import COMMITTED, first_answer, refusal
from .dispatches import Dispatches
from .drafts import DEFAULT_ATTEMPTS

PERHAPS_UNSENT_SECONDS = 60.0
"""The bus drops a copy of a message for twice as long (see its de-duplication window): what is younger may be sent again."""

Publish = Callable[[Sequence[TaskMessage]], Awaitable[list[AgentEnginesError | None]]]


class Repeats:
    """`publish` answers each message with None once it is durable."""

    def __init__(self, ledger: TaskLedger, dispatches: Dispatches, publish: Publish, *, clock: Clock, log: Log) -> None:
        self._ledger = ledger
        self._dispatches = dispatches
        self._publish = publish
        self._clock = clock
        self._log = log

    def copy(self, task: Task, known: Known | AgentEnginesError | None) -> TaskMessage | None:
        """What the first submission with its key sent, when it may not have come to that."""
        if not isinstance(known, Known) or known.status is not TaskStatus.QUEUED or known.decision is None:
            return None
        now = self._clock.now()
        if known.body_hash != task.body_hash or now - known.decision.created_at > PERHAPS_UNSENT_SECONDS:
            return None
        attempts = capped_attempts(known.max_attempts or DEFAULT_ATTEMPTS, task.terms.budget)
        return self._dispatches.message(task, known.decision, attempts, now)

    async def answers(self, untaken: Sequence[tuple[int, Task]]) -> list[tuple[int, SubmitResult]]:
        """By place: what those of these tasks are answered that were accepted before."""
        if not untaken:
            return []
        try:
            found = {known.task_id: known for known in await self._ledger.known([task.task_id for _, task in untaken])}
        except Unavailable as error:
            # Refused for want of an agent is true as well, and as temporary.
            self._log.warning(
                "Whether refused submissions are repeats is unknown", tasks=len(untaken), error=str(error)
            )
            return []
        before = [(place, task, found[task.task_id]) for place, task in untaken if task.task_id in found]
        copies = {place: copy for place, task, known in before if (copy := self.copy(task, known)) is not None}
        errors = dict(zip(copies, await self._publish(list(copies.values())), strict=True))
        return [(place, repeated(task, known, errors.get(place))) for place, task, known in before]


def repeated(task: Task, known: Known, error: AgentEnginesError | None, durability: str = COMMITTED) -> SubmitResult:
    """The first answer; `error`: what kept the copy from the bus."""
    if error is not None:
        # Known to the ledger and perhaps to nobody else: no promise yet.
        return SubmitResult(refused=refusal(Unavailable(f"known, but not sent: {error}")))
    return first_answer(task, known, durability=durability)
