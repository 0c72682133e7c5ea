"""Operations of one engine: /health, /livez, /ready, /metrics. Everything here is light enough for every agent process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from agent_engines.ports.service import Health, Readiness

from .exchange import Call, Reply, json_reply, problem_reply
from .problems import Problem, problem_of
from .routing import Operation

Metrics = Callable[[], tuple[bytes, str]]
"""Prometheus text and its content type."""


class Probed(Protocol):
    """What the probes ask."""

    async def health(self) -> Health: ...

    async def ready(self) -> Readiness: ...


class OperationRoutes:
    """Probes and metrics. They are answered even when the rest is refused for load."""

    def __init__(self, probed: Probed, metrics: Metrics, draining: Callable[[], bool]) -> None:
        self._probed = probed
        self._metrics = metrics
        self._draining = draining

    def operations(self) -> list[Operation]:
        return [
            self._probe("/health", self.health, "Are the servers this engine needs within reach?", Health, Health),
            self._probe("/ready", self.ready, "May traffic be sent here?", Readiness, Problem),
            self._probe("/livez", self.livez, "Does this process answer? Depends on nothing else", Readiness, None),
            Operation(
                method="GET",
                path="/metrics",
                handler=self.metrics,
                summary="Prometheus metrics",
                tag="operations",
                replies={200: None},
                media_type="text/plain",
                probe=True,
            ),
        ]

    async def health(self, call: Call) -> Reply:
        health = await self._probed.health()
        return _fresh(json_reply(200 if health.status == "healthy" else 503, health))

    async def ready(self, call: Call) -> Reply:
        readiness = Readiness("not_ready", "draining") if self._draining() else await self._probed.ready()
        if readiness.status == "ready":
            return _fresh(json_reply(200, {"status": "ready"}))
        detail = readiness.detail or "not ready"
        return _fresh(problem_reply(problem_of("Unavailable", detail, call.request_id, None, retry_after=1.0)))

    async def livez(self, call: Call) -> Reply:
        return _fresh(json_reply(200, {"status": "alive"}))

    async def metrics(self, call: Call) -> Reply:
        text, media_type = self._metrics()
        return _fresh(Reply(200, text, media_type.encode()))

    def _probe(
        self, path: str, handler: Callable[[Call], Awaitable[Reply]], summary: str, good: type, bad: type | None
    ) -> Operation:
        replies = {200: good} if bad is None or bad is Problem else {200: good, 503: bad}
        return Operation(
            method="GET",
            path=path,
            handler=handler,
            summary=summary,
            tag="operations",
            replies=replies,
            problems=(503,) if bad is Problem else (),
            probe=True,
        )


def _fresh(reply: Reply) -> Reply:
    reply.headers.append((b"cache-control", b"no-store"))
    return reply
