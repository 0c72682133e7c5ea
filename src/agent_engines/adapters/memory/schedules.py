"""Schedules in memory."""

from __future__ import annotations

from msgspec.structs import replace

from agent_engines.domain.errors import Conflict, NotFound
from agent_engines.domain.schedules import Schedule


class MemorySchedules:
    """See ports/schedules.py: ScheduleStore."""

    def __init__(self) -> None:
        self._schedules: dict[str, Schedule] = {}
        self._claimed_until: dict[str, float] = {}

    async def add(self, schedule: Schedule) -> None:
        if schedule.name in self._schedules:
            raise Conflict(f"there is a schedule {schedule.name} already")
        self._schedules[schedule.name] = schedule

    async def put(self, schedule: Schedule) -> Schedule:
        old = self._schedules.get(schedule.name)
        if old is not None:
            same = (old.cron, old.timezone) == (schedule.cron, schedule.timezone) and old.enabled and schedule.enabled
            schedule = replace(
                schedule,
                next_run_at=old.next_run_at if same else schedule.next_run_at,
                last_run_at=old.last_run_at,
                last_task_id=old.last_task_id,
                created_at=old.created_at,
            )
        self._schedules[schedule.name] = schedule
        return schedule

    async def schedule(self, name: str) -> Schedule:
        return self._one(name)

    async def schedules(self, after: str, limit: int) -> list[Schedule]:
        names = sorted(name for name in self._schedules if name > after)
        return [self._schedules[name] for name in names[:limit]]

    async def remove(self, name: str) -> None:
        self._one(name)
        del self._schedules[name]
        self._claimed_until.pop(name, None)

    async def enable(self, name: str, next_run_at: float, now: float) -> Schedule:
        old = self._one(name)
        return self._keep(
            replace(old, enabled=True, next_run_at=old.next_run_at if old.enabled else next_run_at, updated_at=now)
        )

    async def pause(self, name: str, now: float) -> Schedule:
        self._claimed_until.pop(name, None)
        return self._keep(replace(self._one(name), enabled=False, next_run_at=None, updated_at=now))

    async def earliest(self) -> float | None:
        return min(
            (
                max(one.next_run_at, self._claimed_until.get(one.name, 0.0))
                for one in self._schedules.values()
                if one.next_run_at is not None
            ),
            default=None,
        )

    async def claim_due(self, now: float, until: float, limit: int) -> list[Schedule]:
        due = [
            (one.next_run_at, one)
            for one in self._schedules.values()
            if one.next_run_at is not None and one.next_run_at <= now and self._claimed_until.get(one.name, 0.0) <= now
        ]
        due.sort(key=lambda pair: pair[0])
        claimed = [one for _, one in due[:limit]]
        self._claimed_until.update((one.name, until) for one in claimed)
        return claimed

    async def advance(self, claimed: Schedule, next_run_at: float | None) -> None:
        stored = self._schedules.get(claimed.name)
        if stored is None:
            return
        same = stored.next_run_at == claimed.next_run_at
        if same:
            self._claimed_until.pop(claimed.name, None)
        self._keep(
            replace(
                stored,
                last_run_at=claimed.last_run_at,
                last_task_id=claimed.last_task_id,
                last_error=claimed.last_error,
                next_run_at=next_run_at if same else stored.next_run_at,
            )
        )

    async def postpone(self, name: str, until: float, error: str) -> None:
        stored = self._schedules.get(name)
        if stored is not None:
            self._claimed_until[name] = until
            self._keep(replace(stored, last_error=error))

    async def ran(self, name: str, at: float, task_id: str) -> None:
        stored = self._schedules.get(name)
        if stored is not None:
            self._keep(replace(stored, last_run_at=at, last_task_id=task_id))

    def _keep(self, schedule: Schedule) -> Schedule:
        self._schedules[schedule.name] = schedule
        return schedule

    def _one(self, name: str) -> Schedule:
        found = self._schedules.get(name)
        if found is None:
            raise NotFound(f"no schedule {name}")
        return found
