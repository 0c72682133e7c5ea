"""Repeats: submissions nobody could take now, whose idempotency key says that they may have been accepted before.

The decision comes before the ledger's word. Whoever repeats a submission is to get its first answer all the same, not be
refused because its agent is away at this moment.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent_engines.domain.errors import Unavailable
from agent_engines.domain.messages import SubmitResult
from agent_engines.domain.tasks import Task
from agent_engines.ports.ledger import TaskLedger
from agent_engines.ports.telemetry import Log

from .answers import first_answer


async def first_answers(ledger: TaskLedger, tasks: Iterable[tuple[int, Task]], log: Log) -> dict[int, SubmitResult]:
    """By place: what those of these tasks were answered that are in the ledger."""
    places = list(tasks)
    if not places:
        return {}
    try:
        found = {known.task_id: known for known in await ledger.known([task.task_id for _, task in places])}
    except Unavailable as error:
        # Refused for want of an agent is true as well, and as temporary.
        log.warning("Whether refused submissions are repeats is unknown", tasks=len(places), error=str(error))
        return {}
    return {place: first_answer(task, found[task.task_id]) for place, task in places if task.task_id in found}
