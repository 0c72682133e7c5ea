"""The overview: one answer with all the dashboard's first page shows, made once for everybody who asks in the same moment."""

from __future__ import annotations

import asyncio
from typing import Any

from agent_engines.domain.errors import AgentEnginesError, Unavailable
from agent_engines.domain.iso_times import with_iso_times
from agent_engines.ports.clock import Clock
from agent_engines.ports.ledger import DecisionFilter
from agent_engines.ports.service import IntelligenceService

from .exchange import Call, Reply, encode
from .models import AgentBody, DecisionBody, Overview
from .routing import Operation
from .tasks import JSON
from .times import iso_always

FRESH_SECONDS = 0.5
"""Ten open dashboards cost no more than one."""
REPORT_SECONDS = 1.0
"""An engine that is slower is shown as absent; the page asks again soon."""
RECORDS_SECONDS = 3.0
"""A database that is slower is told as a problem: whoever looks during an outage must see the fleet at once."""
DECISIONS = 20


class OverviewRoutes:
    """GET /v1/overview."""

    def __init__(self, service: IntelligenceService, clock: Clock) -> None:
        self._service = service
        self._clock = clock
        self._made: asyncio.Task[bytes] | None = None
        self._made_at = 0.0

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/overview",
                handler=self.show,
                summary="Agents, reports, counts and the last decisions in one answer",
                tag="engines",
                replies={200: Overview},
                problems=(406, 503),
            )
        ]

    async def show(self, call: Call) -> Reply:
        call.accept(JSON)
        now = self._clock.monotonic()
        if self._made is None or (self._made.done() and now - self._made_at >= FRESH_SECONDS):
            self._made_at = now
            self._made = asyncio.create_task(self._make(), name="overview")
        # Shielded: one caller who leaves must not take the answer away from the others.
        return Reply(200, await asyncio.shield(self._made), b"application/json")

    async def _make(self) -> bytes:
        performance, scaling, (counts, decisions, problem) = await asyncio.gather(
            self._report("report"), self._report("scaling"), self._records()
        )
        return encode(
            Overview(
                agents=[AgentBody.of(view) for view in self._service.agents()],
                performance=performance,
                scaling=scaling,
                counts=counts,
                decisions=decisions,
                problem=problem,
                server_time=iso_always(self._clock.now()),
            )
        )

    async def _records(self) -> tuple[dict[str, int] | None, list[DecisionBody] | None, str | None]:
        """Counts, the last decisions, and why there are none."""
        try:
            async with asyncio.timeout(RECORDS_SECONDS):
                counts, page = await asyncio.gather(
                    self._service.counts(), self._service.decisions(DecisionFilter(limit=DECISIONS))
                )
        except Unavailable as error:
            return None, None, str(error)
        except TimeoutError:
            return None, None, f"the database did not answer within {RECORDS_SECONDS:g} s"
        return counts, [DecisionBody.of(decision) for decision in page.items], None

    async def _report(self, what: str) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(REPORT_SECONDS):
                return with_iso_times(await self._service.report("performance", what))
        except (AgentEnginesError, TimeoutError):
            return None
