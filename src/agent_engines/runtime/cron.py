"""Cron expressions: five fields or a name such as @daily, in a time zone; the rules are those of Debian's cron.

When clocks go forward, what would have fallen into the missing hour comes right after it; when they go back, what names
its hour comes once, what says `*` goes on by real time (docs/adr/0009).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from agent_engines.domain.errors import InvalidRequest
from agent_engines.domain.schedules import MAX_CRON_LENGTH

NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FIELDS = 5
LOOK_BACK_SECONDS = 7200.0


class Cron(NamedTuple):
    """Times are epoch seconds. Make one with `cron_of`."""

    expression: str
    zone: tzinfo

    def after(self, moment: float) -> float | None:
        """The first occurrence later than `moment`; None when there is none within 50 years."""
        return next(self._from(moment), None)

    def latest(self, first: float, now: float) -> float:
        """The last occurrence up to `now`, when `first` is one that has come.

        Looks back in steps that grow, since after a year of absence half a million minutes have passed.
        """
        back = LOOK_BACK_SECONDS
        while now - back > first:
            found = first
            for occurrence in self._from(now - back):
                if occurrence > now:
                    break
                found = occurrence
            if found > first:
                return found
            back *= 8
        for occurrence in self._from(first):
            if occurrence > now:
                break
            first = occurrence
        return first

    def _from(self, moment: float) -> Iterator[float]:
        for occurrence in CronSim(self.expression, datetime.fromtimestamp(moment, self.zone)):
            seconds = occurrence.timestamp()
            # In the hour that comes twice, the first of both may be what follows.
            if seconds > moment:
                yield seconds


@lru_cache(maxsize=1024)
def cron_of(text: str, timezone: str) -> Cron:
    """Raises InvalidRequest naming `cron` or `timezone`."""
    expression = NAMED.get(text.strip().lower(), text)
    if len(expression) > MAX_CRON_LENGTH:
        raise InvalidRequest(f"cron has {len(expression)} characters, at most {MAX_CRON_LENGTH}", field="cron")
    cron = Cron(expression, _zone(timezone))
    try:
        # A sixth field would be seconds, finer than routers look.
        if len(expression.split()) != FIELDS:
            raise CronSimError("Wrong number of fields")
        comes = cron.after(0.0)
    except CronSimError as error:
        names = ", ".join(NAMED)
        raise InvalidRequest(
            f"cron: {error}; it is five fields as in '30 6 * * 1-5', or {names}", field="cron"
        ) from None
    if comes is None:
        raise InvalidRequest("cron names no day that ever comes", field="cron")
    return cron


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise InvalidRequest(
            f"timezone {name[:64]!r} is not known: use an IANA name, such as Europe/Berlin", field="timezone"
        ) from None
