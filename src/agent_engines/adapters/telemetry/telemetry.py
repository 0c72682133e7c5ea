"""The Telemetry port, composed of logs, metrics and spans according to the configuration."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import AbstractContextManager
from typing import Any, Protocol

from agent_engines.adapters.clock import SystemClock
from agent_engines.ports.telemetry import Span
from agent_engines.runtime.dependency import Dependency

from .guarded_exporter import RULE, GuardedExporter
from .log_line import console_line, json_line
from .log_sink import LogSink
from .logging import Bridge, LineLog, Outlet, bridge, unbridge
from .metrics import Metrics
from .tracing import OtlpTracer, PassingTracer, SpanSource, otlp_exporter, sampler_named

NO_METRICS = (b"# metrics are switched off (ENABLE_METRICS)\n", "text/plain; version=0.0.4; charset=utf-8")


class TelemetrySettings(Protocol):
    """What telemetry wants to know; `config.Config` has it."""

    @property
    def log_level(self) -> str: ...
    @property
    def log_format(self) -> str: ...
    @property
    def enable_metrics(self) -> bool: ...
    @property
    def enable_tracing(self) -> bool: ...
    @property
    def traces_endpoint(self) -> str: ...
    @property
    def otel_exporter_otlp_headers(self) -> str: ...
    @property
    def otel_service_name(self) -> str: ...
    @property
    def otel_resource_attributes(self) -> str: ...
    @property
    def otel_traces_sampler(self) -> str: ...
    @property
    def otel_traces_sampler_arg(self) -> str: ...
    @property
    def production(self) -> bool: ...


class ProcessTelemetry:
    """Implements ports.telemetry.Telemetry. In production a wrong metric name is logged; elsewhere it raises KeyError."""

    def __init__(
        self,
        outlet: Outlet,
        tracer: SpanSource,
        *,
        metrics: Metrics | None,
        strict: bool,
        bridged: Bridge | None = None,
    ) -> None:
        self._outlet = outlet
        self._tracer = tracer
        self._metrics = metrics
        self._strict = strict
        self._bridged = bridged
        self._logs: dict[str, LineLog] = {}
        self._complained: set[str] = set()

    def log(self, logger: str) -> LineLog:
        log = self._logs.get(logger)
        if log is None:
            log = self._logs[logger] = LineLog(f"agent.{logger}", self._outlet)
        return log

    def task_done(self, agent: str, status: str, seconds: float | None) -> None:
        if self._metrics is not None:
            self._metrics.task_done(agent, status, seconds)

    def queue_size(self, agent: str, size: int) -> None:
        if self._metrics is not None:
            self._metrics.queue_size(agent, size)

    def decided(self, strategy: str, outcome: str) -> None:
        if self._metrics is not None:
            self._metrics.decided(strategy, outcome)

    def breaker(self, agent: str, state: int) -> None:
        if self._metrics is not None:
            self._metrics.breaker(agent, state)

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        if self._metrics is not None:
            try:
                self._metrics.count(name, amount, labels)
            except (KeyError, ValueError) as error:
                self._wrong(name, error)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        if self._metrics is not None:
            try:
                self._metrics.gauge(name, value, labels)
            except (KeyError, ValueError) as error:
                self._wrong(name, error)

    def forget(self, name: str, **labels: str) -> None:
        if self._metrics is not None:
            try:
                self._metrics.forget(name, labels)
            except KeyError as error:
                self._wrong(name, error)

    @property
    def tracing(self) -> bool:
        return self._tracer.measures

    def span(
        self, name: str, *, parent: str | None = None, kind: str = "internal", **attributes: Any
    ) -> AbstractContextManager[Span]:
        return self._tracer.span(name, parent, kind, attributes)

    def render_metrics(self) -> tuple[bytes, str]:
        """(page, content type) for `GET /metrics`."""
        return NO_METRICS if self._metrics is None else self._metrics.render()

    def shutdown(self) -> None:
        """Export what is left and let go of the standard library's root logger. Blocks for seconds at most."""
        self._tracer.shutdown()
        if self._bridged is not None:
            unbridge(self._bridged)
            self._bridged = None

    def _wrong(self, name: str, error: Exception) -> None:
        if self._strict:
            raise error
        if name not in self._complained:
            self._complained.add(name)
            self.log("telemetry").error("A metric is used wrongly and not counted", metric=name, error=str(error))


def create_telemetry(
    settings: TelemetrySettings, engine: str, *, descriptor: int | None = None, bridged: bool = True
) -> ProcessTelemetry:
    """Telemetry of one process. Lines go to `descriptor` (standard output); `bridged` takes over the root logger."""
    target = sys.stdout.fileno() if descriptor is None else descriptor
    color = settings.log_format == "console" and os.isatty(target)
    render = json_line if settings.log_format == "json" else console_line(color)
    outlet = Outlet(logging.getLevelNamesMapping()[settings.log_level], render, LogSink(target))
    exporter = _exporter(settings) if settings.enable_tracing else None
    telemetry = ProcessTelemetry(
        outlet,
        _tracer(settings, engine, exporter),
        metrics=Metrics(engine) if settings.enable_metrics else None,
        strict=not settings.production,
        bridged=bridge(outlet) if bridged else None,
    )
    if exporter is not None:
        exporter.dependency = Dependency("otlp", clock=SystemClock(), telemetry=telemetry, rule=RULE)
    return telemetry


def _exporter(settings: TelemetrySettings) -> GuardedExporter:
    return GuardedExporter(otlp_exporter(settings.traces_endpoint, settings.otel_exporter_otlp_headers))


def _tracer(settings: TelemetrySettings, engine: str, exporter: GuardedExporter | None) -> SpanSource:
    if exporter is None:
        return PassingTracer()
    pairs = (pair.partition("=") for pair in settings.otel_resource_attributes.split(",") if "=" in pair)
    resource = {name.strip(): value.strip() for name, _, value in pairs}
    resource["service.name"] = settings.otel_service_name or f"agent-engines.{engine}"
    return OtlpTracer(
        exporter,
        resource=resource,
        sampler=sampler_named(settings.otel_traces_sampler, float(settings.otel_traces_sampler_arg or 1)),
    )
