"""Structured logs: one line for each event, cheap when the level is off, sampled when one message floods."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from typing import Any

from .log_line import Render
from .log_sink import LogSink
from .trace_context import CURRENT

SAMPLED_MESSAGES = frozenset({"Task routed successfully"})
SAMPLED_PER_SECOND = 100
"""Contract section 7: above this, lines are dropped and the next one says how many."""

_FOREIGN_FIELD = "context"


class Outlet:
    """What all loggers of a process share: level, form, destination, and the count of what was left out."""

    def __init__(self, level: int, render: Render, sink: LogSink, *, clock: Callable[[], float] = time.time) -> None:
        self.level = level
        self._render = render
        self._sink = sink
        self._clock = clock
        self._second = 0
        self._in_second = 0
        self._left_out = 0

    def write(self, level: str, logger: str, message: str, context: dict[str, Any]) -> None:
        now = self._clock()
        if message in SAMPLED_MESSAGES and level == "INFO":
            sampled = self._sampled(int(now))
            if sampled is None:
                return
            context.update(sampled)
        trace = CURRENT.get()
        ids = (trace.trace_id, trace.span_id) if trace else None
        self._sink.write(self._render(now, level, logger, message, context, ids))
        dropped = self._sink.take_dropped()
        if dropped:
            told = self._render(now, "WARNING", "agent.telemetry", "Log lines were dropped", {"dropped": dropped}, None)
            self._sink.write(told)

    def _sampled(self, second: int) -> dict[str, Any] | None:
        """None: leave this line out. Else what to add to it: nothing, or how many were left out before it."""
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        if self._in_second > SAMPLED_PER_SECOND:
            self._left_out += 1
            return None
        if not self._left_out:
            return {}
        dropped, self._left_out = self._left_out, 0
        return {"sampled": True, "dropped": dropped}


class LineLog:
    """Implements ports.telemetry.Log."""

    __slots__ = ("_name", "_outlet")

    def __init__(self, name: str, outlet: Outlet) -> None:
        self._name = name
        self._outlet = outlet

    def debug(self, message: str, **context: Any) -> None:
        if self._outlet.level <= logging.DEBUG:
            self._outlet.write("DEBUG", self._name, message, context)

    def info(self, message: str, **context: Any) -> None:
        if self._outlet.level <= logging.INFO:
            self._outlet.write("INFO", self._name, message, context)

    def warning(self, message: str, **context: Any) -> None:
        if self._outlet.level <= logging.WARNING:
            self._outlet.write("WARNING", self._name, message, context)

    def error(self, message: str, **context: Any) -> None:
        if self._outlet.level <= logging.ERROR:
            self._outlet.write("ERROR", self._name, message, context)


class Bridge(logging.Handler):
    """What libraries say through the standard library comes out in the same form."""

    def __init__(self, outlet: Outlet, level_before: int) -> None:
        super().__init__(outlet.level)
        self.level_before = level_before
        """The root logger's, given back at the end."""
        self._outlet = outlet

    def emit(self, record: logging.LogRecord) -> None:
        try:
            extra = getattr(record, _FOREIGN_FIELD, None)
            context: dict[str, Any] = dict(extra) if isinstance(extra, dict) else {}
            if record.exc_info and record.exc_info[0] is not None:
                context["exception"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
            self._outlet.write(record.levelname, record.name, record.getMessage(), context)
        except Exception:
            self.handleError(record)


def bridge(outlet: Outlet) -> Bridge:
    """Route the root logger through the outlet, replacing an earlier bridge of this process."""
    root = logging.getLogger()
    level_before = root.level
    for handler in list(root.handlers):
        if isinstance(handler, Bridge):
            root.removeHandler(handler)
            level_before = handler.level_before
    handler = Bridge(outlet, level_before)
    root.addHandler(handler)
    root.setLevel(outlet.level)
    logging.captureWarnings(True)
    return handler


def unbridge(handler: Bridge) -> None:
    """Undo `bridge`; one that was replaced has nothing left to undo."""
    root = logging.getLogger()
    if handler in root.handlers:
        root.removeHandler(handler)
        root.setLevel(handler.level_before)
        logging.captureWarnings(False)
