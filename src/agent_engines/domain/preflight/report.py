"""Report: all findings of one preflight, and what they mean for whoever asked."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

import msgspec

from .finding import Finding, Severity

DONE, FAILED, UNREACHABLE = 0, 1, 3
"""Exit codes of the command line (CONTRACT section 2)."""


class Profile(StrEnum):
    """What is asked of the settings: in development everything is named and nothing fails."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`unreachable`: part to the reason why nothing was read from it. `parts`: what was looked at, and where."""

    profile: Profile
    parts: dict[str, str]
    findings: list[Finding]
    unreachable: dict[str, str] = {}

    @property
    def exit_code(self) -> int:
        """3 when a server did not answer, else 1 when something unsafe is not accepted in production, else 0."""
        if self.unreachable:
            return UNREACHABLE
        return FAILED if self.profile is Profile.PRODUCTION and self.standing(Severity.UNSAFE) else DONE

    def standing(self, severity: Severity) -> list[Finding]:
        """Findings of this severity that nobody has accepted."""
        return [one for one in self.findings if one.severity is severity and not one.accepted]

    def counts(self) -> dict[str, int]:
        """How many of each severity; accepted ones are counted as `accepted`."""
        counted = Counter("accepted" if one.accepted else one.severity.value for one in self.findings)
        return {name: counted.get(name, 0) for name in (*Severity, "accepted")}
