"""W3C trace context: which trace the code that runs now belongs to."""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import NamedTuple, Protocol

_HEADER = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Ids(Protocol):
    """OpenTelemetry's SpanContext, which this module does without."""

    @property
    def trace_id(self) -> int: ...
    @property
    def span_id(self) -> int: ...
    @property
    def trace_flags(self) -> int: ...


class Trace(NamedTuple):
    """Ids are lower-case hexadecimal: 32 and 16 characters; `flags` 2."""

    trace_id: str
    span_id: str
    flags: str

    @classmethod
    def of(cls, ids: Ids) -> Trace:
        return cls(f"{ids.trace_id:032x}", f"{ids.span_id:016x}", f"{int(ids.trace_flags):02x}")

    @property
    def header(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


CURRENT: ContextVar[Trace | None] = ContextVar("agent_engines_trace", default=None)


def parsed(header: str | None) -> Trace | None:
    """The trace a `traceparent` header names, or None if it is absent or invalid (W3C Trace Context, section 3.2)."""
    match = _HEADER.fullmatch(header) if header else None
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return Trace(trace_id, span_id, flags)
