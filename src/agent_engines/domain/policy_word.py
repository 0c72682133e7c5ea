"""Which policy all routers route by, and how it came to that: one JSON document, stored under `routing.policy`.

nothing promoted      each router goes by its own ROUTING_STRATEGY
promote c3            promoted = (c3,)
promote prequal       promoted = (c3, prequal)
roll prequal back     promoted = (c3,)
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from .errors import InvalidRequest
from .guardrail import Earned
from .promotion import Gain

MOST_CHANGES = 50
"""Older ones are forgotten."""
MOST_PROMOTED = 20
"""Steps that can be rolled back."""
NAME_LENGTH = 128
BY_LENGTH = 64
REASON_LENGTH = 500


class PolicyOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator says with a change. `force`: also against the evidence, which needs a reason.

    `guard`: roll it back by itself when it does measurably worse (guardrail.py).
    """

    by: str = ""
    reason: str = ""
    force: bool = False
    guard: bool = True


class PolicyChange(msgspec.Struct, frozen=True, kw_only=True, rename={"source": "from"}):
    """One change of the active policy. `source` and `to` are names of strategies; `version` is the one of `to`; `at`: epoch seconds.

    `objections`: what the evidence said against a promotion that was forced. `guarded`: it is rolled back when it earns measurably
    less than `baseline`, what was earned before it. `version` is empty where whoever rolled back did not know it.
    """

    turn: int
    verb: Literal["promote", "rollback"]
    source: str
    to: str
    version: str
    at: float
    by: str = ""
    reason: str = ""
    forced: bool = False
    objections: tuple[str, ...] = ()
    evidence: tuple[Gain, ...] = ()
    guarded: bool = False
    baseline: tuple[Earned, ...] = ()


class PolicyWord(msgspec.Struct, frozen=True, kw_only=True):
    """`promoted`: names of strategies, the last one is active; `changes`: oldest first; `turn` grows by one with each change."""

    turn: int = 0
    promoted: tuple[str, ...] = ()
    changes: tuple[PolicyChange, ...] = ()

    @property
    def active(self) -> str | None:
        """None: each router goes by its own setting."""
        return self.promoted[-1] if self.promoted else None

    @property
    def guarded(self) -> PolicyChange | None:
        """The last change, if it is a promotion that is to be watched."""
        last = self.changes[-1] if self.changes else None
        return last if last is not None and last.guarded and last.to == self.active else None

    @property
    def before(self) -> str | None:
        """What a rollback of the active policy leads to; None: each router's own setting."""
        return self.promoted[-2] if len(self.promoted) > 1 else None


NOTHING_PROMOTED = PolicyWord()

_decode = msgspec.json.Decoder(PolicyWord).decode


def read_policy_word(data: bytes) -> PolicyWord:
    """The stored word, checked. Raises ValueError when it is none."""
    word = _decode(data)
    if word.turn < 0 or len(word.promoted) > MOST_PROMOTED or len(word.changes) > MOST_CHANGES:
        raise ValueError("a number is out of range")
    if any(not 0 < len(name) <= NAME_LENGTH for name in word.promoted):
        raise ValueError("a name is too long or empty")
    if any(not math.isfinite(change.at) for change in word.changes):
        raise ValueError("a time is no number")
    return word


def changed(word: PolicyWord, change: PolicyChange) -> PolicyWord:
    """The word after this change. One more promotion than can be rolled back forgets the first."""
    longer = (*word.promoted, change.to)[-MOST_PROMOTED:]
    promoted = word.promoted[:-1] if change.verb == "rollback" else longer
    return PolicyWord(turn=change.turn, promoted=promoted, changes=(*word.changes, change)[-MOST_CHANGES:])


def check_order(order: PolicyOrder) -> None:
    """Raises InvalidRequest, the field named."""
    for field, text, most in (("by", order.by, BY_LENGTH), ("reason", order.reason, REASON_LENGTH)):
        if len(text) > most:
            raise InvalidRequest(f"{field} must have at most {most} characters", field=field)
        if not text.isprintable():
            raise InvalidRequest(f"{field} must be one line of printable text", field=field)
    if order.force and not order.reason.strip():
        raise InvalidRequest("reason is missing: a promotion against the evidence says why", field="reason")
