"""An exporter that does not wait for a collector that is away: spans are dropped at once until a probe came through.

Otherwise every batch would hold the export thread for its whole time limit, and the last one the end of the process.
"""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from agent_engines.domain.breaker import BreakerRule
from agent_engines.runtime.dependency import Dependency

RULE = BreakerRule(threshold=3, error_share=2.0, open_seconds=10.0, jitter=0.2)
"""Three batches in a row; one batch about every ten seconds is the probe."""


class GuardedExporter(SpanExporter):
    """Hands on to `inner`. Used by one thread at a time, the span processor's; `dependency` is given before the first span."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self.dependency: Dependency | None = None
        self.dropped = 0
        """Spans nobody was asked to take."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        dependency = self.dependency
        if dependency is None:
            return self._inner.export(spans)
        if not dependency.away:
            result = self._inner.export(spans)
            if result is SpanExportResult.SUCCESS:
                dependency.worked()
            else:
                dependency.failed("an export")
            return result
        permit = dependency.probe()
        if permit is None:
            self.dropped += len(spans)
            return SpanExportResult.FAILURE
        result = self._inner.export(spans)
        dependency.probed(permit, result is SpanExportResult.SUCCESS, "an export")
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)
