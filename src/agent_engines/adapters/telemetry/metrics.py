"""Prometheus metrics of one process: one registry, children of hot labels kept."""

from __future__ import annotations

import platform
import threading
from collections import deque
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import (
    GC_COLLECTOR,
    CollectorRegistry,
    Counter,
    Gauge,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from .durations import Durations
from .metric_table import BREAKER, DECISIONS, DURATION, DURATION_BUCKETS, METRICS, QUEUE, TASKS, Metric

BUILD_INFO = "agent_engines_build_info"
MOST_ENDED = 10_000
"""Ends of tasks that wait to be read; more are sorted into counters and histogram at once."""


class Metrics:
    """Counters, gauges and histograms of `METRICS`; an unknown name or label raises KeyError."""

    def __init__(self, engine: str) -> None:
        # A `_created` series for each child would double the page and says nothing a scrape does not.
        disable_created_metrics()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.registry.register(GC_COLLECTOR)
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._durations = Durations(DURATION, METRICS[DURATION], DURATION_BUCKETS)
        for name, metric in METRICS.items():
            self._declare(name, metric)
        self._counts: dict[tuple[str, ...], Counter] = {}
        self._uncounted: dict[tuple[str, ...], float] = {}
        self._adding = threading.Lock()
        self._ended: deque[tuple[str, str, float | None]] = deque()
        self._queues: dict[str, Gauge] = {}
        self._gauges[BUILD_INFO].labels(_version(), platform.python_version(), engine).set(1)

    def task_done(self, agent: str, status: str, seconds: float | None) -> None:
        self._ended.append((agent, status, seconds))
        if len(self._ended) >= MOST_ENDED:
            self._sort_ended()

    def queue_size(self, agent: str, size: int) -> None:
        gauge = self._queues.get(agent)
        if gauge is None:
            gauge = self._queues[agent] = self._gauges[QUEUE].labels(agent)
        gauge.set(size)

    def decided(self, strategy: str, outcome: str) -> None:
        self._add((DECISIONS, strategy, outcome), 1)

    def breaker(self, agent: str, state: int) -> None:
        self._gauges[BREAKER].labels(agent).set(state)

    def count(self, name: str, amount: float, labels: dict[str, str]) -> None:
        self._add((name, *_ordered(name, "counter", labels)), amount)

    def gauge(self, name: str, value: float, labels: dict[str, str]) -> None:
        values = _ordered(name, "gauge", labels)
        gauge = self._gauges[name]
        (gauge.labels(*values) if values else gauge).set(value)

    def forget(self, name: str, labels: dict[str, str]) -> None:
        """Take one gauge off the page; one that is not there is no mistake."""
        values = _ordered(name, "gauge", labels)
        with suppress(KeyError):
            self._gauges[name].remove(*values)

    def render(self) -> tuple[bytes, str]:
        """The page and its content type (text format 0.0.4, which every scraper reads)."""
        self._settle()
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4

    def _declare(self, name: str, metric: Metric) -> None:
        if metric.kind == "counter":
            self._counters[name] = Counter(name, metric.help, metric.labels, registry=self.registry)
        elif metric.kind == "gauge":
            self._gauges[name] = Gauge(name, metric.help, metric.labels, registry=self.registry)
        else:
            self.registry.register(self._durations)

    def _add(self, key: tuple[str, ...], amount: float) -> None:
        """Count here and tell the client library when somebody reads: its own counter costs ten times as much."""
        if amount < 0:
            raise ValueError(f"{key[0]} is a counter: it cannot go down by {-amount:g}")
        with self._adding:
            self._uncounted[key] = self._uncounted.get(key, 0) + amount

    def _settle(self) -> None:
        self._sort_ended()
        with self._adding:
            counted, self._uncounted = self._uncounted, {}
        for key, amount in counted.items():
            self._counter(key).inc(amount)

    def _sort_ended(self) -> None:
        with self._adding, suppress(IndexError):
            while True:
                agent, status, seconds = self._ended.popleft()
                key = (TASKS, agent, status)
                self._uncounted[key] = self._uncounted.get(key, 0) + 1
                if seconds is not None:
                    self._durations.observe(agent, seconds)

    def _counter(self, key: tuple[str, ...]) -> Counter:
        child = self._counts.get(key)
        if child is None:
            name, *values = key
            parent = self._counters[name]
            child = self._counts[key] = parent.labels(*values) if values else parent
        return child


def _ordered(name: str, kind: str, labels: dict[str, str]) -> tuple[str, ...]:
    """Label values in the table's order. Raises KeyError naming what is not declared."""
    metric = METRICS.get(name)
    if metric is None or metric.kind != kind:
        raise KeyError(f"{name} is not a declared {kind}: add a line to adapters/telemetry/metric_table.py")
    if len(labels) != len(metric.labels) or any(label not in labels for label in metric.labels):
        raise KeyError(f"{name} has the labels {metric.labels}, not {tuple(labels)}")
    return tuple([labels[label] for label in metric.labels])


def _version() -> str:
    try:
        return version("agent-engines")
    except PackageNotFoundError:
        return "unknown"
