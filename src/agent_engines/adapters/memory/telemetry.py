"""Telemetry that is kept instead of shown: tests ask what was counted and logged."""

from __future__ import annotations

from collections import Counter, deque
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from agent_engines.ports.telemetry import Log, Span

MAX_LINES = 10_000


class Line(NamedTuple):
    level: str
    logger: str
    message: str
    context: dict[str, Any]


class _MemoryLog:
    def __init__(self, name: str, lines: deque[Line], *, debug: bool) -> None:
        self._name = name
        self._lines = lines
        self._debug = debug

    def debug(self, message: str, **context: Any) -> None:
        if self._debug:
            self._lines.append(Line("debug", self._name, message, context))

    def info(self, message: str, **context: Any) -> None:
        self._lines.append(Line("info", self._name, message, context))

    def warning(self, message: str, **context: Any) -> None:
        self._lines.append(Line("warning", self._name, message, context))

    def error(self, message: str, **context: Any) -> None:
        self._lines.append(Line("error", self._name, message, context))


class _PassingSpan:
    """Carries the parent on; one object for all spans without a parent would do, this one is as cheap."""

    __slots__ = ("traceparent",)

    def __init__(self, traceparent: str | None) -> None:
        self.traceparent = traceparent

    def set(self, **attributes: Any) -> None: ...

    def __enter__(self) -> _PassingSpan:
        return self

    def __exit__(self, *_: object) -> None: ...


class NullTelemetry:
    """Implements ports.telemetry.Telemetry. `debug=True` keeps debug lines too; the newest 10,000 lines are kept."""

    def __init__(self, *, debug: bool = False) -> None:
        self._debug = debug
        self.lines: deque[Line] = deque(maxlen=MAX_LINES)
        self.done: Counter[tuple[str, str]] = Counter()
        """(agent, status) -> tasks."""
        self.queues: dict[str, int] = {}
        self.decisions: Counter[tuple[str, str]] = Counter()
        self.breakers: dict[str, int] = {}
        self.counts: Counter[str] = Counter()
        """Counter name -> sum over all labels."""
        self.gauges: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self.spans: Counter[str] = Counter()

    def log(self, logger: str) -> Log:
        return _MemoryLog(logger, self.lines, debug=self._debug)

    def messages(self, level: str) -> list[str]:
        """What was logged at one level, oldest first."""
        return [line.message for line in self.lines if line.level == level]

    def task_done(self, agent: str, status: str, seconds: float | None) -> None:
        self.done[agent, status] += 1

    def queue_size(self, agent: str, size: int) -> None:
        self.queues[agent] = size

    def decided(self, strategy: str, outcome: str) -> None:
        self.decisions[strategy, outcome] += 1

    def breaker(self, agent: str, state: int) -> None:
        self.breakers[agent] = state

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        self.counts[name] += int(amount)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        self.gauges[name, tuple(sorted(labels.items()))] = value

    def forget(self, name: str, **labels: str) -> None:
        self.gauges.pop((name, tuple(sorted(labels.items()))), None)
        if name == "circuit_breaker_state":
            self.breakers.pop(labels["agent_id"], None)

    tracing = True

    def span(
        self, name: str, *, parent: str | None = None, kind: str = "internal", **attributes: Any
    ) -> AbstractContextManager[Span]:
        self.spans[name] += 1
        return _PassingSpan(parent)
