"""Hedging: which tasks may run a second time beside themselves, and how that is said.

idempotent · first dispatch · not its last attempt · no budget and no affinity of its own · somebody else to ask
"""

from __future__ import annotations

from .legs import FIRST
from .terms import Terms

LEAST_WAIT_SECONDS = 0.05
"""A second leg is a commit and two messages: for less than this nobody is helped."""
MOST_RACES = 10_000
"""Hedged tasks whose end is waited for; the losers of older ones run to their end."""


def hedgeable(*, idempotent: bool, generation: int, attempt: int, max_attempts: int, others: int, terms: Terms) -> bool:
    """Whether a dispatch may get a second leg. `others`: agents besides the chosen one that could have been chosen.

    A budget bounds what a task may take, and two legs take twice that; an affinity says where it has to be.
    """
    if not idempotent or others < 1:
        return False
    if generation != FIRST or attempt >= max_attempts:
        return False
    return terms.budget is None and terms.affinity is None


def wait_of(after: float) -> float:
    """Seconds to wait for the first leg, where the policy says `after`."""
    return max(after, LEAST_WAIT_SECONDS)


def hedge_reason(agent: str, waited: float, predicted: float, strategy: str) -> str:
    """Why there is a second leg, for the record. Seconds."""
    past = "the 99th percentile of latency / prediction" if strategy == "adaptive" else f"what {strategy} waits for"
    return (
        f"Hedged after {waited:.2f} s: {agent} has not answered, was expected to take {predicted:.2f} s, and that is past "
        f"{past}. Both may run; the first success ends the task, the other is cancelled."
    )
