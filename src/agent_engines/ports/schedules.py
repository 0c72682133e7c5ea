"""Where schedules are kept."""

from __future__ import annotations

from typing import Protocol

from agent_engines.domain.schedules import Schedule


class ScheduleStore(Protocol):
    """Part of the ledger. Every call raises Unavailable past its deadline; all but `claim_due` may be repeated."""

    async def add(self, schedule: Schedule) -> None:
        """Raises Conflict (the name is taken)."""
        ...

    async def put(self, schedule: Schedule) -> Schedule:
        """Store it, new or in place of the one of that name, and return what is stored.

        What it did so far stays; its next time too, unless its times were changed or it was paused.
        """
        ...

    async def schedule(self, name: str) -> Schedule:
        """Raises NotFound."""
        ...

    async def schedules(self, after: str, limit: int) -> list[Schedule]:
        """The first `limit` past the name `after`, by name."""
        ...

    async def remove(self, name: str) -> None:
        """Raises NotFound."""
        ...

    async def enable(self, name: str, next_run_at: float, now: float) -> Schedule:
        """One that is enabled already keeps its next time. Raises NotFound."""
        ...

    async def pause(self, name: str, now: float) -> Schedule:
        """Raises NotFound."""
        ...

    async def earliest(self) -> float | None:
        """When the next one may be claimed."""
        ...

    async def claim_due(self, now: float, until: float, limit: int) -> list[Schedule]:
        """Those that are due; nobody else gets them before `until` unless they are advanced."""
        ...

    async def advance(self, claimed: Schedule, next_run_at: float | None) -> None:
        """Write what was done (`last_...` of `claimed`) and go on to `next_run_at`, if its time is still the claimed one."""
        ...

    async def postpone(self, name: str, until: float, error: str) -> None:
        """A task could not be made: nobody tries before `until`."""
        ...

    async def ran(self, name: str, at: float, task_id: str) -> None:
        """Note a run by hand."""
        ...
