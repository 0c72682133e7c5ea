"""The circuit breaker: stop asking who only fails, ask again carefully later.

          `threshold` failures in a row,
          or too large a share of the window
  CLOSED ───────────────────────────────────> OPEN
    ^                                          │ after open_seconds (+ jitter)
    │ all `probes` succeeded                   v
    └────────────────────────────────────── HALF_OPEN ──> OPEN when one probe fails

Every call takes a permit first and brings it back: succeeded, failed, or unused (cancelled before it said anything).
What an old permit says after the state changed is ignored: it tells about the time before.
"""

from __future__ import annotations

import random
from collections import deque
from enum import IntEnum

import msgspec


class BreakerState(IntEnum):
    """The numbers are what `circuit_breaker_state` shows."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class BreakerRule(msgspec.Struct, frozen=True, kw_only=True):
    """When to open and for how long. `threshold`: failures in a row; `error_share` counts from `min_calls` on.

    `jitter` 0.1 stretches the open time by up to a tenth, so that many breakers do not probe at the same moment.
    A probe nobody brought back within `open_seconds` is given out again.
    """

    threshold: int = 10
    error_share: float = 0.5
    window_seconds: float = 30.0
    min_calls: int = 20
    open_seconds: float = 120.0
    jitter: float = 0.1
    probes: int = 1


class Permit(msgspec.Struct, frozen=True):
    """Permission for one call; belongs to one period of one state."""

    period: int
    probe: bool


class Breaker:
    """One breaker. It has no clock: every method is told `now`, seconds that do not run backwards."""

    SLICES = 10
    """The sliding window moves in tenths."""

    __slots__ = (
        "_cause",
        "_failures_in_row",
        "_open_until",
        "_period",
        "_probes_good",
        "_probes_out",
        "_probing_since",
        "_rng",
        "_rule",
        "_slices",
        "_state",
    )

    def __init__(self, rule: BreakerRule, rng: random.Random) -> None:
        self._rule = rule
        self._rng = rng
        self._state = BreakerState.CLOSED
        self._cause = ""
        self._period = 0
        self._failures_in_row = 0
        self._slices: deque[tuple[int, list[int]]] = deque()
        self._open_until = 0.0
        self._probes_out = 0
        self._probes_good = 0
        self._probing_since = 0.0

    def state(self, now: float) -> BreakerState:
        """The state at `now`; an open breaker whose time is over is half-open."""
        if self._state is BreakerState.OPEN and now >= self._open_until:
            return BreakerState.HALF_OPEN
        return self._state

    @property
    def open_until(self) -> float:
        """End of the current or last open time."""
        return self._open_until

    @property
    def cause(self) -> str:
        """Why it opened last, in a few words; empty while it is closed."""
        return self._cause

    def allows(self, now: float) -> bool:
        """Would `permit` give one? Changes nothing."""
        state = self.state(now)
        if state is BreakerState.HALF_OPEN and self._state is BreakerState.HALF_OPEN:
            return self._probes_out + self._probes_good < self._rule.probes or self._lapsed(now)
        return state is not BreakerState.OPEN

    def permit(self, now: float) -> Permit | None:
        """Ask to make one call; None: do not call."""
        if self._state is BreakerState.CLOSED:
            return Permit(self._period, probe=False)
        if self._state is BreakerState.OPEN:
            if now < self._open_until:
                return None
            self._half_open(now)
        elif self._lapsed(now):
            self._half_open(now)
        if self._probes_out + self._probes_good >= self._rule.probes:
            return None
        self._probes_out += 1
        return Permit(self._period, probe=True)

    def worked(self, now: float) -> bool:
        """A call without a permit worked. False when the breaker is not closed: then only a permit's word counts."""
        if self._state is not BreakerState.CLOSED:
            return False
        self._failures_in_row = 0
        self._slice(now)[0] += 1
        return True

    def succeeded(self, permit: Permit, now: float) -> None:
        """The call worked."""
        if permit.period != self._period:
            return
        if permit.probe:
            self._probes_out -= 1
            self._probes_good += 1
            if self._probes_good >= self._rule.probes:
                self.close()
            return
        self._failures_in_row = 0
        self._slice(now)[0] += 1

    def failed(self, permit: Permit, now: float, why: str = "") -> None:
        """The call failed in a way that speaks against the one who was called; `why` becomes part of the cause."""
        if permit.period != self._period:
            return
        kind = f" of {why}" if why else ""
        if permit.probe:
            self.open(now, cause=f"a trial failed{kind}")
            return
        self._failures_in_row += 1
        counts = self._slice(now)
        counts[0] += 1
        counts[1] += 1
        if self._failures_in_row >= self._rule.threshold:
            self.open(now, cause=f"{self._failures_in_row} failures{kind}")
        elif self._too_many_errors():
            calls, failures = self._counted()
            last = f", the last{kind}" if kind else ""
            self.open(now, cause=f"{failures} failures in {calls} calls{last}")

    def unused(self, permit: Permit) -> None:
        """The call was cancelled or never made; it says nothing."""
        if permit.probe and permit.period == self._period:
            self._probes_out -= 1

    def open(self, now: float, *, until: float | None = None, cause: str = "") -> None:
        """Open now; `until` is given when another replica opened it first."""
        stretch = 1.0 + self._rule.jitter * self._rng.random()
        self._open_until = until if until is not None else now + self._rule.open_seconds * stretch
        self._cause = cause
        self._enter(BreakerState.OPEN)

    def close(self) -> None:
        """Close now and forget what was counted."""
        self._cause = ""
        self._enter(BreakerState.CLOSED)

    def _half_open(self, now: float) -> None:
        self._probing_since = now
        self._enter(BreakerState.HALF_OPEN)

    def _enter(self, state: BreakerState) -> None:
        self._state = state
        self._period += 1
        self._failures_in_row = 0
        self._probes_out = 0
        self._probes_good = 0
        self._slices.clear()

    def _lapsed(self, now: float) -> bool:
        return self._probes_out > 0 and now - self._probing_since >= self._rule.open_seconds

    def _slice(self, now: float) -> list[int]:
        """[calls, failures] of the slice `now` falls in; drops the slices that left the window."""
        number = int(now / self._rule.window_seconds * self.SLICES)
        while self._slices and self._slices[0][0] <= number - self.SLICES:
            self._slices.popleft()
        if not self._slices or self._slices[-1][0] < number:
            self._slices.append((number, [0, 0]))
        return self._slices[-1][1]

    def _too_many_errors(self) -> bool:
        calls, failures = self._counted()
        return calls >= self._rule.min_calls and failures >= self._rule.error_share * calls

    def _counted(self) -> tuple[int, int]:
        """(calls, failures) within the window."""
        return sum(counts[0] for _, counts in self._slices), sum(counts[1] for _, counts in self._slices)
