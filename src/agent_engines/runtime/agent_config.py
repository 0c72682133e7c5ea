"""The settings of one engine, checked once when they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass

from agent_engines.domain.agents import validated_agent_id
from agent_engines.domain.errors import InvalidRequest

MAX_CONCURRENT = 100_000
MAX_QUEUE = 1_000_000
DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """How one replica of an agent runs. Times are seconds; `http_port` None: no HTTP server.

    `breaker_*` are for engines that call other agents: failures in a row that open a breaker, and for how long.
    Raises InvalidRequest naming the field.
    """

    agent_id: str
    max_concurrent_tasks: int = 100
    queue_size: int = 1000
    task_timeout_seconds: float = 300.0
    heartbeat_interval: float = 30.0
    shutdown_grace_seconds: float = 30.0
    http_host: str = "127.0.0.1"
    http_port: int | None = 8080
    breaker_threshold: int = 10
    breaker_timeout: float = 120.0

    def __post_init__(self) -> None:
        self._check_agent_id()
        self._check_whole("max_concurrent_tasks", 1, MAX_CONCURRENT)
        self._check_whole("queue_size", 1, MAX_QUEUE)
        self._check_seconds("task_timeout_seconds", 0.001, 7 * DAY)
        self._check_seconds("heartbeat_interval", 0.1, DAY)
        self._check_seconds("shutdown_grace_seconds", 0.0, DAY)
        if self.http_port is not None:
            self._check_whole("http_port", 0, 65_535)
        if not self._text(self.http_host):
            raise InvalidRequest("http_host must name a host or an address", field="http_host")
        self._check_whole("breaker_threshold", 1, MAX_QUEUE)
        self._check_seconds("breaker_timeout", 0.001, DAY)

    def _check_agent_id(self) -> None:
        if not self._text(self.agent_id):
            raise InvalidRequest(f"agent_id must be text, not {self.agent_id!r}", field="agent_id")
        validated_agent_id(self.agent_id)

    def _check_whole(self, field: str, low: int, high: int) -> None:
        value: object = getattr(self, field)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InvalidRequest(f"{field} must be a whole number from {low} to {high}, not {value!r}", field=field)

    def _check_seconds(self, field: str, low: float, high: float) -> None:
        value: object = getattr(self, field)
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
        if not low <= number <= high:
            raise InvalidRequest(f"{field} must be from {low:g} to {high:g} seconds, not {value!r}", field=field)

    @staticmethod
    def _text(value: object) -> bool:
        return isinstance(value, str) and bool(value.strip())
