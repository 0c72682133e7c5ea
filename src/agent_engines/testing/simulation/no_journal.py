"""The simulated bus never accepts alone: its routers have no journal."""

from __future__ import annotations

from collections.abc import Sequence

from agent_engines.domain.errors import Unavailable
from agent_engines.domain.journal import JournalEntry, LogState
from agent_engines.ports.bus import JournalInbox

ABSENT = "the journal is not simulated"


class NoJournal:
    """Implements ports.bus.Journal by refusing."""

    async def publish_entries(self, entries: Sequence[JournalEntry]) -> list[Exception | None]:
        raise Unavailable(ABSENT)

    async def find(self, task_id: str) -> JournalEntry | None:
        return None

    async def open_journal(self) -> JournalInbox:
        raise Unavailable(ABSENT)

    async def state(self) -> LogState:
        return LogState()

    async def trim(self, before: int) -> None:
        """Nothing to forget."""
