"""What all routers say about one agent's breaker: one small JSON document, stored under `breaker.<agent>`.

open        `until`: when it may be tried again
half-open   `until`: how long the trial belongs to the router `by`
closed      `until` 0
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

LONGEST_SECONDS = 100_000.0
"""No word reaches further into the future: the longest CIRCUIT_BREAKER_TIMEOUT (a day) with its jitter."""
MAX_CAUSE = 200


class BreakerWord(msgspec.Struct, frozen=True, kw_only=True):
    """`until` is epoch seconds; `opened` counts how often it opened; `turn` grows with every word about this agent."""

    state: Literal["closed", "half-open", "open"] = "closed"
    until: float = 0.0
    opened: int = 0
    cause: str = ""
    by: str = ""
    turn: int = 0


SILENT = BreakerWord()
"""Nobody has said anything: closed."""

_decode = msgspec.json.Decoder(BreakerWord).decode


def read_word(data: bytes, now: float) -> BreakerWord:
    """The stored word, checked. Raises ValueError when it is none, or reaches further than LONGEST_SECONDS past `now`."""
    word = _decode(data)
    if not math.isfinite(word.until) or word.until > now + LONGEST_SECONDS or min(word.opened, word.turn) < 0:
        raise ValueError("a number is out of range")
    if len(word.cause) > MAX_CAUSE or len(word.by) > MAX_CAUSE:
        raise ValueError("a text is too long")
    return word
