"""What is only on the bus at this moment: accepted tasks and outcomes that the ledger does not have yet."""

from __future__ import annotations

import asyncio

from agent_engines.adapters.backup.manifest import Bus
from agent_engines.adapters.jetstream.api import NOT_FOUND
from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.adapters.jetstream.requests import ApiError
from agent_engines.config import Config

from .connect import bus_security

SETTLE_SECONDS = 10.0
"""With the ledger there, the keeper brings the journal's entries into it within moments."""
LOOK_SECONDS = 0.2


async def unrecorded(config: Config, nats_url: str, *, patience: float = SETTLE_SECONDS) -> Bus:
    """Waits up to `patience` seconds for an empty journal. Raises ConfigurationError, Unavailable."""
    bus = await JetStreamBus.connect(nats_url, name="backup", security=bus_security(config))
    try:
        end = asyncio.get_running_loop().time() + patience
        while (found := await _waiting(bus)).journal and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(LOOK_SECONDS)
        return found
    finally:
        await bus.close()


async def _waiting(bus: JetStreamBus) -> Bus:
    try:
        journal, reports = await asyncio.gather(bus.journal.state(), bus.reports.state())
    except ApiError as error:
        if error.code not in NOT_FOUND:
            raise
        # No router has ever been here: nothing was accepted.
        return Bus(journal=0, reports=0)
    return Bus(journal=journal.waiting, reports=reports.waiting)
