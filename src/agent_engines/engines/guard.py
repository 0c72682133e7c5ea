"""What keeps a router right while a server is away or too much comes: the task journal and the door."""

from __future__ import annotations

from dataclasses import dataclass

from agent_engines.ports.connections import Connections
from agent_engines.ports.ledger import Ledger
from agent_engines.runtime.admission import Admission
from agent_engines.runtime.dispatcher import Dispatcher
from agent_engines.runtime.journal import TaskJournal


@dataclass(frozen=True, slots=True)
class Guard:
    """Stop it last: whoever reports or submits until then still needs it."""

    journal: TaskJournal
    admission: Admission

    @classmethod
    def join(cls, connections: Connections, ledger: Ledger, dispatcher: Dispatcher) -> Guard:
        """The dispatcher asks both from now on."""
        bus, clock, telemetry = connections.bus, connections.clock, connections.telemetry
        journal = dispatcher.journal = TaskJournal(bus, ledger.tasks, clock=clock, telemetry=telemetry)
        admission = dispatcher.admission = Admission(
            bus, ledger, dispatcher.accepting, clock=clock, telemetry=telemetry
        )
        return cls(journal, admission)

    async def start(self) -> None:
        await self.journal.start()
        await self.admission.start()

    async def stop(self) -> None:
        await self.admission.stop()
        await self.journal.stop()
