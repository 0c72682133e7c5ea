"""What the front doors may ask of the intelligence engine about work that is done later."""

from __future__ import annotations

from typing import Protocol

from agent_engines.domain.messages import SubmitResult
from agent_engines.domain.redrives import Redrive, RedriveOrder
from agent_engines.domain.schedules import Schedule, ScheduleDraft

from .ledger import Page


class ScheduleService(Protocol):
    """What the front doors may do. Every method raises Unavailable."""

    async def schedules(self, limit: int, cursor: str | None) -> Page: ...

    async def schedule(self, name: str) -> Schedule:
        """Raises NotFound."""
        ...

    async def add(self, draft: ScheduleDraft) -> Schedule:
        """Raises InvalidRequest (the field named), Conflict (the name is taken)."""
        ...

    async def put(self, draft: ScheduleDraft) -> Schedule:
        """Raises InvalidRequest (the field named)."""
        ...

    async def remove(self, name: str) -> None:
        """Tasks it has made stay. Raises NotFound."""
        ...

    async def pause(self, name: str) -> Schedule:
        """Raises NotFound."""
        ...

    async def resume(self, name: str) -> Schedule:
        """What passed meanwhile is not made up for. Raises NotFound."""
        ...

    async def run(self, name: str) -> SubmitResult:
        """Make one task now, beside its times. Raises NotFound."""
        ...


class RedriveService(Protocol):
    """Dead letters by the thousand. Every method raises Unavailable."""

    async def begin(self, order: RedriveOrder) -> Redrive:
        """Begin in the background. Raises InvalidRequest (the field named), Conflict (another one runs)."""
        ...

    async def latest(self) -> Redrive:
        """The one that runs, or ran last. Raises NotFound."""
        ...

    async def end(self) -> Redrive:
        """Stop the one that runs; what it has redriven stays so. Raises NotFound."""
        ...
