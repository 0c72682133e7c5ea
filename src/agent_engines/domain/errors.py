"""Every error this package raises, sorted by what the caller should do next.

AgentEnginesError
├── InvalidRequest            fix the named field and send it again
│   ├── BudgetTooSmall        the task's own budget pays for no agent that may do it
│   ├── Malformed             the bytes are not the expected format at all
│   └── TooLarge              the body is over the limit
├── Conflict                  it already is: same key with another body, or a task that ended
├── NotFound                  no such task, agent, decision
├── Unavailable               try again after `retry_after` seconds
│   ├── Unreachable           nobody answered: whether anything was accepted is unknown
│   ├── QueueFull             the bounded queue is full: backpressure
│   ├── BudgetSpent           the tenant has spent what it may in this period
│   └── NoEligibleAgent       nobody alive can do this task now
├── TaskFailed                the task ended in another state than success
├── ContractViolation         a handler or plug-in broke its promise
├── ConfigurationError        a setting is wrong: names the variable, the value, the allowed range
├── EmbeddedServerError       an embedded server cannot run here: names what is missing
└── BackupFailed              a backup cannot be made, read or restored: names the fault and the way out

Handlers raise two more, which are messages to the runtime rather than faults:
RetryLater (try this task again, optionally after a delay) and PermanentFailure (never try it again).
"""

from __future__ import annotations


class AgentEnginesError(Exception):
    """The base of all errors of this package."""


class InvalidRequest(AgentEnginesError):
    """A field has a value that cannot be accepted; `field` names it."""

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field


class Malformed(InvalidRequest):
    """The body could not be decoded at all."""


class TooLarge(InvalidRequest):
    """The body is over the size limit."""


class BudgetTooSmall(InvalidRequest):
    """The task's budget pays for no agent that may do it; `detail` says what the cheapest would take."""


class Conflict(AgentEnginesError):
    """The request contradicts what is already recorded."""


class NotFound(AgentEnginesError):
    """Nothing is known under that identifier."""


class Unavailable(AgentEnginesError):
    """A part that is needed is away; nothing was accepted. Try again after `retry_after` seconds."""

    def __init__(self, detail: str, *, retry_after: float = 1.0) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after


class Unreachable(Unavailable):
    """The server did not answer: whether it accepted anything is unknown."""


class QueueFull(Unavailable):
    """The bounded queue refused the task; nothing was accepted."""


class BudgetSpent(Unavailable):
    """The tenant's budget pays for no agent any more; a new period begins after `retry_after` seconds."""


class NoEligibleAgent(Unavailable):
    """No live agent can perform this task; `detail` says why each candidate fell."""


class TaskFailed(AgentEnginesError):
    """The awaited task ended without success."""

    def __init__(self, task_id: str, status: str, detail: str) -> None:
        super().__init__(f"task {task_id} ended as {status}: {detail}")
        self.task_id = task_id
        self.status = status
        self.detail = detail


class ContractViolation(AgentEnginesError):
    """A handler or plug-in returned or declared something the contract forbids."""


class ConfigurationError(AgentEnginesError):
    """One or more settings are wrong; `problems` has one readable line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class EmbeddedServerError(AgentEnginesError):
    """An embedded server could not be started; the message says what is missing and what to do."""


class BackupFailed(AgentEnginesError):
    """A backup could not be made, read or restored; nothing was changed. The message says what to do."""


class RetryLater(Exception):
    """Raised by a handler: this attempt did not work, try again, not before `after_seconds`."""

    def __init__(self, reason: str = "", *, after_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.after_seconds = after_seconds


class PermanentFailure(Exception):
    """Raised by a handler: this task can never work, do not try it again."""
