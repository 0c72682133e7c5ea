"""The gate before the ledger: only reports that carry the capability of their dispatch go through.

What does not is acknowledged with its message and not recorded: sent again it would be no better. It is counted, and told
as a security warning, at most one line every ten seconds for each reason, so that a flood of forgeries cannot flood the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
from msgspec.structs import force_setattr

from agent_engines.domain.capability import Capabilities, Flaw
from agent_engines.domain.messages import Report
from agent_engines.ports.bus import ReportDelivery
from agent_engines.ports.clock import Clock
from agent_engines.ports.telemetry import Telemetry

QUIET_SECONDS = 10.0
SHOWN = 200
"""Characters of a text from outside that a line shows."""


class ReportGate:
    """Ask `admitted` once for every message that arrives."""

    def __init__(self, capabilities: Capabilities, *, clock: Clock, telemetry: Telemetry) -> None:
        self._flaw = capabilities.flaw
        self._clock = clock
        self._telemetry = telemetry
        self._log = telemetry.log("intelligence")
        self._told_at: dict[Flaw, float] = {}
        self._untold: Counter[Flaw] = Counter()
        self.refused: Counter[Flaw] = Counter()

    def admitted(self, batch: Sequence[ReportDelivery]) -> list[ReportDelivery]:
        """The same messages, in the same order, without the reports that do not count."""
        return [self._checked(delivery) for delivery in batch]

    def _checked(self, delivery: ReportDelivery) -> ReportDelivery:
        flaws = [self._flaw(report) for report in delivery.reports]
        for report in delivery.reports:
            # Just decoded, nobody else has it. What is told on must not let others report on what still runs.
            force_setattr(report, "capability", "")
        if not any(flaws):
            return delivery
        good: list[Report] = []
        for report, flaw in zip(delivery.reports, flaws, strict=True):
            if flaw is None:
                good.append(report)
            else:
                self._refuse(report, flaw)
        return msgspec.structs.replace(delivery, reports=tuple(good))

    def _refuse(self, report: Report, flaw: Flaw) -> None:
        self.refused[flaw] += 1
        self._telemetry.count("reports_refused_total", reason=str(flaw))
        now = self._clock.monotonic()
        if now - self._told_at.get(flaw, float("-inf")) < QUIET_SECONDS:
            self._untold[flaw] += 1
            return
        self._told_at[flaw] = now
        self._log.warning(
            "Security: a report without its dispatch's capability was refused",
            reason=str(flaw),
            agent=(report.agent or "")[:SHOWN],
            replica=report.replica[:SHOWN],
            task_id=report.task_id[:SHOWN],
            generation=report.generation,
            kind=str(report.kind),
            status=str(report.status),
            unlogged_since_last=self._untold.pop(flaw, 0),
        )
