"""Reports of the performance engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from agent_engines.domain.iso_times import with_iso_times
from agent_engines.ports.service import IntelligenceService

from .exchange import Call, Reply, json_reply
from .routing import Operation
from .tasks import JSON

REPORTS = (
    ("/v1/performance", "report", "Rates, latency percentiles, errors, queues and anomalies of each agent and task type"),
    ("/v1/scaling", "scaling", "How many replicas each agent should have, and why"),
)  # fmt: skip


class EngineRoutes:
    """What the performance engine answers; 503 when it does not run."""

    def __init__(self, service: IntelligenceService) -> None:
        self._service = service

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path=path,
                handler=self._reader(what),
                summary=summary,
                tag="engines",
                replies={200: dict[str, Any]},
                problems=(406, 503),
            )
            for path, what, summary in REPORTS
        ]

    def _reader(self, what: str) -> Callable[[Call], Awaitable[Reply]]:
        async def read(call: Call) -> Reply:
            call.accept(JSON)
            return json_reply(200, with_iso_times(await self._service.report("performance", what)))

        return read
