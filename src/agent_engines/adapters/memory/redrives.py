"""Redrives in memory."""

from __future__ import annotations

from msgspec.structs import replace

from agent_engines.domain.errors import Conflict
from agent_engines.domain.redrives import Redrive, RedriveState


class MemoryRedrives:
    """See ports/redrives.py: RedriveStore."""

    def __init__(self) -> None:
        self._latest: Redrive | None = None
        self._holder: tuple[str, float] | None = None

    async def begin(self, redrive: Redrive) -> None:
        running = self._running()
        if running is not None:
            if running.id == redrive.id:
                return
            raise Conflict("another redrive is running: wait for it, or stop it")
        self._latest, self._holder = redrive, None

    async def latest(self) -> Redrive | None:
        return self._latest

    async def claim(self, router: str, now: float, until: float) -> Redrive | None:
        running = self._running()
        if running is None or (self._holder is not None and self._holder[0] != router and self._holder[1] > now):
            return None
        self._holder = (router, until)
        return running

    async def note(self, redrive: Redrive, router: str, until: float) -> bool:
        running = self._running()
        if running is None or running.id != redrive.id or self._holder is None or self._holder[0] != router:
            return False
        self._latest, self._holder = redrive, (router, until)
        return True

    async def end(self, redrive_id: str, state: RedriveState, now: float) -> Redrive | None:
        running = self._running()
        if running is None or running.id != redrive_id:
            return None
        self._latest, self._holder = replace(running, state=state, updated_at=now), None
        return self._latest

    def _running(self) -> Redrive | None:
        return self._latest if self._latest is not None and self._latest.state is RedriveState.RUNNING else None
