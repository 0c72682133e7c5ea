"""Vital signs: is this process getting on with its work, whatever its connections say?"""

from __future__ import annotations

from dataclasses import dataclass

LAG_SECONDS = 5.0
SILENCE_SECONDS = 15.0
"""RELIABILITY 3.1: a pull that nobody answers for this long has died without a word."""
REFUSED_SECONDS = 5.0
"""A restart of the bus takes less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """All in seconds; 0 when all is well."""

    loop_lag: float = 0.0
    pull_silence: float = 0.0
    """For how long pulls have gone out and none was answered."""
    reports_refused: float = 0.0
    """For how long the bus has taken no report that was offered."""
    reports_congested: bool = False

    @property
    def complaint(self) -> str:
        """Why no more work should be sent here; empty when it may be. Goes away by itself."""
        if self.loop_lag > LAG_SECONDS:
            return f"the event loop is {self.loop_lag:.1f} s late: a handler blocks it"
        if self.pull_silence > SILENCE_SECONDS:
            return f"the bus has answered no pull for {self.pull_silence:.0f} s"
        if self.reports_congested:
            return "too many reports wait for the bus"
        if self.reports_refused > REFUSED_SECONDS:
            return f"the bus has taken no report for {self.reports_refused:.0f} s"
        return ""
