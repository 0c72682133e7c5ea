"""Spans. `PassingTracer` only carries on what came in; `OtlpTracer` measures and exports over OTLP/HTTP."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider, sampling
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
    use_span,
)
from opentelemetry.trace import Span as OtelSpan

from agent_engines.domain.redaction import MASK, redacted, secret_name
from agent_engines.ports.telemetry import Span

from .trace_context import CURRENT, Trace, parsed

ATTRIBUTE_PREFIX = "agent_engines."
EXPORT_TIMEOUT_SECONDS = 3.0
KINDS = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}


class SpanSource(Protocol):
    """What `Telemetry.span` needs underneath."""

    measures: bool

    def span(
        self, name: str, parent: str | None, kind: str, attributes: dict[str, Any]
    ) -> AbstractContextManager[Span]: ...

    def shutdown(self) -> None: ...


class _NoSpan:
    """Nothing came in and nothing is measured; one object for all."""

    traceparent = None

    def set(self, **attributes: Any) -> None: ...

    def __enter__(self) -> _NoSpan:
        return self

    def __exit__(self, *_: object) -> None: ...


class _PassingSpan:
    """Carries the caller's trace through this process without adding to it."""

    __slots__ = ("_token", "_trace")

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    @property
    def traceparent(self) -> str:
        return self._trace.header

    def set(self, **attributes: Any) -> None: ...

    def __enter__(self) -> _PassingSpan:
        self._token = CURRENT.set(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        CURRENT.reset(self._token)


_NO_SPAN = _NoSpan()


class PassingTracer:
    """Tracing is off: an incoming traceparent is logged and handed on as it is."""

    measures = False

    def span(
        self, name: str, parent: str | None, kind: str, attributes: dict[str, Any]
    ) -> AbstractContextManager[Span]:
        trace = parsed(parent) or CURRENT.get()
        return _NO_SPAN if trace is None else _PassingSpan(trace)

    def shutdown(self) -> None: ...


class _ExportedSpan:
    __slots__ = ("_span", "traceparent")

    def __init__(self, span: OtelSpan, traceparent: str) -> None:
        self._span = span
        self.traceparent: str | None = traceparent

    def set(self, **attributes: Any) -> None:
        self._span.set_attributes(_attributes(attributes))


class OtlpTracer:
    """Tracing is on: spans leave in batches from a thread of their own."""

    measures = True

    def __init__(self, exporter: SpanExporter, *, resource: dict[str, str], sampler: sampling.Sampler) -> None:
        self._provider = TracerProvider(resource=Resource.create({**resource}), sampler=sampler, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer: Tracer = self._provider.get_tracer("agent_engines")

    @contextmanager
    def span(self, name: str, parent: str | None, kind: str, attributes: dict[str, Any]) -> Generator[Span]:
        origin = parsed(parent) or CURRENT.get()
        context = set_span_in_context(NonRecordingSpan(_remote(origin))) if origin else None
        span = self._tracer.start_span(name, context, KINDS[kind], attributes=_attributes(attributes))
        trace = Trace.of(span.get_span_context())
        token = CURRENT.set(trace)
        try:
            # The message of an exception may hold a caller's data, so only its class is told.
            with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
                try:
                    yield _ExportedSpan(span, trace.header)
                except BaseException as error:
                    span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                    span.set_attribute("error.type", type(error).__name__)
                    raise
        finally:
            CURRENT.reset(token)

    def shutdown(self) -> None:
        """Export what is left, then stop; bounded by the exporter's timeout."""
        self._provider.shutdown()


def otlp_exporter(endpoint: str, headers: str) -> SpanExporter:
    """`headers` has the form `name=value,name=value`."""
    pairs = (pair.partition("=") for pair in headers.split(",") if "=" in pair)
    return OTLPSpanExporter(
        endpoint, headers={name.strip(): value.strip() for name, _, value in pairs}, timeout=EXPORT_TIMEOUT_SECONDS
    )


def sampler_named(name: str, share: float) -> sampling.Sampler:
    """The samplers of the OpenTelemetry environment specification; `share` is for `traceidratio`, 0..1."""
    kind = name.removeprefix("parentbased_")
    root = {
        "always_on": sampling.ALWAYS_ON,
        "always_off": sampling.ALWAYS_OFF,
        "traceidratio": sampling.TraceIdRatioBased(share),
    }[kind]
    return sampling.ParentBased(root) if name.startswith("parentbased_") else root


def _remote(trace: Trace) -> SpanContext:
    return SpanContext(int(trace.trace_id, 16), int(trace.span_id, 16), True, TraceFlags(int(trace.flags, 16)))


def _attributes(given: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{ATTRIBUTE_PREFIX}{key}": MASK if secret_name(key) else _attribute(value)
        for key, value in given.items()
        if value is not None
    }


def _attribute(value: Any) -> str | int | float | bool:
    return value if isinstance(value, bool | int | float) else str(redacted(value))
