"""Spans: handed on when tracing is off, exported over OTLP/HTTP when it is on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent_engines.adapters.telemetry.telemetry import ProcessTelemetry, create_telemetry
from agent_engines.adapters.telemetry.trace_context import CURRENT, parsed
from agent_engines.config import load_config
from otlp_collector import Collector, collector_fixture

__all__ = ["collector_fixture"]

NO_FILE = Path("/nonexistent/.env")
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADER = f"00-{TRACE}-{SPAN}-01"


def telemetry(**environ: str) -> ProcessTelemetry:
    return create_telemetry(load_config(environ, NO_FILE), "custom", descriptor=2, bridged=False)


def test_off_and_nothing_came_in_means_no_trace() -> None:
    with telemetry().span("x") as span:
        span.set(anything=1)
        assert span.traceparent is None


def test_off_an_incoming_trace_is_handed_on_as_it_is_also_to_inner_spans() -> None:
    made = telemetry()
    with made.span("outer", parent=HEADER) as outer, made.span("inner") as inner:
        assert outer.traceparent == HEADER
        assert inner.traceparent == HEADER
    assert CURRENT.get() is None


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
    ],
)
def test_an_invalid_header_counts_as_none(header: str | None) -> None:
    assert parsed(header) is None


def test_a_later_version_with_more_fields_is_understood() -> None:
    trace = parsed(f"01-{TRACE}-{SPAN}-01-more")
    assert trace is not None
    assert trace.header == HEADER


async def test_concurrent_tasks_keep_their_own_trace() -> None:
    made = telemetry()
    both_inside = asyncio.Barrier(2)

    async def work(trace: str) -> str | None:
        with made.span("work", parent=f"00-{trace}-{SPAN}-01"):
            await both_inside.wait()
            current = CURRENT.get()
            return current.trace_id if current else None

    assert await asyncio.gather(work("a" * 32), work("b" * 32)) == ["a" * 32, "b" * 32]


def test_on_spans_arrive_with_parent_kind_attributes_and_resource(collector: Collector) -> None:
    made = telemetry(
        ENABLE_TRACING="true",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_EXPORTER_OTLP_HEADERS="x-key=abc",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
    )
    with made.span("route", parent=HEADER, kind="server", task_id="t1", api_key="hunter2") as outer:
        outer.set(confidence=0.5, nothing=None)
        assert outer.traceparent is not None
        with made.span("publish", kind="producer"):
            pass
    made.shutdown()
    path, headers, request = collector.requests[0]
    assert path == "/v1/traces"
    assert {name.lower(): value for name, value in headers.items()}["x-key"] == "abc"
    resource = {one.key: one.value.string_value for one in request.resource_spans[0].resource.attributes}
    assert resource["service.name"] == "agent-engines.custom"
    assert resource["deployment.environment.name"] == "test"
    inner, route = sorted(collector.spans, key=lambda span: span.name)
    assert route.trace_id.hex() == inner.trace_id.hex() == TRACE
    assert route.parent_span_id.hex() == SPAN
    assert inner.parent_span_id == route.span_id
    assert outer.traceparent == f"00-{TRACE}-{route.span_id.hex()}-01"
    attributes = {one.key: one.value for one in route.attributes}
    assert attributes["agent_engines.task_id"].string_value == "t1"
    assert attributes["agent_engines.api_key"].string_value == "***"
    assert attributes["agent_engines.confidence"].double_value == 0.5
    assert "agent_engines.nothing" not in attributes


def test_on_without_a_parent_a_new_trace_begins(collector: Collector) -> None:
    made = telemetry(ENABLE_TRACING="true", JAEGER_ENDPOINT=f"{collector.url}/v1/traces")
    with made.span("x") as span:
        assert parsed(span.traceparent) is not None
    made.shutdown()
    assert len(collector.spans) == 1


def test_an_error_marks_the_span_by_its_class_and_not_by_its_text(collector: Collector) -> None:
    made = telemetry(ENABLE_TRACING="true", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    with pytest.raises(ValueError, match="hunter2"), made.span("x"):
        raise ValueError("hunter2")
    made.shutdown()
    (span,) = collector.spans
    assert span.status.message == "ValueError"
    assert b"hunter2" not in span.SerializeToString()


def test_the_sampler_of_the_environment_is_used(collector: Collector) -> None:
    made = telemetry(ENABLE_TRACING="true", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_TRACES_SAMPLER="always_off")
    with made.span("x") as span:
        trace = parsed(span.traceparent)
        assert trace is not None
        assert int(trace.flags, 16) & 1 == 0
    made.shutdown()
    assert collector.requests == []


def test_a_caller_s_choice_not_to_sample_is_respected(collector: Collector) -> None:
    made = telemetry(ENABLE_TRACING="true", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    with made.span("x", parent=f"00-{TRACE}-{SPAN}-00"):
        pass
    made.shutdown()
    assert collector.requests == []
