"""The log of a process that set up no telemetry: one line for each event through the standard library."""

from __future__ import annotations

import logging
from typing import Any


class PlainLog:
    """Implements ports.telemetry.Log over the logger `agent.<name>`."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"agent.{name}")

    def debug(self, message: str, **context: Any) -> None:
        self._write(logging.DEBUG, message, context)

    def info(self, message: str, **context: Any) -> None:
        self._write(logging.INFO, message, context)

    def warning(self, message: str, **context: Any) -> None:
        self._write(logging.WARNING, message, context)

    def error(self, message: str, **context: Any) -> None:
        self._write(logging.ERROR, message, context)

    def _write(self, level: int, message: str, context: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            fields = " ".join(f"{name}={value}" for name, value in context.items())
            self._logger.log(level, "%s", f"{message} {fields}".rstrip(), extra={"context": context})
