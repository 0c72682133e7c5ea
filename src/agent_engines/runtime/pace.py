"""Pace: how long a task takes here and how many end a second, as moving averages."""

from __future__ import annotations

SERVICE_WEIGHT = 0.1
RATE_WEIGHT = 0.5
SAMPLE_SECONDS = 0.1
FORGOTTEN_SECONDS = 1.0
SOON_SECONDS = 0.02
"""A fetch from the bus takes this long at worst in normal operation; what ends meanwhile frees slots."""


class Pace:
    """Told each end of a task with its duration; `now` is loop time, seconds.

    `soon`: how many tasks end within the time of one fetch, at the present rate.
    """

    __slots__ = ("_count", "_rate", "_sampled_at", "_service", "soon")

    def __init__(self) -> None:
        self._service: float | None = None
        self._rate = 0.0
        self._count = 0
        self._sampled_at = 0.0
        self.soon = 0

    @property
    def service_ms(self) -> float | None:
        """Average handler time, milliseconds; None before the first outcome."""
        return None if self._service is None else self._service * 1000.0

    def ended(self, seconds: float, now: float) -> None:
        """One more task ended at `now` after `seconds`."""
        service = self._service
        self._service = seconds if service is None else service + SERVICE_WEIGHT * (seconds - service)
        self._count += 1
        passed = now - self._sampled_at
        if passed >= SAMPLE_SECONDS:
            self._sample(passed)
            self._sampled_at = now

    def _sample(self, passed: float) -> None:
        if passed > FORGOTTEN_SECONDS:
            # After a rest the old pace says nothing, and this count nothing yet.
            self._rate = 0.0
        else:
            self._rate += RATE_WEIGHT * (self._count / passed - self._rate)
        self._count = 0
        self.soon = int(self._rate * SOON_SECONDS)
