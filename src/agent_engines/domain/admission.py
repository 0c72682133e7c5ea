"""Admission: more work than can be done is refused at the door, the least urgent first, with an honest time to come back.

Every queue behind the door is measured in seconds: what waits, divided by how fast it empties. A queue whose wait comes
near its bound closes the door for low priorities at half of it, for normal ones at three quarters, for high ones at the
bound itself. So a queue is never empty while callers are refused (the work done stays what can be done), and never long.
A closed door lets those in who had less than half of their share of late: one tenant's flood must not refuse the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .tasks import PriorityClass

CLOSES_AT = {PriorityClass.LOW: 0.5, PriorityClass.NORMAL: 0.75, PriorityClass.HIGH: 1.0}
"""Share of a bound at which the door closes."""
SOONEST_SECONDS = 1.0
LATEST_SECONDS = 30.0
"""Retry-After stays between these: what lies further ahead is not known."""
HALF_LIFE_SECONDS = 3.0
SETTLING_SECONDS = 1.0
"""A rate measured over less is not believed."""


@dataclass(slots=True)
class DrainRate:
    """How fast a queue empties, items per second. Only the time in which something waited counts."""

    left: float = 0.0
    seconds: float = 0.0

    def note(self, left: int, seconds: float, *, waiting: int) -> None:
        """`left` items went in the last `seconds`; `waiting`: how many there were at their beginning."""
        if seconds <= 0 or (waiting <= 0 and left <= 0):
            return
        keep = 0.5 ** (seconds / HALF_LIFE_SECONDS)
        self.left = self.left * keep + max(0, left)
        self.seconds = self.seconds * keep + seconds

    def forget(self) -> None:
        """What was measured says nothing about what comes."""
        self.left = self.seconds = 0.0

    @property
    def per_second(self) -> float | None:
        """None: not known yet."""
        return None if self.seconds < SETTLING_SECONDS else self.left / self.seconds

    def wait(self, waiting: int) -> float:
        """Seconds until what waits now is gone; 0 when that is not known, infinite when nothing moves."""
        rate = self.per_second
        if rate is None or waiting <= 0:
            return 0.0
        return waiting / rate if rate > 0 else math.inf


@dataclass(slots=True)
class Gate:
    """One queue behind the door. `bound`: longest wait, seconds; up to `free` items nobody is refused."""

    bound: float
    free: int
    rate: DrainRate = field(default_factory=DrainRate)

    def retry_after(self, waiting: int, priority: PriorityClass) -> float | None:
        """Seconds after which a caller of this class may be let in; None: now."""
        if waiting <= self.free:
            return None
        late = self.rate.wait(waiting) - CLOSES_AT[priority] * self.bound
        return min(max(late, SOONEST_SECONDS), LATEST_SECONDS) if late > 0 else None


def crowded(fullness: float, priority: PriorityClass, *, bound: float) -> bool:
    """Whether a store (0..1 full of what nobody has settled) is too full for this class; `bound`: for the highest."""
    return fullness > CLOSES_AT[priority] * bound


SHARE_HALF_LIFE_SECONDS = 10.0
BEHIND = 0.5
"""Part of its fair share below which a tenant still comes in."""
MOST_TENANTS = 1_000


@dataclass(slots=True)
class Shares:
    """How much each tenant was let in of late, by weight. Remembers at most MOST_TENANTS of them."""

    taken: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    """By tenant: tasks let in, older ones weighing less, and its weight."""
    at: float = 0.0

    def note(self, tenant: str, weight: float, now: float) -> None:
        """One task was let in at `now`, seconds of a clock that does not run backwards."""
        if now - self.at > SHARE_HALF_LIFE_SECONDS / 10 or len(self.taken) > MOST_TENANTS:
            self._fade(now)
        self.taken[tenant] = (self.taken.get(tenant, (0.0, weight))[0] + 1.0, weight)

    def behind(self, tenant: str, weight: float, now: float) -> bool:
        """Whether this tenant had less than half of its fair share; alone it has all of it."""
        self._fade(now)
        own = self.taken.get(tenant, (0.0, weight))[0]
        others = [(count, heavy) for name, (count, heavy) in self.taken.items() if name != tenant]
        if not others:
            return False
        total = own + sum(count for count, _ in others)
        weights = weight + sum(heavy for _, heavy in others)
        return own < BEHIND * total * weight / weights

    def _fade(self, now: float) -> None:
        keep = 0.5 ** (max(0.0, now - self.at) / SHARE_HALF_LIFE_SECONDS)
        self.at = max(now, self.at)
        faded = ((name, count * keep, weight) for name, (count, weight) in self.taken.items())
        self.taken = {name: (count, weight) for name, count, weight in faded if count > 0.01}
        while len(self.taken) > MOST_TENANTS:
            del self.taken[min(self.taken, key=lambda name: self.taken[name][0])]
