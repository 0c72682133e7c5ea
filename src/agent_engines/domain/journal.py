"""The journal: tasks accepted while the ledger is away, kept on the bus until the ledger has them."""

from __future__ import annotations

import msgspec

from .decisions import Decision
from .messages import VERSION, TaskMessage
from .tasks import NO_PAYLOAD, Task

FULL_SHARE = 0.7
"""A log fuller than this forgets what is settled ..."""
KEEP_SHARE = 0.5
"""... until it is no fuller than this."""


class JournalEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task, the decision about it, and what is still to be sent: a task with a key waits for the ledger's word."""

    v: int = VERSION
    task: Task
    decision: Decision
    unsent: TaskMessage | None = None
    """Without its payload, which is the task's: see `dispatch`. None: the task is on its agent's queue already."""

    @classmethod
    def of(cls, task: Task, decision: Decision, message: TaskMessage, *, sent: bool = False) -> JournalEntry:
        """The entry of one submission; with an idempotency key it is sent later, unless it was `sent` already."""
        if sent or task.idempotency_key is None:
            return cls(task=task, decision=decision)
        return cls(task=task, decision=decision, unsent=msgspec.structs.replace(message, payload=NO_PAYLOAD))

    @property
    def dispatch(self) -> TaskMessage | None:
        """The message that is still to be sent, whole."""
        return None if self.unsent is None else msgspec.structs.replace(self.unsent, payload=self.task.payload)


class LogState(msgspec.Struct, frozen=True, kw_only=True):
    """How full a log of the bus is, in sequences and bytes. `settled`: everything up to it has been acknowledged."""

    first: int = 1
    last: int = 0
    settled: int = 0
    bytes: int = 0
    bound: int = 0
    """Most bytes it takes; 0: no bound."""

    @property
    def waiting(self) -> int:
        """Messages that nobody has settled yet."""
        return max(0, self.last - max(self.settled, self.first - 1))

    @property
    def fullness(self) -> float:
        """0..1 of its bound; 0 without one."""
        return self.bytes / self.bound if self.bound > 0 else 0.0


def forget_before(log: LogState) -> int | None:
    """The sequence before which a log that is nearly full may forget everything; None: nothing.

    Never past what is settled, so that what is not recorded stays whatever happens; the messages' mean size tells how
    far is enough.
    """
    held = log.last - log.first + 1
    if log.fullness <= FULL_SHARE or held <= 0 or log.settled < log.first:
        return None
    surplus = log.bytes - KEEP_SHARE * log.bound
    wanted = -int(-surplus * held // log.bytes)
    return min(log.first + wanted, log.settled + 1)
