"""Moments on the command line: `--at` a time, `--in` a while from now."""

from __future__ import annotations

import re

from agent_engines.domain.errors import InvalidRequest
from agent_engines.domain.moments import parsed_moment

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DELAY = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def moment_given(at: str | None, delay: str | None, now: float) -> float | None:
    """Epoch seconds; None when neither was given. Raises InvalidRequest."""
    if at is not None and delay is not None:
        raise InvalidRequest("--at and --in say the same: give one of them", field="at")
    if at is not None:
        return float(at) if _NUMBER.fullmatch(at) else parsed_moment("--at", at)
    if delay is None:
        return None
    found = _DELAY.fullmatch(delay.strip())
    if found is None:
        raise InvalidRequest(f"--in {delay!r} is no time span: use 90s, 15m, 2h or 1d", field="in")
    return now + float(found[1]) * _SECONDS[found[2]]
