"""The throttle of due retries: the retry budget, and room beyond it only where nobody else needs it.

Allowed at once is the larger of what the budget has left and half of the fleet's free slots: on an idle fleet retries
hurt nobody, on a busy one they stay within the budget. What is not allowed stays in the ledger, due, and is counted.
"""

from __future__ import annotations

from agent_engines.domain.retry_budget import RetryBudget
from agent_engines.ports.clock import Clock
from agent_engines.ports.ledger import TaskLedger
from agent_engines.ports.telemetry import Telemetry

from .fleet import Fleet

WAIT_SECONDS = 0.1
"""Between looks while retries wait: slots become free at any time."""
COUNT_SECONDS = 1.0


class RetryThrottle:
    """Ask `allowed`, tell `spent`; `wait` when that was not enough."""

    def __init__(
        self, ledger: TaskLedger, fleet: Fleet, budget: RetryBudget, *, clock: Clock, telemetry: Telemetry
    ) -> None:
        self._ledger = ledger
        self._fleet = fleet
        self._budget = budget
        self._clock = clock
        self._telemetry = telemetry
        self._log = telemetry.log("intelligence")
        self._counted_at = float("-inf")
        self._waiting = 0

    def allowed(self) -> int:
        """Retries that may be sent now."""
        return max(self._budget.left(self._clock.monotonic()), self._fleet.free_slots // 2)

    def spent(self, retries: int) -> None:
        """So many were taken."""
        if retries:
            self._budget.spent(self._clock.monotonic(), retries)
            self._waiting = max(0, self._waiting - retries)

    async def wait(self) -> bool:
        """Let a little time pass if there are retries that are not allowed now; False: there are none."""
        now = self._clock.monotonic()
        if now - self._counted_at >= COUNT_SECONDS:
            self._counted_at = now
            waiting = await self._ledger.due_retries(self._clock.now())
            if waiting > self._waiting:
                self._telemetry.count("retries_delayed_total", waiting - self._waiting)
                self._log.info("Retries wait for the retry budget", retries=waiting)
            self._waiting = waiting
        if self._waiting:
            await self._clock.sleep(WAIT_SECONDS)
        return self._waiting > 0
