"""Chores: what one router does for all of them: rescue the tasks of agents that are gone, delete what is old."""

from __future__ import annotations

from dataclasses import dataclass

from agent_engines.ports.connections import Connections
from agent_engines.ports.ledger import Ledger
from agent_engines.runtime.fleet import Fleet
from agent_engines.runtime.forgetting import Forgetting
from agent_engines.runtime.leadership import Leadership
from agent_engines.runtime.redispatch import Redispatcher
from agent_engines.runtime.rescue import Rescue

ROLE = "chores"


def candidate(connections: Connections, name: str) -> Leadership:
    """This router in the election of the one that does the chores."""
    return Leadership(connections.bus.settings, ROLE, name, clock=connections.clock, telemetry=connections.telemetry)


@dataclass(frozen=True, slots=True)
class Chores:
    """Start it when everything else runs. Looking for stranded tasks is the redispatcher's chore."""

    leadership: Leadership
    rescue: Rescue
    forgetting: Forgetting

    @classmethod
    def join(
        cls,
        connections: Connections,
        ledger: Ledger,
        leadership: Leadership,
        *,
        redispatcher: Redispatcher,
        fleet: Fleet,
        retention_days: float,
    ) -> Chores:
        clock, telemetry, leads = connections.clock, connections.telemetry, leadership.leads
        rescue = Rescue(connections.bus, ledger, redispatcher, fleet, clock=clock, telemetry=telemetry, leads=leads)
        log = telemetry.log("intelligence")
        return cls(leadership, rescue, Forgetting(ledger.retention, clock, log, days=retention_days, leads=leads))

    async def start(self) -> None:
        await self.leadership.start()
        await self.rescue.start()
        await self.forgetting.start()

    async def stop(self) -> None:
        """The work ends before the lease is given back."""
        await self.forgetting.stop()
        await self.rescue.stop()
        await self.leadership.stop()
