"""The retry budget: retries may add a fifth to the ordinary work, never more, so that failures cannot feed on themselves.

    in the 10 seconds before each retry:  retries <= max(20 % of the ordinary dispatches, 3 a second)

The numbers are Envoy's (20 %, at least 3), counted over a window as Finagle does, since a task is not a connection. Each
router keeps to it with what it sends itself, so the fleet does. What does not fit waits; nothing is given up.
"""

from __future__ import annotations

from collections import deque

RATIO = 0.2
FLOOR_PER_SECOND = 3.0
WINDOW_SLICES = 10
"""Slices of one second: what was sent counts until its slice has left the window."""


class RetryBudget:
    """Tell it every dispatch. Times are monotonic seconds that never run backwards."""

    __slots__ = ("_floor", "_ordinary", "_ratio", "_retries", "_slices")

    def __init__(self, *, ratio: float = RATIO, floor_per_second: float = FLOOR_PER_SECOND) -> None:
        self._ratio = ratio
        self._floor = floor_per_second * WINDOW_SLICES
        self._slices: deque[list[int]] = deque()
        """[second, ordinary, retries], oldest first."""
        self._ordinary = 0
        self._retries = 0

    def ordinary(self, now: float, amount: int = 1) -> None:
        """First dispatches were sent."""
        self._slice(now)[1] += amount
        self._ordinary += amount

    def spent(self, now: float, amount: int = 1) -> None:
        """Retries were sent."""
        self._slice(now)[2] += amount
        self._retries += amount

    def left(self, now: float) -> int:
        """How many retries may be sent now."""
        self._slice(now)
        return max(0, int(max(self._floor, self._ratio * self._ordinary)) - self._retries)

    def _slice(self, now: float) -> list[int]:
        second, slices = int(now), self._slices
        while slices and slices[0][0] <= second - WINDOW_SLICES:
            _, ordinary, retries = slices.popleft()
            self._ordinary -= ordinary
            self._retries -= retries
        if not slices or slices[-1][0] != second:
            slices.append([second, 0, 0])
        return slices[-1]
