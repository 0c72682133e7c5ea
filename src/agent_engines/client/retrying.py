"""Trying again: whether, and after what pause."""

from __future__ import annotations

import random

from agent_engines.domain.errors import AgentEnginesError, Unavailable, Unreachable

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0


def repeatable(error: object, *, keyed: bool) -> bool:
    """Whether sending it again may help and does no harm.

    Without an idempotency key an unanswered submission is not repeated: it may have been accepted.
    """
    return isinstance(error, Unavailable) and (keyed or not isinstance(error, Unreachable))


class Patience:
    """The pauses of one submission. `budget` is the sum of pauses it may take, seconds."""

    def __init__(self, budget: float, rng: random.Random) -> None:
        self._left = budget
        self._rng = rng
        self._pause = FIRST_PAUSE_SECONDS

    def pause(self, error: AgentEnginesError) -> float | None:
        """Seconds to wait before the next try, never less than the server asked for; None: the budget is used up."""
        asked = error.retry_after if isinstance(error, Unavailable) and not isinstance(error, Unreachable) else 0.0
        # Jitter on top of what was asked for, so that refused callers do not come back as one.
        pause = asked + self._rng.uniform(0.5, 1.0) * self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
        if pause > self._left:
            return None
        self._left -= pause
        return pause
