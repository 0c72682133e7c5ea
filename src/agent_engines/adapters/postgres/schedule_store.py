"""Schedules on PostgreSQL."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from agent_engines.domain.errors import Conflict, InvalidRequest, NotFound
from agent_engines.domain.schedules import CatchUp, Schedule, TaskTemplate
from agent_engines.domain.tasks import NO_PAYLOAD

from . import rows
from .pool import UNSTORABLE, Pool, Row

_decode_template = msgspec.json.Decoder(TaskTemplate).decode


class PostgresSchedules:
    """See ports/schedules.py: ScheduleStore."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, schedule: Schedule) -> None:
        if not await self._write("schedule_add", schedule):
            raise Conflict(f"there is a schedule {schedule.name} already")

    async def put(self, schedule: Schedule) -> Schedule:
        return _schedule((await self._write("schedule_put", schedule))[0])

    async def schedule(self, name: str) -> Schedule:
        return await self._one("schedule", name)

    async def schedules(self, after: str, limit: int) -> list[Schedule]:
        return [_schedule(row) for row in await self._pool.fetch("schedules", after, limit)]

    async def remove(self, name: str) -> None:
        if not await self._pool.fetch("schedule_remove", name):
            raise _unknown(name)

    async def enable(self, name: str, next_run_at: float, now: float) -> Schedule:
        return await self._one("schedule_enable", name, next_run_at, now)

    async def pause(self, name: str, now: float) -> Schedule:
        return await self._one("schedule_pause", name, now)

    async def earliest(self) -> float | None:
        return rows.seconds((await self._pool.fetch("schedule_earliest"))[0]["earliest"])

    async def claim_due(self, now: float, until: float, limit: int) -> list[Schedule]:
        return [_schedule(row) for row in await self._pool.fetch("schedule_claim", now, until, limit, repeat=False)]

    async def advance(self, claimed: Schedule, next_run_at: float | None) -> None:
        await self._pool.fetch(
            "schedule_advance",
            claimed.name,
            claimed.next_run_at,
            claimed.last_run_at,
            claimed.last_task_id,
            claimed.last_error,
            next_run_at,
        )

    async def postpone(self, name: str, until: float, error: str) -> None:
        await self._pool.fetch("schedule_postpone", name, until, error)

    async def ran(self, name: str, at: float, task_id: str) -> None:
        await self._pool.fetch("schedule_ran", name, at, task_id)

    async def _write(self, query: str, schedule: Schedule) -> list[Row]:
        template = replace(schedule.task, payload=NO_PAYLOAD)
        try:
            return await self._pool.fetch(
                query,
                schedule.name,
                schedule.cron,
                schedule.timezone,
                rows.json_text(template),
                rows.raw_text(schedule.task.payload),
                str(schedule.catch_up),
                schedule.enabled,
                schedule.next_run_at,
                schedule.updated_at,
                # A repeated `add` would meet its own earlier write.
                repeat=query != "schedule_add",
            )
        except UNSTORABLE as error:
            raise InvalidRequest(f"the schedule cannot be stored: {error}", field="task") from error

    async def _one(self, query: str, name: str, *more: Any) -> Schedule:
        found = await self._pool.fetch(query, name, *more)
        if not found:
            raise _unknown(name)
        return _schedule(found[0])


def _unknown(name: str) -> NotFound:
    return NotFound(f"no schedule {name}")


def _schedule(row: Row) -> Schedule:
    task = _decode_template(row["template"])
    return Schedule(
        name=row["name"],
        cron=row["cron"],
        timezone=row["timezone"],
        task=replace(task, payload=msgspec.Raw(row["payload"].encode())),
        enabled=row["enabled"],
        catch_up=CatchUp(row["catch_up"]),
        next_run_at=rows.seconds(row["next_run_at"]),
        last_run_at=rows.seconds(row["last_run_at"]),
        last_task_id=row["last_task_id"],
        last_error=row["last_error"],
        created_at=row["created_at"].timestamp(),
        updated_at=row["updated_at"].timestamp(),
    )
