"""When to add replicas: the scaling matrix, and the warning at 80 % of capacity.

Waiting tasks of one agent (all replicas together), both ends as written:

    0 .. 100       none
    101 .. 500     monitor
    501 .. 1000    scale up by 1 (to 750) or 2
    over 1000      emergency: 3, and one more for each further 1000, at most 10

The bands are the operations guide's matrix; where two of its bands share a number, the calmer one has it, because the
last band starts strictly above 1000.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

CALM = 100
MONITOR = 500
HALF_WAY = 750
SCALE_UP = 1000
EMERGENCY_REPLICAS = 3
MOST_REPLICAS = 10

WARN_AT = 0.8
"""Share of capacity in use at which an operator is warned (the operations guide)."""
CALM_SECONDS = 30.0
"""A capacity episode is over after this long without a new high: load that flickers warns once, not each time."""


class ScalingAction(StrEnum):
    NONE = "none"
    MONITOR = "monitor"
    SCALE_UP = "scale_up"
    EMERGENCY = "emergency"


URGENCY = tuple(ScalingAction)
"""From calm to urgent."""


class ScalingAdvice(msgspec.Struct, frozen=True, kw_only=True):
    """What to do about one queue; `reason` is the sentence for people."""

    action: ScalingAction
    add_replicas: int
    reason: str


def advise(waiting: int) -> ScalingAdvice:
    """The matrix, for any number of waiting tasks (less than none counts as none)."""
    if waiting <= CALM:
        return ScalingAdvice(action=ScalingAction.NONE, add_replicas=0, reason=f"{max(0, waiting)} waiting: fine")
    if waiting <= MONITOR:
        return ScalingAdvice(
            action=ScalingAction.MONITOR, add_replicas=0, reason=f"{waiting} waiting, over {CALM}: watch it"
        )
    if waiting <= SCALE_UP:
        more = 1 if waiting <= HALF_WAY else 2
        reason = f"{waiting} waiting, over {MONITOR}: add {more} replica{'s' if more > 1 else ''}"
        return ScalingAdvice(action=ScalingAction.SCALE_UP, add_replicas=more, reason=reason)
    more = min(MOST_REPLICAS, EMERGENCY_REPLICAS + (waiting - SCALE_UP - 1) // 1000)
    return ScalingAdvice(
        action=ScalingAction.EMERGENCY,
        add_replicas=more,
        reason=f"{waiting} waiting, over {SCALE_UP}: add {more} replicas now",
    )


def most_urgent(actions: list[ScalingAction]) -> ScalingAction:
    """NONE for an empty list."""
    return max(actions, key=URGENCY.index, default=ScalingAction.NONE)


def used_share(waiting: int, running: int, slots: int, queue_size: int) -> float:
    """How much of an agent's capacity is in use, 0 up: the fuller one of its slots and its bounded queue.

    Work that waits for a slot counts against the slots too, so a backlog shows as more than 1.
    """
    of_slots = (waiting + running) / slots if slots > 0 else (1.0 if waiting + running else 0.0)
    of_queue = waiting / queue_size if queue_size > 0 else 0.0
    return max(of_slots, of_queue)


class CapacityWatch:
    """One warning for each episode at or over WARN_AT; the episode ends after CALM_SECONDS below it."""

    __slots__ = ("_last_high", "active")

    def __init__(self) -> None:
        self.active = False
        self._last_high = 0.0

    def update(self, now: float, share: float) -> bool:
        """Take a reading; True when `active` has just changed."""
        before = self.active
        if share >= WARN_AT:
            self._last_high = now
            self.active = True
        elif self.active and now - self._last_high >= CALM_SECONDS:
            self.active = False
        return self.active is not before
