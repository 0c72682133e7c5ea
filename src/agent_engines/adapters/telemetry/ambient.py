"""The trace the calling code is in: OpenTelemetry's current span where the program uses it, otherwise ours."""

from __future__ import annotations

import sys

from .trace_context import CURRENT, Trace


def current_traceparent() -> str | None:
    """W3C header of the current trace; None: there is none. Never imports OpenTelemetry.

    A program that has not imported it has no current span, and one that only hands in tasks should start quickly.
    """
    otel = sys.modules.get("opentelemetry.trace")
    if otel is not None:
        ids = otel.get_current_span().get_span_context()
        if ids.is_valid:
            return Trace.of(ids).header
    ours = CURRENT.get()
    return None if ours is None else ours.header
