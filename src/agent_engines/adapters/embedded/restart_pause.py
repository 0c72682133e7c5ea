"""How long to wait before a process that died is started again."""

from __future__ import annotations


class RestartPause:
    """Doubles from `first` to `longest` seconds; a process that lived `healthy` seconds is forgiven."""

    def __init__(self, *, first: float = 0.2, longest: float = 5.0, healthy: float = 30.0) -> None:
        self._first = first
        self._longest = longest
        self._healthy = healthy
        self._failures = 0

    def after(self, lived: float) -> float:
        """Seconds to wait, given that the process that just died lived `lived` seconds."""
        if lived >= self._healthy:
            self._failures = 0
        # The exponent is bounded so that a process that never comes up cannot overflow it.
        pause = min(self._longest, self._first * 2 ** min(self._failures, 30))
        self._failures += 1
        return pause
