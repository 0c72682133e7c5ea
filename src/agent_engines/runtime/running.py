"""What runs now: one shared timer watches all attempts, instead of one timer each.

The timer rests while nothing runs. It ends attempts that are over their time, and tells which ones take a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from .attempt import INSIST_SECONDS, Attempt, Stop

TICK_SECONDS = 0.05
LONG_SECONDS = 0.05
"""An attempt that still runs after this long is announced as started; shorter ones are told by their outcome alone."""


class Running:
    """The running attempts of one loop. `on_long` gets each attempt at most once."""

    def __init__(self, on_long: Callable[[list[Attempt]], None] | None = None) -> None:
        self._attempts: dict[Attempt, None] = {}
        self._on_long = on_long
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wakes_at = 0.0

    def __len__(self) -> int:
        return len(self._attempts)

    def __iter__(self) -> Iterator[Attempt]:
        return iter(list(self._attempts))

    def add(self, attempt: Attempt) -> None:
        """Watch a prepared attempt from now on."""
        self._attempts[attempt] = None
        if self._timer is None or attempt.due < self._wakes_at:
            self._arm(attempt.due)

    def discard(self, attempt: Attempt) -> None:
        self._attempts.pop(attempt, None)

    def interrupt(self, attempt: Attempt, why: Stop) -> None:
        """Tell it to stop, and insist while it does not."""
        attempt.interrupt(why)
        attempt.due = asyncio.get_running_loop().time() + INSIST_SECONDS

    def close(self) -> None:
        """Let go of the timer. May be called twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None and self._loop is loop:
            self._timer.cancel()
        self._loop = loop
        self._wakes_at = min(due, loop.time() + TICK_SECONDS)
        self._timer = loop.call_at(self._wakes_at, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        nearest = now + TICK_SECONDS
        long: list[Attempt] = []
        for attempt in list(self._attempts):
            if not attempt.announced and attempt.begun + LONG_SECONDS <= now:
                attempt.announced = True
                long.append(attempt)
            if attempt.due <= now:
                self.interrupt(attempt, Stop.TIMEOUT)
            nearest = min(nearest, attempt.due)
        if long and self._on_long is not None:
            self._on_long(long)
        if self._attempts:
            self._arm(nearest)
