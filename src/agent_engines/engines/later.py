"""Everything an intelligence engine does later: planned tasks, schedules, and driving dead letters again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from agent_engines.ports.connections import Connections
from agent_engines.ports.ledger import Ledger
from agent_engines.runtime.desk import TaskDesk
from agent_engines.runtime.dispatcher import Dispatcher
from agent_engines.runtime.planning import Planner
from agent_engines.runtime.redispatch import Redispatcher
from agent_engines.runtime.redriving import Redriving
from agent_engines.runtime.schedules import Schedules


@dataclass(frozen=True, slots=True)
class Later:
    """`start` begins the chores; `stop` ends them and refuses what comes after."""

    planner: Planner
    schedules: Schedules
    redrives: Redriving

    @classmethod
    def join(
        cls,
        connections: Connections,
        ledger: Ledger,
        *,
        dispatcher: Dispatcher,
        redispatcher: Redispatcher,
        desk: TaskDesk,
        new_id: Callable[[], str],
    ) -> Later:
        clock, telemetry = connections.clock, connections.telemetry
        planner = Planner(
            dispatcher, ledger, clock=clock, telemetry=telemetry, new_id=new_id, on_planned=redispatcher.arm
        )
        schedules = Schedules(ledger.schedules, dispatcher, clock=clock, telemetry=telemetry, new_id=new_id)
        redrives = Redriving(ledger, desk, clock=clock, telemetry=telemetry, new_id=new_id)
        return cls(planner, schedules, redrives)

    async def start(self) -> None:
        await self.schedules.start()
        await self.redrives.start()

    async def stop(self) -> None:
        """May be called twice."""
        await asyncio.gather(self.schedules.stop(), self.redrives.stop(), self.planner.close())
