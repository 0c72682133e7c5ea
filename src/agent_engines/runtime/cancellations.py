"""Orders to cancel: remembered, because the task may still be on its way to this agent."""

from __future__ import annotations

from collections import OrderedDict

from agent_engines.domain.messages import CancelOrder, TaskMessage

MAX_REMEMBERED = 100_000
REMEMBERED_SECONDS = 24 * 3600.0


class Cancellations:
    """The newest 100,000 orders of a day; older ones are forgotten, the ledger refuses the outcome of such a task anyway."""

    def __init__(self) -> None:
        self._ordered: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ordered)

    def remember(self, order: CancelOrder, now: float) -> None:
        """`now`: epoch seconds."""
        at = order.at or now
        for task_id in order.task_ids:
            self._ordered.pop(task_id, None)
            self._ordered[task_id] = at
        while len(self._ordered) > MAX_REMEMBERED:
            self._ordered.popitem(last=False)
        while self._ordered and now - next(iter(self._ordered.values())) > REMEMBERED_SECONDS:
            self._ordered.popitem(last=False)

    def covers(self, message: TaskMessage) -> bool:
        """Was this dispatch ordered to stop? A dispatch made after the order is somebody's wish to run it again."""
        if not self._ordered:
            return False
        at = self._ordered.get(message.task_id)
        if at is None:
            return False
        if message.dispatched_at:
            return message.dispatched_at <= at
        return message.generation == 1
