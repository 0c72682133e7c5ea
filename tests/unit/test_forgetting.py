"""Retention: old rows go, young ones stay, and nothing runs on after the stop."""

from __future__ import annotations

import asyncio

from agent_engines.adapters.memory.clock import ManualClock
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.ports.retention import Purged
from agent_engines.runtime.forgetting import DAY, FIRST_SECONDS, PERIOD_SECONDS, Forgetting


class Asked:
    """Implements ports.retention.Retention: notes what it was asked to delete."""

    def __init__(self) -> None:
        self.before: list[float] = []

    async def purge(self, older_than: float) -> Purged:
        self.before.append(older_than)
        return Purged(1, 1, 1)


async def test_what_is_older_than_the_retention_is_deleted_each_hour() -> None:
    """First after five minutes, then each hour, always counted back from that moment."""
    clock, asked, telemetry = ManualClock(1_000_000_000.0), Asked(), NullTelemetry()
    forgetting = Forgetting(asked, clock, telemetry.log("test"), days=30)
    await forgetting.start()
    await clock.advance(FIRST_SECONDS)
    await clock.advance(PERIOD_SECONDS)
    first = 1_000_000_000.0 + FIRST_SECONDS - 30 * DAY
    assert asked.before == [first, first + PERIOD_SECONDS]
    await forgetting.stop()
    await forgetting.stop()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "forgetting"]


async def test_only_the_router_that_leads_forgets() -> None:
    clock, asked, telemetry = ManualClock(), Asked(), NullTelemetry()
    leads = False
    forgetting = Forgetting(asked, clock, telemetry.log("test"), days=1.0, leads=lambda: leads)
    await forgetting.start()
    await clock.advance(FIRST_SECONDS * 3)
    assert asked.before == []
    leads = True
    await clock.advance(FIRST_SECONDS)
    assert len(asked.before) == 1
    await forgetting.stop()
