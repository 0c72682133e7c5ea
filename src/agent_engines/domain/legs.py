"""Legs: the dispatches of one attempt whose word counts. One for most tasks, two for one that was hedged.

    {1} --hedged--> {1, 2} --one of them fails--> {the other} --fails too--> the attempt has failed, once

A success ends the task whichever dispatch it comes from. A failure counts from a leg only, and decides only when it is the
last one: until then the other leg may still succeed, so nothing is retried and nothing ends.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum

FIRST = 1
"""Only the first dispatch of a task is hedged: whatever has a later generation has been helped already."""
LOST = "OtherLegWon"
"""Error type of a leg that was cancelled because the other one ended the task: its outcome is unknown, not bad."""


class Word(Enum):
    """What the failure of a dispatch does."""

    DECIDES = "decides"
    """The attempt has failed: the retry rule applies."""
    FALLS = "falls"
    """One leg less; the other decides."""
    STALE = "stale"
    """It is no leg (any more)."""


def word(legs: Collection[int], generation: int) -> Word:
    """What a failure of that generation does to an attempt with these legs."""
    if generation not in legs:
        return Word.STALE
    return Word.DECIDES if len(legs) == 1 else Word.FALLS
