"""What engines tell the outside about themselves. Names are API: docs/reference lists them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol


class Log(Protocol):
    """Structured: `message` is constant text, the rest are fields of the line's `context`."""

    def debug(self, message: str, **context: Any) -> None: ...

    def info(self, message: str, **context: Any) -> None: ...

    def warning(self, message: str, **context: Any) -> None: ...

    def error(self, message: str, **context: Any) -> None: ...


class Span(Protocol):
    def set(self, **attributes: Any) -> None: ...

    @property
    def traceparent(self) -> str | None:
        """W3C header of this span, to be carried on; None when tracing is off and nothing came in."""
        ...


class Telemetry(Protocol):
    """Counts, times, logs and spans; never raises, never blocks."""

    def log(self, logger: str) -> Log:
        """A logger named `agent.<logger>`."""
        ...

    def task_done(self, agent: str, status: str, seconds: float | None) -> None: ...

    def queue_size(self, agent: str, size: int) -> None: ...

    def decided(self, strategy: str, outcome: str) -> None: ...

    def breaker(self, agent: str, state: int) -> None: ...

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter declared in the adapter's table of metrics; an unknown name is a programming error."""
        ...

    def gauge(self, name: str, value: float, **labels: str) -> None: ...

    def forget(self, name: str, **labels: str) -> None:
        """What this gauge told of is gone: it leaves the page instead of standing there with its last value for ever."""
        ...

    @property
    def tracing(self) -> bool:
        """Are spans measured? While not, one whose task brings no traceparent says nothing to anybody."""
        ...

    def span(
        self, name: str, *, parent: str | None = None, kind: str = "internal", **attributes: Any
    ) -> AbstractContextManager[Span]: ...
