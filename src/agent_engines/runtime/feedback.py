"""The feedback desk: a judgement is stored first, then told to every router through the log that outcomes use.

stored (ledger) -> report log -> recorder -> `recorded.-` -> every router's fleet and learner

The row is an outbox: until the recorder has marked it, the router that leads publishes it again, so a router that dies
between the two steps loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from agent_engines.domain.capability import Capabilities
from agent_engines.domain.errors import QueueFull, Unavailable
from agent_engines.domain.feedback import Feedback, FeedbackDraft, check_feedback, feedback_report
from agent_engines.ports.bus import Bus
from agent_engines.ports.clock import Clock
from agent_engines.ports.ledger import Ledger
from agent_engines.ports.telemetry import Telemetry

from .background import Background

SWEEP_SECONDS = 15.0
UNTOLD_SECONDS = 30.0
"""Long enough for the recorder in all but an outage; the ledger takes a second copy for a duplicate."""
SWEPT = 200
BY = "intelligence"
"""Who publishes: routers speak for the judges."""


class FeedbackDesk:
    """Implements ports.feedback.FeedbackService; from `start` to `stop` it also sweeps the outbox."""

    def __init__(
        self,
        bus: Bus,
        ledger: Ledger,
        *,
        capabilities: Capabilities,
        clock: Clock,
        telemetry: Telemetry,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._bus = bus
        self._ledger = ledger
        self._capabilities = capabilities
        self._clock = clock
        self._telemetry = telemetry
        self._leads = leads
        self._log = telemetry.log("intelligence")
        self._background = Background(self._log)

    async def start(self) -> None:
        self._background.keep("feedback", self._sweep_for_ever)

    async def stop(self) -> None:
        """May be called twice."""
        await self._background.stop()

    async def give(self, task_id: str, draft: FeedbackDraft) -> Feedback:
        check_feedback(draft)
        feedback = await self._ledger.feedback.add(task_id, draft, self._clock.now())
        if feedback.recorded_at is None:
            await self._tell([feedback])
        return feedback

    async def of(self, task_id: str) -> list[Feedback]:
        found = await self._ledger.feedback.of(task_id)
        if not found:
            await self._ledger.reader.task(task_id)
        return found

    async def sweep(self) -> int:
        """Tell again what nobody seems to have learned; how many. Raises Unavailable."""
        untold = await self._ledger.feedback.untold(self._clock.now() - UNTOLD_SECONDS, SWEPT)
        await self._tell(untold)
        return len(untold)

    async def _tell(self, told: list[Feedback]) -> None:
        reports = [
            feedback_report(one, self._capabilities.sign(one.task_id, one.generation, one.agent))
            for one in told
            if one.agent is not None
        ]
        if not reports:
            return
        try:
            await self._bus.reports.publish_reports(BY, reports)
        except (Unavailable, QueueFull) as error:
            # Stored, and that is what was promised: the sweep tells it when the bus is back.
            self._log.warning("Feedback waits for the bus", judgements=len(reports), error=str(error))

    async def _sweep_for_ever(self) -> None:
        while True:
            await self._clock.sleep(SWEEP_SECONDS)
            if self._leads():
                await self.sweep()
