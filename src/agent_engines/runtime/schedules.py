"""Schedules: when an occurrence comes, its task is made, once, whichever router does it and however often.

due row -> claimed for a while -> task submitted with the occurrence's idempotency key -> row goes on to its next time

A router that dies in between leaves a claim that runs out; the next one submits the same key, which is the same task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from agent_engines.domain.errors import InvalidRequest
from agent_engines.domain.messages import Acceptance, Refusal, SubmitResult
from agent_engines.domain.schedules import (
    NAME,
    CatchUp,
    Schedule,
    ScheduleDraft,
    check_schedule_name,
    occurrence_key,
    scheduled_request,
)
from agent_engines.domain.task_names import task_id_of
from agent_engines.domain.tasks import TaskRequest
from agent_engines.domain.validation import to_task
from agent_engines.ports.clock import Clock
from agent_engines.ports.ledger import Page
from agent_engines.ports.schedules import ScheduleStore
from agent_engines.ports.telemetry import Telemetry

from .background import Background
from .cron import Cron, cron_of
from .dispatcher import Dispatcher
from .naps import nap

POLL_SECONDS = 5.0
"""How soon a router hears of a schedule that another one was given: a minute is the least there is between occurrences."""
LEAST_PAUSE_SECONDS = 0.1
CLAIM_SECONDS = 30.0
"""After this another router makes the task of one that died over it."""
AGAIN_SECONDS = 5.0
"""Pause before an occurrence is tried again whose task nobody could take."""
CLAIM = 50
FINAL_REFUSALS = frozenset({"InvalidRequest", "TooLarge", "Malformed"})
"""Trying again cannot help."""


class Firing(NamedTuple):
    """What is to be done for a claimed schedule: the occurrence and the task of it."""

    schedule: Schedule
    cron: Cron
    occurrence: float
    request: TaskRequest


class Schedules:
    """Implements ports.schedules.ScheduleService; from `start` to `stop` it also makes what is due."""

    def __init__(
        self,
        store: ScheduleStore,
        dispatcher: Dispatcher,
        *,
        clock: Clock,
        telemetry: Telemetry,
        new_id: Callable[[], str],
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._clock = clock
        self._telemetry = telemetry
        self._log = telemetry.log("intelligence")
        self._new_id = new_id
        self._background = Background(self._log)
        self._changed = asyncio.Event()

    async def start(self) -> None:
        self._background.keep("schedules", self._follow)

    async def stop(self) -> None:
        """May be called twice."""
        await self._background.stop()

    async def schedules(self, limit: int, cursor: str | None) -> Page:
        if cursor is not None and not NAME.fullmatch(cursor):
            raise InvalidRequest("cursor is not one of this list: start again without it", field="cursor")
        found = await self._store.schedules(cursor or "", limit + 1)
        return Page(found[:limit], found[limit - 1].name if len(found) > limit else None)

    async def schedule(self, name: str) -> Schedule:
        return await self._store.schedule(name)

    async def add(self, draft: ScheduleDraft) -> Schedule:
        schedule = self._checked(draft)
        await self._store.add(schedule)
        self._changed.set()
        return schedule

    async def put(self, draft: ScheduleDraft) -> Schedule:
        stored = await self._store.put(self._checked(draft))
        self._changed.set()
        return stored

    async def remove(self, name: str) -> None:
        await self._store.remove(name)

    async def pause(self, name: str) -> Schedule:
        return await self._store.pause(name, self._clock.now())

    async def resume(self, name: str) -> Schedule:
        schedule = await self._store.schedule(name)
        now = self._clock.now()
        comes = cron_of(schedule.cron, schedule.timezone).after(now)
        if comes is None:
            raise InvalidRequest("cron names no day that comes again", field="cron")
        resumed = await self._store.enable(name, comes, now)
        self._changed.set()
        return resumed

    async def run(self, name: str) -> SubmitResult:
        schedule = await self._store.schedule(name)
        now = self._clock.now()
        key = f"schedule:{name}:run:{self._new_id()}"
        request = scheduled_request(name, schedule.task, key=key, occurrence=now)
        [result] = await self._dispatcher.submit([request])
        if result.accepted is not None:
            await self._store.ran(name, now, result.accepted.task_id)
        return result

    def _checked(self, draft: ScheduleDraft) -> Schedule:
        """Raises InvalidRequest (the field named), TooLarge."""
        check_schedule_name(draft.name)
        now = self._clock.now()
        cron = cron_of(draft.cron, draft.timezone)
        request = scheduled_request(draft.name, draft.task, key=occurrence_key(draft.name, now), occurrence=now)
        try:
            self._dispatcher.check(draft.task.strategy)
            to_task(request, now=now, origin="", new_id=self._new_id, limits=self._dispatcher.options.limits)
        except InvalidRequest as error:
            raise InvalidRequest(str(error), field=f"task.{error.field}" if error.field else "task") from None
        return Schedule(
            name=draft.name,
            cron=draft.cron,
            timezone=draft.timezone,
            task=draft.task,
            enabled=draft.enabled,
            catch_up=draft.catch_up,
            next_run_at=cron.after(now) if draft.enabled else None,
            created_at=now,
            updated_at=now,
        )

    async def _follow(self) -> None:
        while True:
            self._changed.clear()
            await self._make_due()
            await self._sleep_until_due()

    async def _sleep_until_due(self) -> None:
        earliest = await self._store.earliest()
        left = POLL_SECONDS if earliest is None else min(POLL_SECONDS, earliest - self._clock.now())
        await nap(self._clock, max(LEAST_PAUSE_SECONDS, left), self._changed)

    async def _make_due(self) -> None:
        while True:
            now = self._clock.now()
            due = await self._store.claim_due(now, now + CLAIM_SECONDS, CLAIM)
            await asyncio.gather(*(self._make(schedule, now) for schedule in due))
            if len(due) < CLAIM:
                return

    async def _make(self, schedule: Schedule, now: float) -> None:
        try:
            firing = _firing(schedule, now)
        except InvalidRequest as error:
            # A time zone that this machine does not know.
            await self._postpone(schedule, str(error))
            return
        [result] = await self._dispatcher.submit([firing.request])
        refused = result.refused
        if refused is not None and refused.kind not in FINAL_REFUSALS and refused.kind != "Conflict":
            await self._postpone(schedule, refused.detail)
            return
        await self._advance(firing, result.accepted, refused)

    async def _advance(self, firing: Firing, accepted: Acceptance | None, refused: Refusal | None) -> None:
        schedule, key = firing.schedule, firing.request.idempotency_key or ""
        problem = refused.detail if refused is not None and refused.kind in FINAL_REFUSALS else None
        # A Conflict says that the task of this occurrence is there, made before the schedule was edited.
        made = accepted.task_id if accepted is not None else task_id_of(key, firing.request.tenant)
        done = msgspec.structs.replace(
            schedule,
            last_run_at=firing.occurrence,
            last_task_id=schedule.last_task_id if problem else made,
            last_error=problem,
        )
        await self._store.advance(done, firing.cron.after(firing.occurrence))
        self._telemetry.count("schedule_runs_total", outcome="refused" if problem else "made")
        self._log.info("A schedule made its task", schedule=schedule.name, occurrence=firing.occurrence, task_id=made)

    async def _postpone(self, schedule: Schedule, problem: str) -> None:
        self._telemetry.count("schedule_runs_total", outcome="postponed")
        self._log.warning("A schedule's task could not be made now", schedule=schedule.name, error=problem)
        await self._store.postpone(schedule.name, self._clock.now() + AGAIN_SECONDS, problem)


def _firing(schedule: Schedule, now: float) -> Firing:
    cron = cron_of(schedule.cron, schedule.timezone)
    occurrence = schedule.next_run_at
    assert occurrence is not None, "only what has a time is claimed"
    if schedule.catch_up is CatchUp.SKIP:
        occurrence = cron.latest(occurrence, now)
    key = occurrence_key(schedule.name, occurrence)
    return Firing(
        schedule, cron, occurrence, scheduled_request(schedule.name, schedule.task, key=key, occurrence=occurrence)
    )
